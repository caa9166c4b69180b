"""Run of a lesson what its explorer needs, and no more: a minute of training that other figures need is left out."""

import ast
import io
import symtable
from contextlib import redirect_stdout
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

WIDGET = "application/vnd.jupyter.widget-view+json"
SHOWN = ("print", "panel", "numbers", "curves", "plane", "check")
"""Functions that change nothing that they are given."""


def explorer_of(notebook: dict[str, Any]) -> Any:
    """The explorer of a lesson, made by the lesson's own code.

    Args:
        notebook: as stored, with outputs: the explorer is the value of the cell whose output is a live view.

    Raises:
        ValueError: there is none.
    """
    lines: list[ast.stmt] = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            # As IPython does it: the first cell holds a line for pip.
            tree = ast.parse(TransformerManager().transform_cell("".join(cell["source"])))
            lines += tree.body
            if any(WIDGET in output.get("data", {}) for output in cell["outputs"]):
                break
    else:
        raise ValueError("expected a cell whose output is an explorer, got none")
    *before, last = needed(lines)
    assert isinstance(last, ast.Expr)
    names: dict[str, Any] = {"__name__": "__main__"}
    with redirect_stdout(io.StringIO()):
        exec(compile(ast.Module(before, []), "lesson", "exec"), names)  # the repository's own lesson
        return eval(compile(ast.Expression(last.value), "lesson", "eval"), names)


def needed(lines: list[ast.stmt]) -> list[ast.stmt]:
    """Of some statements the last, and those before it that it needs, also by way of one another.

    A name is followed back to the statement that gives it anew. On the way are kept: what writes into it, calls a
    method of it or gives it to a function for the sake of that alone, and loops that train.
    """
    late = set[str]()  # what functions use may be given after them
    while True:
        kept = _back(lines, late)
        more = set[str]().union(*(_names(line)[1] for line in kept if isinstance(line, ast.FunctionDef)))
        if more <= late:
            return kept
        late |= more


def _back(lines: list[ast.stmt], late: set[str]) -> list[ast.stmt]:
    """`needed`, where some more names are wanted at the end."""
    kept = [lines[-1]]
    wanted = _names(lines[-1])[1] | late
    for line in reversed(lines[:-1]):
        given, used = _names(line)
        if (given | _changed(line)) & wanted:
            kept.append(line)
            if isinstance(line, ast.Assign | ast.Import | ast.ImportFrom | ast.FunctionDef):
                wanted -= given
            wanted |= used
    return kept[::-1]


def _names(line: ast.AST) -> tuple[set[str], set[str]]:
    """The names that a statement gives, and those that it uses of what was there before."""
    if isinstance(line, ast.For | ast.While | ast.With | ast.If):
        given = _all_names(line.target) if isinstance(line, ast.For) else set[str]()
        heads = [getattr(line, "iter", None), getattr(line, "test", None), *getattr(line, "items", [])]
        used = set[str]().union(*(_all_names(head) for head in heads if head is not None))
        for part in [*line.body, *getattr(line, "orelse", [])]:
            more, needs = _names(part)
            used |= needs - given
            given |= more
        return given, used
    table = symtable.symtable(ast.unparse(line), "lesson", "exec")
    given = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    used = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()} | _inner(table)
    return given, used | {_root(part.target) for part in ast.walk(line) if isinstance(part, ast.AugAssign)}


def _inner(table: symtable.SymbolTable) -> set[str]:
    """Names of the lesson that functions, classes and brackets within use."""
    parts = table.get_children()
    own = (symbol.get_name() for part in parts for symbol in part.get_symbols() if symbol.is_global())
    return set(own).union(*map(_inner, parts))


def _changed(line: ast.stmt) -> set[str]:
    """Names whose things a statement may change without giving the name anew."""
    if isinstance(line, ast.FunctionDef | ast.ClassDef):
        return set()
    found = set()
    for part in ast.walk(line):
        if isinstance(part, ast.Subscript | ast.Attribute) and not isinstance(part.ctx, ast.Load):
            found |= {_root(part)}
        elif isinstance(part, ast.Expr) and isinstance(part.value, ast.Call) and _root(part.value) not in SHOWN:
            found |= {_root(part.value)}
            if isinstance(part.value.func, ast.Name):
                found |= {
                    name.id for value in part.value.args for name in ast.walk(value) if isinstance(name, ast.Name)
                }
            elif isinstance(part.value.func, ast.Attribute) and part.value.func.attr in ("backward", "step"):
                found |= _names(line)[1]
    return found


def _all_names(part: ast.AST) -> set[str]:
    return {name.id for name in ast.walk(part) if isinstance(name, ast.Name)}


def _root(part: ast.expr) -> str:
    """The name at the beginning of a.b[c].d()."""
    while isinstance(part, ast.Subscript | ast.Attribute | ast.Call):
        part = part.func if isinstance(part, ast.Call) else part.value
    return part.id if isinstance(part, ast.Name) else ""
