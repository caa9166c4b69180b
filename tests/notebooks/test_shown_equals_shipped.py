"""A cell tagged `pkg:<module>.<function>` shows that very function, docstring apart."""

import ast
import importlib
import inspect
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SHOWN = [
    pytest.param(tag.removeprefix("pkg:"), cell.source, id=f"{path.stem}:{tag.rsplit('.')[-1]}")
    for path in NOTEBOOKS
    for cell in nbformat.read(path, as_version=4).cells
    for tag in cell.metadata.get("tags", [])
    if tag.startswith("pkg:")
]


def definition(source: str, name: str) -> str:
    """The dump of the only definition in a source, without its docstring."""
    definitions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert [node.name for node in definitions] == [name]
    node = definitions[0]
    if ast.get_docstring(node) is not None:
        node.body = node.body[1:]
    return ast.dump(node)


@pytest.mark.parametrize(("target", "cell"), SHOWN)
def test_what_is_shown_is_what_is_shipped(target, cell):
    module, _, name = target.rpartition(".")
    shipped = inspect.getsource(getattr(importlib.import_module(module), name))
    assert definition(cell, name) == definition(shipped, name)


def test_lesson_01_shows_both_functions_of_its_module():
    module = "rsepm_edu.methods.cam"
    shown = {param.values[0] for param in SHOWN}
    assert {f"{module}.cam_from_features", f"{module}.normalize_cam"} <= shown


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ('def f(x: int) -> int:\n    """Other words."""\n    return x + 1', True),
        ("import math\n\n\ndef f(x: int) -> int:\n    # a comment\n    return x + 1", True),
        ("def f(x: int) -> int:\n    return x + 2", False),
        ("def f(x: int, y: int = 0) -> int:\n    return x + 1", False),
        ("def f(x):\n    return x + 1", False),
        ("class f:\n    def __call__(self, x: int) -> int:\n        return x + 1", False),
    ],
)
def test_the_comparison_sees_code_and_not_words(changed, same):
    shipped = 'def f(x: int) -> int:\n    """One more."""\n    return x + 1'
    assert (definition(changed, "f") == definition(shipped, "f")) is same
