"""rsepm-edu segment: masks and overlays for any pictures."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rsepm_edu.cli.arguments.segment import COLOUR, RUN
from rsepm_edu.cli.options import expect_folder, on_device, shows_bars
from rsepm_edu.cli.pictures import Job, find_pictures, plan, read_tags
from rsepm_edu.data.palette import write_mask
from rsepm_edu.data.voc import read_image
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.choosing import spread
from rsepm_edu.evaluation.inference import usual_scales
from rsepm_edu.evaluation.segmenting import CHOOSE, LONGEST, Recipe, best_recipe, score_recipes, segment_picture
from rsepm_edu.files import atomic_path, atomic_write_text, digest, remove_leftovers
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.models.segmenters import Segmenter
from rsepm_edu.multistage.segmentation import is_segmenter, read_segmenter
from rsepm_edu.training.checkpoint import load_checkpoint, load_network
from rsepm_edu.training.map_scores import FILE, read_map_scores
from rsepm_edu.viz.named_overlay import named_overlay

RECORD = "segment.json"
"""Beside the masks: what they were made with, so that a folder never holds masks of two kinds."""


def run(options: argparse.Namespace) -> int:
    """Write the masks; returns 1 where some pictures could not be done."""
    pictures = find_pictures(options.pictures)
    jobs = plan(pictures, options.out, [options.checkpoint, *([options.tags] if options.tags else [])])
    expect_folder("--out", options.out)
    network, stride, backbone = _load(options.checkpoint)
    options.scales = options.scales or usual_scales(backbone)
    maps, pamrs = _candidates(options, network)
    tags: Mapping[Path, Tensor] = {}
    if options.tags is not None:
        tags = read_tags(options.tags, pictures, network.classes)
    network = on_device(network, options.device)
    asked = _asked(options)
    recorded = _recorded(options, asked)
    remove_leftovers(options.out)
    settings: dict[str, Any] = {"scales": options.scales, "longest": options.longest, "pamr_stride": stride}
    if recorded is None:
        recipe, told = _recipe(options, network, pictures, tags, maps, pamrs, settings)
        record = {"asked": asked, "recipe": asdict(recipe), "told": told}
        atomic_write_text(options.out / RECORD, json.dumps(record, indent=2) + "\n")
    else:
        recipe, told = recorded
    print(told, flush=True)
    made_since = (options.out / RECORD).stat().st_mtime  # older files were made with what an earlier record said
    todo = [job for job in jobs if options.again or not job.done(made_since)]
    if len(todo) < len(jobs):
        print(f"{len(jobs) - len(todo)} of {len(jobs)} images are done already (--again repeats them)", flush=True)
    failed = segment_all(network, todo, recipe, tags, progress=shows_bars(options), **settings)
    if failed and len(jobs) == 1:
        raise failed[0]
    for error in failed:
        print(f"rsepm-edu segment: {error}", file=sys.stderr)
    if failed:
        print(f"rsepm-edu segment: {len(failed)} of {len(jobs)} images failed", file=sys.stderr)
    print(options.out)
    return 1 if failed else 0


def _load(path: Path) -> tuple[SingleStageNetwork | Segmenter, int, str]:
    """The network, pixels per position of its PAMR, and the name of its backbone."""
    if is_segmenter(path):
        segmenter, settings = read_segmenter(path)
        return segmenter, 1, settings.backbone
    config = load_checkpoint(path).config
    return load_network(path), config.pamr_stride, config.backbone


def _candidates(
    options: argparse.Namespace, network: SingleStageNetwork | Segmenter
) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """The maps among which to choose, and whether with PAMR, by what is asked for and what the network has learnt."""
    if isinstance(network, Segmenter):
        if options.map not in (None, "argmax") or options.pamr or options.threshold != RUN:
            raise UserError(
                f"--map, --pamr, --threshold: expected none for the segmenter {options.checkpoint}, got some"
            )
        return ("argmax",), (False,)
    known = ("cam", "decoder", "argmax") if "decoder" in network.learnt else ("cam",)
    if options.map is not None and options.map not in known:
        raise UserError(
            f"--map: expected one that {options.checkpoint} was trained for ({', '.join(known)}), got {options.map}"
        )
    if not isinstance(options.threshold, str) and options.map not in ("cam", "decoder"):
        raise UserError(f"--threshold: expected with --map cam or --map decoder, got {options.threshold} alone")
    if options.map == "argmax" and options.pamr:
        raise UserError("--pamr: expected with --map cam or --map decoder, got --map argmax")
    return (options.map,) if options.map else known, (False, True) if options.pamr is None else (options.pamr,)


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """What changes the masks: the options, and digests of the files they name."""
    names = ("map", "pamr", "crf", "threshold", "longest")
    asked = {name: getattr(options, name) for name in names} | {"scales": list(options.scales)}
    for name in ("checkpoint", "tags"):
        path = getattr(options, name)
        asked[name] = None
        if path is not None:
            asked[name] = digest(path)
    return asked


def _recorded(options: argparse.Namespace, asked: dict[str, Any]) -> tuple[Recipe, str] | None:
    """What the masks in OUT were made with; None where there are none, or where all are to be done again.

    Raises:
        UserError: they were made with other settings, or nothing tells with which.
    """
    path = options.out / RECORD
    if options.again or not path.is_file():
        return None
    try:
        record = json.loads(path.read_text("utf-8"))
        before, recipe, told = record["asked"], Recipe(**record["recipe"]), str(record["told"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: expected the record of an earlier segment, got: {error}") from error
    differs = next((name for name in asked if before.get(name) != asked[name]), None)
    if differs is not None:
        raise UserError(
            f"{path}: expected {differs} = {before.get(differs)!r} as for the masks there, got {asked[differs]!r} "
            f"(--again replaces all, another --out keeps both)"
        )
    return recipe, told


def _recipe(
    options: argparse.Namespace,
    network: SingleStageNetwork | Segmenter,
    pictures: Sequence[Path],
    tags: Mapping[Path, Tensor],
    maps: tuple[str, ...],
    pamrs: tuple[bool, ...],
    settings: Mapping[str, Any],
) -> tuple[Recipe, str]:
    """What will be done with the maps, and the line that says so."""
    if maps == ("argmax",):
        recipe = Recipe("argmax", crf=options.crf)
        return recipe, str(recipe)
    if not isinstance(options.threshold, str):
        recipe = Recipe(maps[0], bool(options.pamr), options.crf, options.threshold)
        return recipe, str(recipe)
    assert not isinstance(network, Segmenter)  # it has argmax alone
    stored = None if options.threshold == COLOUR else read_map_scores(options.checkpoint)
    if stored is not None:
        known = [scored for scored in stored.scores if scored[0].map in maps and scored[0].pamr in pamrs]
        recipe = best_recipe(known, crf=options.crf)
        seen = f"{stored.seen} of the run's {stored.pictures} training images"
        return recipe, f"{recipe}, chosen by colour on {seen} ({FILE}), without masks"
    looked_at = [pictures[index] for index in spread(len(pictures), CHOOSE)]

    broken = []

    def readable() -> Iterator[tuple[Tensor, Tensor | None]]:
        for path in tqdm(looked_at, desc="choosing", unit="image", disable=not shows_bars(options), leave=False):
            try:
                image = read_image(path)
            except UserError as error:  # told at the end, with all that could not be done
                broken.append(error)
                continue
            yield image, tags.get(path)

    with memory_advice("images"):
        scored = score_recipes(network, readable(), maps=maps, pamrs=pamrs, **settings)
    if len(broken) == len(looked_at):
        raise broken[0]
    recipe, count = best_recipe(scored, crf=options.crf), len(looked_at) - len(broken)
    why = "" if options.threshold == COLOUR else " (there are no stored scores for this checkpoint)"
    return recipe, f"{recipe}, chosen by colour on {count} of these {len(pictures)} images{why}, without masks"


def segment_all(
    network: SingleStageNetwork | Segmenter,
    jobs: Sequence[Job],
    recipe: Recipe,
    tags: Mapping[Path, Tensor] | None = None,
    *,
    progress: bool,
    longest: int = LONGEST,
    **settings: Any,
) -> list[UserError]:
    """Write mask and overlay of each picture.

    Args:
        network: on the device to use.
        jobs: pictures and files.
        recipe, longest, settings: see ``segment_picture``.
        tags: by picture; of those that are missing the classifier decides.
        progress: show a bar.

    Returns:
        What kept pictures from being done, one for each.

    Raises:
        UserError: nothing can be written any more, on a full disk say.
    """
    failed = []
    shown = 0
    for number, job in enumerate(tqdm(jobs, desc="segmenting", unit="image", disable=not progress, leave=False)):
        try:
            image = read_image(job.picture)
            with memory_advice(str(job.picture)):
                labels = segment_picture(
                    network, image, recipe, (tags or {}).get(job.picture), longest=longest, **settings
                )
        except UserError as error:
            failed.append(error)
            continue
        if max(labels.shape) > longest:
            shown += 1
            if shown == 1:
                height, width = labels.shape
                told = f"{job.picture}: {width}×{height} pixels, resized to a longer side of {longest} (--longest)"
                tqdm.write(f"{told}; so are all larger ones", file=sys.stderr)
            image, drawn = _shrunk(image, labels, longest)
        else:
            drawn = labels
        try:
            write_mask(job.mask, labels)
            with atomic_path(job.overlay) as temporary:
                named_overlay(image, drawn, network.classes).save(temporary)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                f"{job.mask}: expected to write a mask, got: {reason}; "
                f"{number - len(failed)} of {len(jobs)} images are done, the same command resumes from there"
            ) from error
    return failed


def _shrunk(image: Tensor, labels: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Picture and labels for an overlay: no side longer than that."""
    step = -(-max(labels.shape) // longest)
    return image[:, ::step, ::step], labels[::step, ::step]


@contextmanager
def memory_advice(name: str) -> Iterator[None]:
    """Turn running out of memory into one line that says which option to change.

    Raises:
        UserError: the block ran out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # of a GPU torch.OutOfMemoryError, of the CPU a plain RuntimeError
        text = str(error)
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in text:
            raise
        raise UserError(
            f"{name}: expected to fit into memory, got out of memory; try --longest 512, or --scales 1.0"
        ) from error
