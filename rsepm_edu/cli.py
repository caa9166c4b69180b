"""The command line: rsepm-edu demo | train | evaluate | segment."""

import argparse
import ast
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NoReturn

import torch
from PIL import Image

from rsepm_edu import __version__
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.palette import write_mask
from rsepm_edu.data.voc import VocDataset, read_image
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.inference import SCALES, TAG_THRESHOLD, multi_scale_maps, predict_labels
from rsepm_edu.evaluation.scoring import score_seeds, score_segmentation
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.files import atomic_path
from rsepm_edu.models.device import resolve_device
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.training.checkpoint import load_checkpoint, load_network
from rsepm_edu.training.config import PRESETS, WITHOUT_DECODER, TrainConfig, method_name, preset
from rsepm_edu.training.experiments import Experiment, full_run
from rsepm_edu.training.loop import LAST, NotFiniteError, train
from rsepm_edu.viz.panels import overlay


class _Parser(argparse.ArgumentParser):
    """A parser that answers a wrong option with one line; subcommands inherit it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; every option has its help."""
    parser = _Parser(prog="rsepm-edu", description="From image tags to masks: RecurSeed and EdgePredictMix.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands.add_parser("demo", help="train RS+EPM on Creatures, print its table, write pictures"))
    _add_train(commands.add_parser("train", help="train on pictures with tags; no masks"))
    _add_evaluate(commands.add_parser("evaluate", help="score a checkpoint on a split with masks"))
    _add_segment(commands.add_parser("segment", help="write masks and overlays for any pictures"))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 after one line about what the user can put right."""
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except (UserError, NotFiniteError) as error:
        print(f"rsepm-edu {options.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder without rights
        print(f"rsepm-edu {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nrsepm-edu {options.command}: stopped; train --resume goes on from there", file=sys.stderr)
        return 130
    return 0


# --- demo ------------------------------------------------------------------------------------------------------------


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Draws the Creatures data set once, trains the full method on it, scores every phase, and writes a panel "
        "and masks. A few minutes on two CPU cores."
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order, crops, mixing (default: 0)")
    _add_common(parser)
    parser.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> None:
    started = time.perf_counter()
    root = ensure_creatures()
    out: Path = options.out
    resume = (out / LAST).is_file()
    config = preset("creatures-cpu", seed=options.seed)
    if resume and load_checkpoint(out / LAST).epoch >= config.epochs:
        raise UserError(f"{out}: expected a new folder (--out), got a demo that is finished")
    experiment = Experiment(config, root, split="train", pictures=300, progress=not options.quiet)
    rows = full_run(experiment, out, resume=resume, device=options.device, progress=not options.quiet)
    tables.write_results(
        out / "table",
        rows,
        command=f"rsepm-edu demo --seed {config.seed}",
        config=asdict(config),
        log=out / "log.jsonl",
    )
    val = VocDataset(root, "val")
    _segment_all(load_network(out / LAST), [val.image_path(name) for name in val.names[:12]], out / "masks", options)
    print(tables.text(rows))
    print(f"seconds: {time.perf_counter() - started:.0f}")
    print(f"panels:  {out / 'panels'}")
    print(f"masks:   {out / 'masks'}")


# --- train -----------------------------------------------------------------------------------------------------------


def _add_train(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(PRESETS)
    settings = ", ".join(field.name for field in fields(TrainConfig))
    parser.description = (
        "Trains on the pictures and tags of a folder in VOC's layout. Nothing that is learnt sees a mask; only the "
        "panels show the truth, where there is one."
    )
    parser.epilog = f"settings for --set: {settings} (explained in rsepm_edu/training/config.py)"
    parser.add_argument("--preset", required=True, help=f"settings to start from: {names}")
    parser.add_argument("--root", type=Path, help="VOC devkit (holds JPEGImages); default for creatures-cpu: Creatures")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, logs and pictures")
    parser.add_argument(
        "--set",
        dest="changes",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="change a setting, e.g. --set epochs=10 --set method=rs; may be given again and again",
    )
    parser.add_argument("--resume", action="store_true", help="go on from OUT/last.pt, bit for bit on the CPU")
    _add_common(parser)
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    config = preset(options.preset, **dict(_parse_change(change) for change in options.changes))
    root = options.root
    if root is None:
        if config.backbone != "creatures":
            raise UserError(f"--root: expected the folder of the data for preset {options.preset}, got none")
        root = ensure_creatures()
    train(config, root, options.out, resume=options.resume, device=options.device, progress=not options.quiet)
    print(options.out / LAST)


def _parse_change(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set: expected NAME=VALUE, got {text!r}")
    kinds = {field.name: field.type for field in fields(TrainConfig)}
    if name not in kinds:
        raise UserError(f"--set: expected a setting ({', '.join(kinds)}), got {name!r}")
    default = getattr(TrainConfig(), name)
    if isinstance(default, str):
        return name, value
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        parsed = None
    expected = float if isinstance(default, float) else type(default)
    if expected is float and type(parsed) is int:
        parsed = float(parsed)
    if type(parsed) is not expected:
        raise UserError(f"--set {name}: expected a value like {default!r}, got {value!r}")
    return name, parsed


# --- evaluate --------------------------------------------------------------------------------------------------------


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Scores a checkpoint: mIoU, FP and FN from one confusion matrix over the split, void left out. Maps as seeds, "
        "tags given, each at its ORACLE threshold; or, with --final, the segmentation without tags."
    )
    parser.add_argument("checkpoint", type=Path, help="a last.pt")
    parser.add_argument("--root", type=Path, help="VOC devkit with masks; default: Creatures")
    parser.add_argument("--split", default=None, help="split to score (default: train, with --final val)")
    parser.add_argument("--classes", help="foreground classes of the means, comma separated (default: all)")
    parser.add_argument(
        "--final", action="store_true", help=f"no tags: classes from the classifier at probability {TAG_THRESHOLD}"
    )
    parser.add_argument("--format", choices=("text", "json", "markdown"), default="text", help="of the table")
    parser.add_argument("--out", type=Path, help="folder for table.json, table.md, command, config and versions")
    _add_scales(parser)
    _add_common(parser)
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    checkpoint = load_checkpoint(options.checkpoint)
    split = options.split or ("val" if options.final else "train")
    dataset = VocDataset(options.root or ensure_creatures(), split, masks=True)
    if dataset.classes != checkpoint.classes:
        raise UserError(
            f"{dataset.devkit}: expected the checkpoint's classes {', '.join(checkpoint.classes)}, "
            f"got {', '.join(dataset.classes)}"
        )
    classes = _parse_classes(options.classes, dataset.classes)
    network = _on_device(load_network(options.checkpoint), options)
    seed, progress = checkpoint.config.seed, not options.quiet
    if options.final:
        result = score_segmentation(network, dataset, scales=options.scales, classes=classes, progress=progress)
        method = f"{method_name(checkpoint.config.method, checkpoint.config.mixing)} segmentation on {split}"
        rows = [Row.from_scores(method, result, threshold=None, oracle=False, seed=seed)]
    else:
        decode = checkpoint.config.method not in WITHOUT_DECODER
        scores = score_seeds(
            network,
            dataset,
            scales=options.scales,
            decode=decode,
            scg_threshold=checkpoint.config.scg_threshold,
            pamr_stride=checkpoint.config.pamr_stride,
            progress=progress,
        )
        rows = scores.rows(seed=seed, classes=classes)
    show = {"text": tables.text, "json": tables.to_json, "markdown": tables.markdown}[options.format]
    print(show(rows))
    if options.out is not None:
        # Without the paths of this machine: the checkpoint by its name, the data set not at all.
        words = ["rsepm-edu", "evaluate", options.checkpoint.name, "--split", split]
        words += ["--scales", ",".join(map(str, options.scales))]
        words += ["--classes", ",".join(classes)] if classes else []
        words += ["--final"] if options.final else []
        tables.write_results(options.out, rows, command=shlex.join(words), config=asdict(checkpoint.config), log=None)


def _parse_classes(text: str | None, known: tuple[str, ...]) -> tuple[str, ...] | None:
    if text is None:
        return None
    classes = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise UserError(f"--classes: expected names among {', '.join(known)}, got {', '.join(unknown)}")
    return classes


# --- segment ---------------------------------------------------------------------------------------------------------


def _add_segment(parser: argparse.ArgumentParser) -> None:
    parser.description = "Writes NAME.png (VOC palette mask) and NAME_overlay.png for pictures of any size."
    parser.add_argument("checkpoint", type=Path, help="a last.pt")
    parser.add_argument("pictures", type=Path, nargs="+", help="JPEG or PNG files, or folders of them")
    parser.add_argument("--out", type=Path, required=True, help="folder for masks and overlays")
    _add_scales(parser)
    _add_common(parser)
    parser.set_defaults(run=_segment)


def _segment(options: argparse.Namespace) -> None:
    network = load_network(options.checkpoint)
    paths: list[Path] = []
    for path in options.pictures:
        found = (
            sorted(p for p in path.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
            if path.is_dir()
            else [path]
        )
        if not found:
            raise UserError(f"{path}: expected a folder with JPEG or PNG files, got none")
        paths += found
    names = [path.stem for path in paths]
    twice = next((path for path in paths if names.count(path.stem) > 1), None)
    if twice is not None:
        raise UserError(f"{twice}: expected pictures of different names, got {twice.stem} more than once")
    _segment_all(network, paths, options.out, options)
    print(options.out)


def _segment_all(network: SingleStageNetwork, paths: Sequence[Path], out: Path, options: argparse.Namespace) -> None:
    network = _on_device(network, options)
    device = next(network.parameters()).device
    scales = getattr(options, "scales", SCALES)
    for path in paths:
        image = read_image(path)
        maps = multi_scale_maps(network, image[None].to(device), scales=scales)
        labels = predict_labels(maps)[0].cpu()
        write_mask(out / f"{path.stem}.png", labels.to(torch.uint8))
        with atomic_path(out / f"{path.stem}_overlay.png") as temporary:
            Image.fromarray(overlay(image, labels)).save(temporary)


# --- shared ----------------------------------------------------------------------------------------------------------


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1 … (default: the GPU if there is one)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _add_scales(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scales",
        type=_parse_scales,
        default=SCALES,
        help="sizes at which a picture is seen, each with its mirror image (default: 1.0,0.5,1.5,2.0)",
    )


def _parse_scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or min(scales) <= 0:
        raise argparse.ArgumentTypeError(f"expected positive numbers like 1.0,0.5, got {text!r}")
    return scales


def _on_device(network: SingleStageNetwork, options: argparse.Namespace) -> SingleStageNetwork:
    return network.to(resolve_device(options.device)).to(memory_format=torch.channels_last)


if __name__ == "__main__":
    raise SystemExit(main())
