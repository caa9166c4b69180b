"""rsepm-edu check: how students' notebooks did in the exercises."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tqdm.auto import tqdm

from rsepm_edu.course.sandbox import one_line
from rsepm_edu.course.submissions import CELL_SECONDS, MEMORY_GB, Submission, check_submission
from rsepm_edu.course.walls import why_no_walls
from rsepm_edu.errors import UserError


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Runs each notebook in a process of its own and tries the functions that its exercises ask for, beside the "
        "package's, on inputs that are not in the notebook. Grades are printed as they come. Exit code 0: all solved; "
        "1: not all. Where bubblewrap is not installed the code runs with your rights: docs/instructors.md says what "
        "is kept out and what not."
    )
    parser.add_argument("notebooks", metavar="FILE.ipynb", nargs="+", help="one submission, or those of a class")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each notebook instead of text")
    parser.add_argument(
        "--cell-seconds", type=float, default=CELL_SECONDS, help="time limit of each cell (default: %(default)g)"
    )
    parser.add_argument(
        "--memory-gb", type=float, default=MEMORY_GB, help="memory of a notebook's process (default: %(default)g)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    for file in options.notebooks:  # said before minutes are spent on the others
        if not Path(file).is_file():
            what = "a folder; name the files in it" if Path(file).is_dir() else "no such file"
            raise UserError(f"{_shown(file)}: expected a notebook, got {what}")
    if reason := why_no_walls():
        warning = "the notebooks run with your rights and can read and change your files (docs/instructors.md)"
        print(f"rsepm-edu check: {reason}: {warning}", file=sys.stderr)
    single = len(options.notebooks) == 1
    solved = count = 0
    all_solved = True
    for file in tqdm(options.notebooks, unit="notebook", disable=options.quiet or single):
        one = check_submission(file, cell_seconds=options.cell_seconds, memory_gb=options.memory_gb)
        solved, count = solved + one.solved, count + len(one.grades)
        all_solved &= one.solved == len(one.grades) > 0
        if options.json:
            line = json.dumps(asdict(one) | {"solved": one.solved, "of": len(one.grades)})
        else:
            line = _in_full(one) if single else _in_one_line(one)
        with tqdm.external_write_mode(sys.stdout):
            _print(line)
    if not options.json and not single:
        _print(f"{solved} of {count} exercises solved in {len(options.notebooks)} notebooks")
    return 0 if all_solved else 1


def _print(line: str) -> None:
    """At once: whatever happens to the next notebook, this grade is there. And whatever letters the terminal lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, errors="replace").decode(encoding), flush=True)


def _shown(file: str) -> str:
    """A file's name, which a student may have chosen, as it can be printed: one line, no escape codes."""
    return one_line(file, length=1000) or repr(file)


def _in_full(one: Submission) -> str:
    if one.lesson is None:
        return f"{_shown(one.file)}: {one.problem}"
    width = max(len(grade.name) for grade in one.grades)
    lines = [f"{_shown(one.file)}: lesson {one.lesson}"]
    lines += [f"  {'passed' if g.passed else 'failed'}  {g.name:<{width}}  {g.line}" for g in one.grades]
    lines += [f"  note: {one.problem}"] if one.problem else []
    return "\n".join([*lines, f"  {one.solved} of {len(one.grades)} exercises solved"])


def _in_one_line(one: Submission) -> str:
    if one.lesson is None:
        return f"-/-  {_shown(one.file)}: {one.problem}"
    words = ", ".join(f"{g.name} {'passed' if g.passed else 'failed'}" for g in one.grades)
    return f"{one.solved}/{len(one.grades)}  {_shown(one.file)}: {words}" + (f" ({one.problem})" if one.problem else "")
