"""Whatever the backbone, the whole method runs on it: networks of timm from three families, random weights."""

from dataclasses import replace

import pytest
import torch

from rsepm_edu.data.transforms import normalise
from rsepm_edu.errors import UserError
from rsepm_edu.models.affinity import AffinityNetwork, BoundaryNetwork
from rsepm_edu.models.backbones import build_backbone
from rsepm_edu.models.segmenters import build_segmenter
from rsepm_edu.multistage.walk import WalkConfig
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.loop import Trainer
from rsepm_edu.training.phases import Phase
from rsepm_edu.training.targets import Batch, refine

pytest.importorskip("timm")

BACKBONES = ["timm:resnest14d", "mit_b0", "timm:efficientnet_b0"]
CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return images, torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


@pytest.mark.parametrize("name", BACKBONES)
def test_a_step_of_the_full_method_trains_what_is_not_frozen(
    name: str, tiny: TrainConfig, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    config = replace(tiny, backbone=name, size=64, freeze_stages=1, batch_size=2)
    trainer = Trainer(config, CLASSES, torch.device("cpu"))
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    frozen = {f"backbone.network.{name}" for name, _ in trainer.network.backbone.stages[0].named_parameters()}
    losses = trainer.step(*batch, Phase(refine=True, mixing="epm"), step=0)
    assert set(losses) == {"tags", "cam", "decoder", "mix_cam", "mix_decoder"}
    after = trainer.network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in frozen)
    parts = ("backbone.", "classifier.", "decoder.")
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert all(any(name.startswith(part) for name in moved) for part in parts)
    late = {f"backbone.network.{name}" for name, _ in trainer.network.backbone.stages[3].named_parameters()}
    assert len(moved & late) > len(late) / 2


@pytest.mark.parametrize("name", BACKBONES)
def test_refinement_and_walks_take_its_stages(
    name: str, tiny: TrainConfig, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, tags = normalise(batch[0]), batch[1]
    config = replace(tiny, backbone=name, size=64)
    trainer = Trainer(config, CLASSES, torch.device("cpu"))
    with torch.no_grad():
        outputs = trainer.average.network(images)
        refined = refine(config, Batch(images, tags, torch.ones(2, 1, 64, 64)), outputs)
    assert outputs.cam.shape == (2, 3, 4, 4) and outputs.seg_logits is not None
    assert outputs.seg_logits.shape == (2, 4, 16, 16)
    assert refined.pseudo_mask.shape == (2, 32, 32) and refined.scg_map.shape == (2, 3, 4, 4)
    assert not refined.scg_map[0, 1].any() and bool(refined.scg_map.isfinite().all())
    backbone = build_backbone(name)
    for kind, stride in ((BoundaryNetwork, 4), (AffinityNetwork, 8)):
        network = kind(backbone)
        assert network.stride == stride
        assert network.walk(images, refined.scg_map, radius=3, steps=4).shape == (2, 3, 64, 64)
    assert build_segmenter("deeplabv2", name, CLASSES, rates=(1, 2))(images).shape == (2, 4, 4, 4)


def test_settings_know_its_names() -> None:
    assert TrainConfig(backbone="timm:resnest50d").backbone == WalkConfig(backbone="timm:resnest50d").backbone
    assert TrainConfig.from_dict({"backbone": "mit_b1"}).backbone == "mit_b1"
    for kind in (TrainConfig, WalkConfig):
        with pytest.raises(UserError, match="^backbone: expected the name of a network in timm .* got 'timm:resnest'"):
            kind(backbone="timm:resnest")
