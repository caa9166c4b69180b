"""rsepm-edu segment: masks and overlays for any pictures."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from rsepm_edu.cli.options import add_common, add_scales, on_device
from rsepm_edu.data.palette import write_mask
from rsepm_edu.data.voc import read_image
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.inference import SCALES, segment
from rsepm_edu.files import atomic_path
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.models.segmenters import Segmenter
from rsepm_edu.multistage.segmentation import is_segmenter, load_segmenter
from rsepm_edu.training.checkpoint import load_network
from rsepm_edu.viz.panels import overlay


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = "Writes NAME.png (VOC palette mask) and NAME_overlay.png for pictures of any size."
    parser.add_argument("checkpoint", type=Path, help="a last.pt, of train or of multistage")
    parser.add_argument("pictures", type=Path, nargs="+", help="JPEG or PNG files, or folders of them")
    parser.add_argument("--out", type=Path, required=True, help="folder for masks and overlays")
    add_scales(parser)
    add_common(parser)
    parser.set_defaults(run=_segment)


def _segment(options: argparse.Namespace) -> None:
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
    load = load_segmenter if is_segmenter(options.checkpoint) else load_network
    segment_all(load(options.checkpoint), paths, options.out, options)
    print(options.out)


def segment_all(
    network: SingleStageNetwork | Segmenter, paths: Sequence[Path], out: Path, options: argparse.Namespace
) -> None:
    """Write mask and overlay of each picture into ``out``."""
    network = on_device(network, options.device)
    device = next(network.parameters()).device
    scales = getattr(options, "scales", SCALES)
    for path in paths:
        image = read_image(path)
        labels = segment(network, image[None].to(device), scales=scales)[0].cpu()
        write_mask(out / f"{path.stem}.png", labels.to(torch.uint8))
        with atomic_path(out / f"{path.stem}_overlay.png") as temporary:
            Image.fromarray(overlay(image, labels)).save(temporary)
