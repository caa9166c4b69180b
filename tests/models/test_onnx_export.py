import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rsepm_edu.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from rsepm_edu.errors import UserError
from rsepm_edu.models.network import SingleStageNetwork, build_network
from rsepm_edu.models.onnx_export import export_onnx
from rsepm_edu.models.segmenters import Segmenter, build_segmenter

CLASSES = ("cat", "dög")
SHAPES = [(1, 64, 64), (3, 97, 70), (2, 33, 150)]
"""Other numbers and sizes than the export saw, no multiples of a stride among them."""


def lively(network: nn.Module) -> nn.Module:
    """In evaluation mode, its batch norms as after some training."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval()


def single_stage(backbone: str = "creatures") -> SingleStageNetwork:
    torch.manual_seed(0)
    network = build_network(backbone, CLASSES, decoder_channels=16, decoder_rates=(1, 2), separable=True)
    lively(network)
    return network


def ran(path: Path, images: Tensor) -> dict[str, np.ndarray]:
    """What onnxruntime makes of images, by the name of the output."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["images"]
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images.numpy()}), strict=True))


def expect_same(path: Path, expected: dict[str, Tensor], images: Tensor) -> None:
    found = ran(path, images)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values.numpy(), atol=1e-4 * float(values.abs().max()), rtol=0)


@pytest.mark.parametrize("backbone", ["creatures", "mobilenet_v2", "resnet18"])
def test_onnxruntime_gives_the_same_maps_at_any_size(backbone: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    network, path = single_stage(backbone), tmp_path / "network.onnx"
    export_onnx(network, path)
    for batch, height, width in SHAPES:
        images = torch.randn(batch, 3, height, width)
        with torch.no_grad():
            outputs = network(images)
        assert outputs.seg_logits is not None and outputs.cam.std() > 0 and outputs.seg_logits.std() > 0
        expected = {"tag_logits": outputs.tag_logits, "cam": outputs.cam, "seg_logits": outputs.seg_logits}
        expect_same(path, expected, images)


@pytest.mark.parametrize("head", ["deeplabv2", "deeplabv3+"])
def test_a_segmenter_too(head: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    torch.manual_seed(0)
    network = build_segmenter(head, "creatures", CLASSES, channels=16, rates=(1, 2))
    assert isinstance(lively(network), Segmenter)
    export_onnx(network, tmp_path / "segmenter.onnx")
    for batch, height, width in SHAPES:
        images = torch.randn(batch, 3, height, width)
        with torch.no_grad():
            expect_same(tmp_path / "segmenter.onnx", {"seg_logits": network(images)}, images)


def test_a_decoder_that_was_not_trained_is_left_out(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    network = single_stage()
    network.learnt = ("cam",)
    export_onnx(network, tmp_path / "network.onnx")
    assert list(ran(tmp_path / "network.onnx", torch.randn(1, 3, 64, 64))) == ["tag_logits", "cam"]


def test_the_file_says_what_goes_in_and_what_comes_out(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    export_onnx(single_stage(), tmp_path / "network.onnx")
    facts = {fact.key: json.loads(fact.value) for fact in onnx.load(tmp_path / "network.onnx").metadata_props}
    assert facts == {"classes": list(CLASSES), "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]


def test_the_network_stays_as_it_was(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    network = single_stage()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export_onnx(network, tmp_path / "network.onnx")
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_without_onnx_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"^onnx: expected it to be installed, got no such package; pip install onnx$"):
        export_onnx(single_stage(), tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())
