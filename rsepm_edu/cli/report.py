"""rsepm-edu report: a run as one page of HTML."""

import argparse
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from rsepm_edu.cli.evaluate import load_scored
from rsepm_edu.cli.options import expect_classes, expect_folder, on_device, shows_bars
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.choosing import DEFAULT_CRITERIA, choose_thresholds, thresholds_of
from rsepm_edu.evaluation.inference import usual_scales
from rsepm_edu.evaluation.label_maps import compare_label_maps, label_maps
from rsepm_edu.evaluation.scored_split import scored_split
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.files import atomic_write_text
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.training.keeping import LAST
from rsepm_edu.training.run_folder import RunFolder, read_run
from rsepm_edu.training.run_page import run_page
from rsepm_edu.viz.cases import cases_panel


def run(options: argparse.Namespace) -> None:
    """Write the page and print where it is."""
    out: Path = options.out or options.run / "report.html"
    if out.is_dir():
        raise UserError(f"--out: expected an HTML file, got the folder {out}")
    expect_folder("--out", out.parent)
    folder = read_run(options.run)
    root = _root(options, folder) if options.cases else None
    cases: dict[str, Figure] = {}
    if not options.cases:
        note = "Not shown (--no-cases)."
    elif root is None:
        note = "Not shown. To show them, from a data set with masks: rsepm-edu report RUN --root DATA"
    else:
        cases, note = _cases(options, folder, root)
    atomic_write_text(out, run_page(folder, cases, note))
    print(out)


def _root(options: argparse.Namespace, folder: RunFolder) -> Path | None:
    """The data of the cases; None: nobody has named any."""
    if options.root is not None:
        return Path(options.root)
    return ensure_creatures() if folder.settings.get("backbone") == "creatures" else None


def _cases(options: argparse.Namespace, folder: RunFolder, root: Path) -> tuple[dict[str, Figure], str]:
    """Pictures of the worst and the best cases by their titles, and how they were made."""
    path = folder.folder / LAST
    network, config, _ = load_scored(path)
    dataset = scored_split(root, options.split)
    expect_classes(dataset, network.classes)
    network = on_device(network, options.device)
    seen = SeedOptions(scales=options.scales or usual_scales(config.backbone))
    progress = shows_bars(options)
    if isinstance(network, SingleStageNetwork) and "decoder" not in network.learnt:
        seen = replace(seen, decode=False)
        chosen = choose_thresholds(network, dataset, seen, criteria=DEFAULT_CRITERIA, progress=progress)
        threshold = thresholds_of(chosen)[DEFAULT_CRITERIA[0]]["cam"]
        maps = label_maps(network, dataset, seen, tags=True, seed=("cam", threshold), progress=progress)
        made = f"CAM with tags, cut at {threshold:.2f}, chosen by colour without masks"
    else:
        maps = label_maps(network, dataset, seen, tags=False, progress=progress)
        made = "the network's segmentation, without tags"
    extremes = compare_label_maps(maps, dataset, count=options.count, boundary=False).extremes
    figures = {}
    for title, cases in (("Worst", extremes.worst), ("Best", extremes.best)):
        if cases:
            images = [dataset.sample(dataset.names.index(case.name), masks=False)["image"] for case in cases]
            figures[f"{title} of {len(dataset)} images of {options.split}"] = cases_panel(
                cases, images, dataset.classes
            )
    note = f"Shown: {made}. The number beside an image is its own mean IoU in %, used only for sorting."
    return figures, note
