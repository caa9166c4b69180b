"""The project holds together: its metadata, its commands and its documents say the same thing."""

import argparse
import ast
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/instructors.md", "docs/commands.md"]

EVERYWHERE = {"errors", "files", "labels", "saved", "device", "processes"}
LAYERS = {
    "errors": EVERYWHERE,
    "interrupts": set(),
    "files": EVERYWHERE,
    "labels": EVERYWHERE,
    "device": EVERYWHERE,
    "processes": EVERYWHERE,
    "saved": EVERYWHERE,
    "methods": {"methods", "device", "errors", "labels"},
    "data": {"data"} | EVERYWHERE,
    "models": {"models", "data", "methods"} | EVERYWHERE,
    "evaluation": {"evaluation", "models", "data", "methods"} | EVERYWHERE,
    "viz": {"viz", "evaluation", "models", "data", "methods"} | EVERYWHERE,
    "training": {"training", "viz", "evaluation", "models", "data", "methods"} | EVERYWHERE,
    "multistage": {"multistage", "training", "viz", "evaluation", "models", "data", "methods"} | EVERYWHERE,
    "course": {"course", "multistage", "training", "viz", "evaluation", "models", "data", "methods"} | EVERYWHERE,
}
"""Who may import whom within the package; cli may import everything."""


def requirements() -> list[Requirement]:
    listed = list(PROJECT["dependencies"])
    for extra in PROJECT["optional-dependencies"].values():
        listed += extra
    return [Requirement(line) for line in listed]


def own_files() -> Iterator[Path]:
    """Every text file of the project, wherever it was checked out to."""
    folders = ["rsepm_edu", "tests", "notebooks", "docs", "data_scripts", "benchmarks", "results"]
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix != ".lock" and path.name != ".git")
    yield from [ROOT / ".ci/run", ROOT / ".github/workflows/test.yml"]
    for folder in folders:
        for path in (ROOT / folder).rglob("*"):
            hidden = "__pycache__" in path.parts or ".ipynb_checkpoints" in path.parts
            if path.is_file() and not hidden and path.suffix not in {".png", ".pt", ".pth", ".npz", ".jpg", ".webp"}:
                yield path


def imported_parts(path: Path, source: str) -> set[str]:
    """The parts of rsepm_edu that a module imports: methods, data, errors, ..."""
    package = path.relative_to(ROOT).parent.parts
    parts = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = [base + [alias.name] for alias in node.names]
        else:
            continue
        parts |= {name[1] for name in names if name[0] == "rsepm_edu" and len(name) > 1}
    return parts


def import_graph(folder: Path) -> dict[str, set[str]]:
    """The modules of a package and those among them that each imports, wherever in it the import stands."""
    paths = {".".join(path.relative_to(folder.parent).with_suffix("").parts): path for path in folder.rglob("*.py")}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    graph: dict[str, set[str]] = {}
    for module, path in paths.items():
        package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                origin = ".".join([*base, *([node.module] if node.module else [])])
                names = [f"{origin}.{alias.name}" for alias in node.names]
                found |= {name if name in paths else origin for name in names}
        graph[module] = found & paths.keys()
    return graph


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """The largest sets of modules each of which imports, by way of others, all of them."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        due = [start]
        while due:
            due += graph[due.pop()] - seen
            seen |= set(due)
        return seen

    reach = {module: reached(module) for module in graph}
    return {
        frozenset(other for other in reach[module] if module in reach[other])
        for module in graph
        if module in reach[module]
    }


def subcommands() -> set[str]:
    from rsepm_edu.cli import build_parser

    actions = build_parser()._actions
    [choice] = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
    return set(choice.choices)


# dependencies


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_dependencies_have_lower_bounds_only(requirement: Requirement) -> None:
    if requirement.name == PROJECT["name"]:
        return  # the extra that includes another extra
    assert [spec.operator for spec in requirement.specifier] == [">="], str(requirement)


def test_the_bounds_of_the_course() -> None:
    bounds = {r.name: str(r.specifier) for r in requirements()}
    assert PROJECT["requires-python"] == ">=3.11"
    assert bounds["torch"] == ">=2.6"
    assert bounds["torchvision"] == ">=0.21"
    assert bounds["numpy"] == ">=1.26"


def test_nothing_pins_torch_or_numpy() -> None:
    pin = re.compile(r"\b(torch|torchvision|numpy)\s*(==|~=|<|!=)\s*\d")
    for path in own_files():
        if path.suffix in {".toml", ".yml", ".md", ".ipynb"} or path.name in {"Makefile", "run"}:
            assert not pin.search(path.read_text()), path


def test_conda_asks_for_the_same_python_and_leaves_the_rest_to_pip() -> None:
    text = (ROOT / "environment.yml").read_text()
    *conda, pip = yaml.safe_load(text)["dependencies"]
    assert f"python{PROJECT['requires-python']}" in conda
    assert pip == {"pip": ["-e .[notebooks]"]}
    lines = text.split("\ndependencies:\n")[1].splitlines()
    assert [line for line in lines if "#" not in line and "pip:" not in line] == []


# commands


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_commands_of_the_documents_exist(document: str) -> None:
    code = re.findall(r"```.*?```|`[^`\n]+`", (ROOT / document).read_text(), flags=re.DOTALL)
    calls = re.findall(r"(?m)(?:^|`)make((?: [A-Z]+=\S+)*) ([a-z-]+)", "\n".join(code))
    targets = {target for _, target in calls}
    assert targets, f"{document} names no make command"
    assert targets <= makefile_targets()


def test_the_page_of_commands_lists_those_of_the_command_line() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    listed = re.findall(r"^\| `rsepm-edu ([a-z]+)` \|", page, flags=re.MULTILINE)
    assert set(listed) == subcommands()


def test_readme_stays_an_entry() -> None:
    assert len(README.splitlines()) <= 150
    first_screen = README[: README.index("## Lessons")]
    assert "<img" in first_screen and first_screen.count("\nmake ") == 2


def test_readme_names_every_lesson_with_its_time_and_what_it_needs() -> None:
    row_of = r"^\| (\d\d) \| \[.*?\]\((notebooks/.*?)\) \| (\d+) \| ([^|]+) \| [^|]+\? \|$"
    rows = re.findall(row_of, README, re.MULTILINE)
    lessons = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert [row[1] for row in rows] == [f"notebooks/{path.name}" for path in lessons]
    for number, path, minutes, needs in rows:
        opening = (ROOT / path).read_text(encoding="utf-8")
        assert f"Reading and thinking: about {minutes} minutes" in opening, path
        assert all(earlier < number for earlier in re.findall(r"\d\d", needs)), path


def test_readme_example_runs() -> None:
    [example] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(example, names)
    assert names["refined"].shape == names["masks"].shape  # type: ignore[attr-defined]


def test_the_workflow_runs_make_test_on_every_supported_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    [job] = workflow["jobs"].values()
    assert "make test" in [step.get("run") for step in job["steps"]]
    supported = [c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if "Python :: 3" in c]
    assert job["strategy"]["matrix"]["python-version"] == supported


def test_ci_is_the_readme_command() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make test"


# documents


def test_the_repository_has_one_address() -> None:
    address = PROJECT["urls"]["Repository"]
    owner_and_name = address.removeprefix("https://github.com/")
    for path in own_files():
        if path.suffix in {".md", ".py", ".yml", ".ipynb"}:
            for found in re.findall(r"github\.com/([\w-]+/rsepm[\w-]*)", path.read_text()):
                assert found == owner_and_name, path


def test_the_license_is_the_whole_apache_license() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


# code


def package_modules() -> list[Path]:
    return sorted((ROOT / "rsepm_edu").rglob("*.py"))


@pytest.mark.parametrize("path", package_modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    layer = path.relative_to(ROOT / "rsepm_edu").parts[0].removesuffix(".py")
    if layer in {"cli", "__init__", "__main__"}:
        return
    assert imported_parts(path, path.read_text()) <= LAYERS[layer]


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = import_graph(ROOT / "rsepm_edu")
    assert "rsepm_edu.processes" in graph["rsepm_edu.cli.train"] and len(graph) == len(package_modules())
    assert circles(graph) == set()


def test_circles_are_seen_wherever_the_imports_stand(tmp_path: Path) -> None:
    sources = {
        "__init__": "",
        "a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.b import B\nimport torch\n",
        "b": "def late():\n    from . import c\n",
        "c": "import house.a\nimport house.d\n",
        "d": "from house import e\n",
        "e": "from .f import nothing\n",
        "f": "import json\n",
        "g": "from house.g import itself\n",
    }
    for name, source in sources.items():
        (tmp_path / "house").mkdir(exist_ok=True)
        (tmp_path / "house" / f"{name}.py").write_text(source)
    graph = import_graph(tmp_path / "house")
    assert graph["house.d"] == {"house.e"} and graph["house.e"] == {"house.f"} and graph["house.f"] == set()
    assert circles(graph) == {frozenset({"house.a", "house.b", "house.c"}), frozenset({"house.g"})}


def test_imported_parts_sees_every_form_of_import() -> None:
    source = (
        "import rsepm_edu.data.voc as voc\n"
        "from rsepm_edu import training\n"
        "from rsepm_edu.viz.panels import panel\n"
        "from . import cam\n"
        "from ..models import network\n"
        "def late():\n"
        "    from rsepm_edu.evaluation import metrics\n"
        "import torch\n"
    )
    parts = imported_parts(ROOT / "rsepm_edu/methods/scg.py", source)
    assert parts == {"data", "training", "viz", "methods", "models", "evaluation"}


def test_no_file_is_called_utils() -> None:
    assert [path for path in own_files() if re.fullmatch(r"utils?\.py", path.name)] == []


def test_no_path_of_somebodys_machine() -> None:
    absolute = re.compile(r"(?<![\w.~$}/-])/(?:home|root|Users|work|tmp|mnt|opt|private|farm)/[\w.]")
    for path in own_files():
        found = absolute.search(path.read_text(errors="replace"))
        assert found is None, f"{path.relative_to(ROOT)}: {found and found.group()}"


def test_importing_the_package_gives_a_version_and_nothing_heavy() -> None:
    import rsepm_edu

    assert rsepm_edu.__version__ in {PROJECT["version"], "0+checkout"}
    assert imported_parts(ROOT / "rsepm_edu/__init__.py", Path(rsepm_edu.__file__).read_text()) == set()
