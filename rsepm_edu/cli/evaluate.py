"""rsepm-edu evaluate: how good a checkpoint is, as a table."""

import argparse
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rsepm_edu.cli.options import (
    expect_classes,
    expect_folder,
    on_device,
    shows_bars,
)
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import per_class, tables
from rsepm_edu.evaluation.boundary import boundary_iou
from rsepm_edu.evaluation.choosing import DEFAULT_CRITERIA, choose_thresholds, thresholds_of
from rsepm_edu.evaluation.inference import usual_scales
from rsepm_edu.evaluation.label_maps import LabelMap, compare_label_maps, label_maps
from rsepm_edu.evaluation.metrics import BACKGROUND_NAME, scores
from rsepm_edu.evaluation.per_class import ClassTable, MapCounts, class_counts, seed_counts
from rsepm_edu.evaluation.scored_split import scored_split
from rsepm_edu.evaluation.scoring import (
    ARGMAX,
    DECODER_SEEDS,
    SEEDS,
    score_seeds,
    segmentation_confusion,
)
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.files import atomic_write_text
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.models.segmenters import Segmenter
from rsepm_edu.multistage.segmentation import SegmentationConfig, is_segmenter, read_segmenter
from rsepm_edu.processes import World, joined
from rsepm_edu.training.checkpoint import load_checkpoint
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.seed_options import seed_options_of
from rsepm_edu.viz.cases import save_cases


def run(options: argparse.Namespace) -> None:
    """Score the checkpoint; several processes share the pictures."""
    with joined(options.device) as world:
        with world.report_once():
            for option, folder in (("--out", options.out), ("--cases", options.cases)):
                if folder is not None:
                    expect_folder(option, folder)
            if options.out is not None and options.out.resolve() == options.checkpoint.resolve().parent:
                raise UserError(
                    f"--out: expected another folder than the checkpoint's, whose config.json would be overwritten, "
                    f"got {options.out}"
                )
            network, config, name = load_scored(options.checkpoint)
            if options.final and isinstance(network, SingleStageNetwork) and "decoder" not in network.learnt:
                raise UserError(
                    f"--final: expected a network whose decoder was trained, got {options.checkpoint}, trained as far "
                    f"as {name}; without --final its CAM is scored"
                )
        options.scales = options.scales or usual_scales(config.backbone)
        network = on_device(network, world.device)
        if options.final or isinstance(network, Segmenter) or isinstance(config, SegmentationConfig):
            _evaluate_final(options, world, network, config, name)
        else:
            _evaluate_seeds(options, world, network, config)


def load_scored(path: Path) -> tuple[SingleStageNetwork | Segmenter, TrainConfig | SegmentationConfig, str]:
    """Network, settings, and what tables call it: the segmenter's head, or the phase that the training had reached."""
    if is_segmenter(path):
        segmenter, config = read_segmenter(path)
        return segmenter, config, config.head
    checkpoint = load_checkpoint(path)
    network = checkpoint.build_network()
    assert checkpoint.phase is not None  # else the network would not have been built
    return network, checkpoint.config, checkpoint.phase.name


def _evaluate_final(
    options: argparse.Namespace,
    world: World,
    network: SingleStageNetwork | Segmenter,
    config: TrainConfig | SegmentationConfig,
    name: str,
) -> None:
    """The segmentation, without tags."""
    split = options.split or "val"
    method = f"{name} segmentation on {split}"
    with world.report_once():
        dataset = _scored_split(options, split, network.classes)
        classes = _parse_classes(options.classes, dataset.classes)
        looked_at = _map_to_look_at(options, [method])
    progress = shows_bars(options)
    confusion = segmentation_confusion(network, dataset, scales=options.scales, world=world, progress=progress)
    result = scores(confusion, dataset.classes, classes=classes)
    rows = [Row.from_scores(method, result, threshold=None, oracle=False, seed=config.seed)]
    seen = SeedOptions(scales=options.scales)
    drawn = label_maps(network, dataset, seen, tags=False, world=world, progress=progress)
    counts = {method: MapCounts(None, confusion)}
    class_tables = _class_tables(options, world, dataset, counts, looked_at, classes, drawn)
    if world.is_main:
        _show(options, rows, class_tables, split, classes, config)


def _evaluate_seeds(
    options: argparse.Namespace, world: World, network: SingleStageNetwork, config: TrainConfig
) -> None:
    """Every map as a seed, tags given."""
    split = options.split or "train"
    maps, progress = seed_options_of(config, network.learnt, scales=options.scales), shows_bars(options)
    with world.report_once():
        dataset = _scored_split(options, split, network.classes)
        classes = _parse_classes(options.classes, dataset.classes)
        looked_at = _map_to_look_at(options, [*SEEDS, *([*DECODER_SEEDS, ARGMAX] if maps.decode else [])])
    chosen = choose_thresholds(network, dataset, maps, criteria=options.choose, world=world, progress=progress)
    seed_scores = score_seeds(network, dataset, maps, world=world, progress=progress)
    rows = seed_scores.rows(seed=config.seed, chosen=thresholds_of(chosen), classes=classes)
    counts = seed_counts(seed_scores, classes=classes)
    threshold = None if looked_at is None else counts[looked_at].threshold
    seed = None if looked_at is None or threshold is None else (looked_at, threshold)
    drawn = label_maps(network, dataset, maps, tags=True, seed=seed, world=world, progress=progress)
    class_tables = _class_tables(options, world, dataset, counts, looked_at, classes, drawn)
    if world.is_main:
        _show(options, rows, class_tables, split, classes, config)


def _scored_split(options: argparse.Namespace, split: str, classes: tuple[str, ...]) -> VocDataset:
    dataset = scored_split(options.root or ensure_creatures(), split)
    expect_classes(dataset, classes)
    return dataset


def _show(
    options: argparse.Namespace,
    rows: list[Row],
    class_tables: list[ClassTable],
    split: str,
    classes: tuple[str, ...] | None,
    config: TrainConfig | SegmentationConfig,
) -> None:
    """Print the tables and, where it is asked for, write them."""
    show = {"text": tables.text, "json": tables.to_json, "markdown": tables.markdown}[options.format]
    if class_tables and options.format == "json":
        both = {"rows": json.loads(tables.to_json(rows)), "classes": per_class.to_objects(class_tables)}
        print(json.dumps(both, indent=2, ensure_ascii=False))
    else:
        print(show(rows))
        if class_tables:
            print((per_class.text if options.format == "text" else per_class.markdown)(class_tables))
    if options.out is not None:
        # Without the paths of this machine: the checkpoint by its name, the data set not at all.
        words = ["rsepm-edu", "evaluate", options.checkpoint.name, "--split", split]
        words += ["--scales", ",".join(map(str, options.scales))]
        words += ["--classes", ",".join(classes)] if classes else []
        words += ["--choose", ",".join(options.choose)] if options.choose != DEFAULT_CRITERIA else []
        words += ["--final"] if options.final else []
        words += ["--per-class"] if options.per_class else []
        words += ["--boundary"] if options.boundary else []
        words += ["--map", options.map] if options.map and options.boundary else []
        settings = config.to_dict() | {"weights": Path(config.weights).name}
        tables.write_results(options.out, rows, command=shlex.join(words), config=settings, log=None)
        if class_tables:
            atomic_write_text(options.out / "per_class.json", per_class.to_json(class_tables))
            atomic_write_text(options.out / "per_class.md", per_class.markdown(class_tables))


def _map_to_look_at(options: argparse.Namespace, known: Sequence[str]) -> str | None:
    """The row of --boundary and --cases, checked before the pictures are gone through."""
    if not options.boundary and options.cases is None:
        if options.map is not None:
            raise UserError(f"--map: expected with --boundary or --cases, got {options.map!r} alone")
        return None
    if options.map is None:
        return ARGMAX if ARGMAX in known else known[0]
    if options.map not in known:
        raise UserError(f"--map: expected one of {', '.join(known)}, got {options.map!r}")
    return options.map


def _class_tables(
    options: argparse.Namespace,
    world: World,
    dataset: VocDataset,
    counts: Mapping[str, MapCounts],
    looked_at: str | None,
    classes: tuple[str, ...] | None,
    maps: Iterable[LabelMap],
) -> list[ClassTable]:
    """The tables that were asked for; ``maps``, a second pass over the pictures, only where they need it."""
    names = dataset.classes
    boundary = None
    if looked_at is not None:
        seen = compare_label_maps(maps, dataset, count=options.count, boundary=options.boundary, world=world)
        if seen.boundary is not None:
            boundary = boundary_iou(seen.boundary, [BACKGROUND_NAME, *names])
        if options.cases is not None and world.is_main:
            save_cases(options.cases, seen.extremes, dataset)
    return [
        ClassTable(method, class_counts(confusion, names, classes=classes), boundary if method == looked_at else None)
        for method, (_, confusion) in counts.items()
        if options.per_class or (boundary is not None and method == looked_at)
    ]


def _parse_classes(text: str | None, known: tuple[str, ...]) -> tuple[str, ...] | None:
    if text is None:
        return None
    classes = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise UserError(f"--classes: expected names among {', '.join(known)}, got {', '.join(unknown)}")
    return classes
