"""What the maps of a batch are worked on by: the classes that are there, told on the host."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from rsepm_edu.models.network import Outputs
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.targets import Batch, decoder_maps, present_first, refine


def test_present_classes_come_first() -> None:
    tags = torch.tensor([[0.0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
    assert present_first(tags).tolist() == [[1, 3], [2, 0], [0, 1]]
    assert present_first(tags * 0).shape == (3, 0)


def test_targets_are_the_same_whether_classes_are_told_or_looked_for(tiny: TrainConfig) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, 32, 32, generator=generator)
    tags = torch.tensor([[0.0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
    inside = F.pad(torch.ones(3, 1, 28, 32), (0, 0, 4, 0))
    cam = torch.randn(3, 4, 8, 8, generator=generator)
    stages = tuple(torch.randn(3, 6, 8, 8, generator=generator) for _ in range(4))
    outputs = Outputs(cam.mean((2, 3)), cam, torch.randn(3, 5, 16, 16, generator=generator), stages)
    for stride in (1, 2):
        config = replace(tiny, pamr_stride=stride)
        looked_for, told = Batch(images, tags, inside), Batch(images, tags, inside, present_first(tags))
        for first, second in zip(refine(config, looked_for, outputs), refine(config, told, outputs), strict=True):
            assert torch.equal(first, second) and first.unique().numel() > 1
        maps = [decoder_maps(config, batch, outputs, pamr=True) for batch in (looked_for, told)]
        assert torch.equal(*maps) and maps[0].sum(1).sub(1).abs().max() < 1e-5
