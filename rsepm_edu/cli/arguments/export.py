"""The options of rsepm-edu export."""

import argparse
from pathlib import Path


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Writes the averaged network of a checkpoint as ONNX, for any number and size of images. Input: images "
        "B×3×H×W, RGB in [0, 1], normalised as (image - mean) / std. Outputs of a network of train: tag_logits B×K, "
        "cam B×K×h×w (raw scores) and, if a decoder was trained, seg_logits B×(K+1)×h×w, background first. Output of a "
        "DeepLab of multistage: seg_logits. The file's metadata hold the class names, mean and std."
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder with a last.pt, or a checkpoint file")
    parser.add_argument("--onnx", metavar="FILE", type=Path, required=True, help="the file to write")
