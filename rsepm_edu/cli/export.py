"""rsepm-edu export: a checkpoint for programs without torch."""

import argparse
from pathlib import Path

from rsepm_edu.cli.options import expect_folder
from rsepm_edu.errors import UserError
from rsepm_edu.models.onnx_export import expect_onnx, export_onnx
from rsepm_edu.multistage.segmentation import is_segmenter, load_segmenter
from rsepm_edu.training.checkpoint import load_network
from rsepm_edu.training.keeping import LAST


def run(options: argparse.Namespace) -> None:
    """Write the file and print where it is."""
    out: Path = options.onnx
    if out.is_dir() or out.suffix != ".onnx":
        raise UserError(f"--onnx: expected a file that ends in .onnx, got {out}")
    expect_folder("--onnx", out.parent)
    expect_onnx()
    path = options.run / LAST if options.run.is_dir() else options.run
    export_onnx(load_segmenter(path) if is_segmenter(path) else load_network(path), out)
    print(out)
