"""rsepm-edu check: how students' notebooks did in the exercises."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from tqdm.auto import tqdm

from rsepm_edu.course.submissions import CELL_SECONDS, Submission, check_submission
from rsepm_edu.errors import UserError


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Runs each notebook in a Jupyter kernel of its own and tries the functions that its exercises ask for, beside "
        "the package's, on inputs that are not in the notebook. Exit code 0: all exercises are solved; 1: not all. The "
        "code runs with your rights: docs/instructors.md says what the kernel keeps out and what not."
    )
    parser.add_argument("notebooks", metavar="FILE.ipynb", nargs="+", help="one submission, or those of a class")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument(
        "--cell-seconds", type=float, default=CELL_SECONDS, help="time limit of each cell (default: %(default)g)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    quiet = options.quiet or len(options.notebooks) == 1
    missing = [file for file in options.notebooks if not Path(file).is_file()]
    if missing:  # said before minutes are spent on the others
        raise UserError(f"{missing[0]}: expected a notebook, got no such file")
    found = [
        check_submission(file, cell_seconds=options.cell_seconds)
        for file in tqdm(options.notebooks, unit="notebook", disable=quiet)
    ]
    solved, count = sum(one.solved for one in found), sum(len(one.grades) for one in found)
    if options.json:
        submissions = [asdict(one) | {"solved": one.solved, "of": len(one.grades)} for one in found]
        print(json.dumps({"submissions": submissions, "solved": solved, "of": count}, indent=2))
    elif len(found) == 1:
        print(_in_full(found[0]))
    else:
        for one in found:
            print(_in_one_line(one))
        print(f"{solved} of {count} exercises solved in {len(found)} notebooks")
    return 0 if count and all(one.grades and one.solved == len(one.grades) for one in found) else 1


def _in_full(one: Submission) -> str:
    if one.lesson is None:
        return f"{one.file}: {one.problem}"
    width = max(len(grade.name) for grade in one.grades)
    lines = [f"{one.file}: lesson {one.lesson}"]
    lines += [f"  {'passed' if g.passed else 'failed'}  {g.name:<{width}}  {g.line}" for g in one.grades]
    lines += [f"  note: {one.problem}"] if one.problem else []
    return "\n".join([*lines, f"  {one.solved} of {len(one.grades)} exercises solved"])


def _in_one_line(one: Submission) -> str:
    if one.lesson is None:
        return f"-/-  {one.file}: {one.problem}"
    words = ", ".join(f"{g.name} {'passed' if g.passed else 'failed'}" for g in one.grades)
    return f"{one.solved}/{len(one.grades)}  {one.file}: {words}" + (f" ({one.problem})" if one.problem else "")
