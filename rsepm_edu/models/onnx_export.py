"""Networks as ONNX files, which other programs than torch can run."""

import importlib
import json
import os
import warnings

import torch
from torch import Tensor, nn

from rsepm_edu.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_path
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.models.segmenters import Segmenter

OPSET = 17
"""Of 2022: newer ones add nothing that these networks need, and older programs read it."""


class _Maps(nn.Module):
    """A network whose outputs are the tensors of the file, in its order."""

    def __init__(self, network: SingleStageNetwork | Segmenter) -> None:
        super().__init__()
        self.network = network
        decoder = isinstance(network, SingleStageNetwork) and "decoder" in network.learnt
        self.names: tuple[str, ...] = ("tag_logits", "cam", "seg_logits") if decoder else ("tag_logits", "cam")
        if isinstance(network, Segmenter):
            self.names = ("seg_logits",)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if isinstance(self.network, Segmenter):
            return (self.network(images),)
        outputs = self.network(images, decode="seg_logits" in self.names)
        return tuple(getattr(outputs, name) for name in self.names)


def expect_onnx() -> None:
    """Check that what writes ONNX files is installed.

    Raises:
        UserError: it is not.
    """
    try:
        importlib.import_module("onnx")
    except ImportError as error:
        raise UserError("onnx: expected it to be installed, got no such package; pip install onnx") from error


def export_onnx(network: SingleStageNetwork | Segmenter, path: str | os.PathLike[str]) -> None:
    """Write a network for any number and size of pictures, whole or not at all.

    Its input is ``images`` B×3×H×W float32, normalised (``data.transforms.normalise``); its outputs are those of
    ``SingleStageNetwork`` (``tag_logits``, ``cam``, and ``seg_logits`` where the decoder was trained) or of
    ``Segmenter`` (``seg_logits``). Metadata: ``classes``, ``mean`` and ``std`` as JSON; labels begin with the
    background, which ``classes`` leaves out.

    Args:
        network: in evaluation mode, on the CPU.
        path: of the file.

    Raises:
        UserError: onnx is not installed, or the network has a part that ONNX lacks.
    """
    expect_onnx()
    import onnx

    maps = _Maps(network).eval()
    sizes = {
        name: {0: "batch"} if name == "tag_logits" else {0: "batch", 2: f"{name}_height", 3: f"{name}_width"}
        for name in maps.names
    }
    example = torch.zeros(2, 3, 128, 96)
    with atomic_path(path) as temporary:
        try:
            with warnings.catch_warnings():
                # The exporter that traces is the one that torch 2.6 and later all have, and that needs onnx alone. What
                # it says of comparisons in Python is of our checks of shapes, which decide nothing.
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    maps,
                    (example,),
                    str(temporary),
                    dynamo=False,
                    opset_version=OPSET,
                    input_names=["images"],
                    output_names=list(maps.names),
                    dynamic_axes={"images": {0: "batch", 2: "height", 3: "width"}, **sizes},
                )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path}: expected a network that ONNX can hold, got: {reason}") from error
        model = onnx.load(str(temporary))
        facts = {"classes": list(network.classes), "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
        onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
        onnx.checker.check_model(model)
        onnx.save(model, str(temporary))
