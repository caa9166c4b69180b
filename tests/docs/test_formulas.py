"""Formulas of the API pages: each belongs to something that is there, and can be drawn; none is left as text alone."""

import importlib
import inspect
import pkgutil
import re
from functools import reduce
from pathlib import Path

import pytest
from latex2mathml.converter import convert

import rsepm_edu.evaluation
import rsepm_edu.methods
from docs.formulas import FORMULAS

EXAMPLES = {path.stem for path in (Path(__file__).parents[2] / "docs" / "examples").glob("*.py")}
SIGNS = re.compile(r"[Σ√←∪∩]|softmax\(|exp\(|log2|· ?min\(")


def found(name):
    parts = name.split(".")
    module = importlib.import_module(".".join(parts[:3]))
    return reduce(getattr, parts[3:], module)


def public():
    for package in (rsepm_edu.methods, rsepm_edu.evaluation):
        for each in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{each.name}")
            for name, member in vars(module).items():
                if getattr(member, "__module__", "") == module.__name__ and not name.startswith("_"):
                    yield f"{module.__name__}.{name}", member


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_belongs_to_something_and_can_be_drawn(name):
    assert inspect.getdoc(found(name))
    mathml = convert(FORMULAS[name])
    assert mathml.startswith("<math") and "\\" not in mathml  # what it does not know it leaves as it is
    assert name not in EXAMPLES


def test_no_function_says_its_formula_in_text_alone():
    said = {}
    for name, member in public():
        words = (inspect.getdoc(member) or "").split("Args:")[0]
        said[name] = any(SIGNS.search(line) for line in words.splitlines())
    assert "rsepm_edu.methods.recurseed.cam_loss" in said
    assert [name for name, has in said.items() if has and name not in FORMULAS and name not in EXAMPLES] == []
