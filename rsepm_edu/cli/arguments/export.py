"""The options of rsepm-edu export."""

import argparse
from pathlib import Path


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Writes the averaged network of a checkpoint as ONNX, for any number and size of pictures. Input: images "
        "B×3×H×W, RGB in 0 … 1 minus mean, over std. Outputs of a network of train: tag_logits B×K, cam B×K×h×w (raw "
        "scores) and, where it was trained, seg_logits B×(K+1)×h×w, background first; of a segmenter seg_logits. Names "
        "of the classes, mean and std are in the file's metadata."
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder with a last.pt, or a checkpoint itself")
    parser.add_argument("--onnx", metavar="FILE", type=Path, required=True, help="the file to write")
