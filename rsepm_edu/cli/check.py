"""rsepm-edu check: how students' notebooks did in the exercises."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tqdm.auto import tqdm

from rsepm_edu.course.sandbox import one_line
from rsepm_edu.course.submissions import Submission, check_submission
from rsepm_edu.course.walls import why_no_walls
from rsepm_edu.errors import UserError


def run(options: argparse.Namespace) -> int:
    """Check each notebook and print its grades as they come."""
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
    # None: no bar where the output is no terminal.
    for file in tqdm(options.notebooks, unit="notebook", disable=options.quiet or single or None):
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
