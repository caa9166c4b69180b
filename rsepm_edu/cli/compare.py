"""rsepm-edu compare: several runs in one table and one figure."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rsepm_edu.cli.options import expect_folder
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.tables import ORACLE, markdown_table, text_table
from rsepm_edu.files import atomic_path, atomic_write_text
from rsepm_edu.training.run_folder import RunFolder, curves, read_run, scores_without_masks
from rsepm_edu.viz.run_curves import run_figure

MISSING = "–"

NOTE = (
    "losses: of the last epoch. Scores: mIoU in %, FP and FN as fractions of the union; choice: how the threshold was "
    f"chosen, {ORACLE} by masks"
)


def run(options: argparse.Namespace) -> None:
    """Print the table; with --out write it, and the figure, too."""
    if options.out is not None:
        expect_folder("--out", options.out)
    runs = _named([read_run(folder) for folder in options.runs])
    tables = [_table_of_runs(runs), _table_of_scores(runs)]
    print("\n".join(text_table(*table) for table in tables if table[1]))
    print(NOTE)
    for name, one in runs.items():
        if not one.scores:
            print(f"{name}: no scores; to add some: rsepm-edu evaluate {one.folder}/last.pt --out {one.folder}/table")
    if options.out is not None:
        lines = [line for table in tables if table[1] for line in [*markdown_table(*table), ""]]
        atomic_write_text(options.out / "compare.md", "\n".join([*lines, f"{NOTE}.\n"]))
        figure = run_figure(
            {name: curves(one) for name, one in runs.items()},
            {name: scores_without_masks(one) for name, one in runs.items()},
        )
        with atomic_path(options.out / "compare.png") as temporary:
            figure.savefig(temporary, format="png", dpi=130, metadata={"Software": None})
        print(options.out)


def _named(runs: Sequence[RunFolder]) -> dict[str, RunFolder]:
    """Runs by the shortest end of their paths that tells them apart.

    Raises:
        UserError: one is named twice.
    """
    paths = [run.folder.resolve() for run in runs]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise UserError(f"{runs[index].folder}: expected different runs, got this one twice")
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = [str(Path(*path.parts[-length:])) for path in paths]
        if len(set(names)) == len(names):
            break
    return dict(zip(names, runs, strict=True))


def _table_of_runs(runs: dict[str, RunFolder]) -> tuple[list[str], list[list[str]]]:
    """A row a run: how long it was, the settings in which runs differ, and its last losses."""
    known = dict.fromkeys(name for run in runs.values() for name in run.settings)
    differ = [name for name in known if len({str(run.settings.get(name)) for run in runs.values()}) > 1]
    losses = list(dict.fromkeys(name for run in runs.values() for name in run.epochs[-1].losses))
    head = ["run", "epochs done", "minutes", *differ, *(f"loss {name}" for name in losses)]
    body = []
    for name, run in runs.items():
        last = run.epochs[-1]
        minutes = sum(epoch.seconds for epoch in run.epochs) / 60
        settings = [str(run.settings.get(setting, MISSING)) for setting in differ]
        values = [f"{last.losses[loss]:.3f}" if loss in last.losses else MISSING for loss in losses]
        body.append([name, str(last.number), f"{minutes:.1f}", *settings, *values])
    return head, body


def _table_of_scores(runs: dict[str, RunFolder]) -> tuple[list[str], list[list[str]]]:
    """A row a method: mIoU, FP and FN of each run."""
    known = dict.fromkeys(key for run in runs.values() for key in run.scores)
    body = []
    for key in known:
        cells = list(key)
        for run in runs.values():
            score = run.scores.get(key)
            cells.append(
                MISSING if score is None else f"{score.miou.mean:.2f}  FP {score.fp.mean:.3f}  FN {score.fn.mean:.3f}"
            )
        body.append(cells)
    return ["method", "choice", *runs], body
