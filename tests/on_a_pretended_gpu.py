"""Whole runs on a pretended GPU: nothing may be left on the wrong side (see pretend_gpu.py)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from rsepm_edu.data.voc import VocDataset
from rsepm_edu.evaluation.choosing import CRITERIA, choose_thresholds
from rsepm_edu.evaluation.inference import segment
from rsepm_edu.evaluation.scoring import score_seeds, segmentation_confusion
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.methods.dense_crf import dense_crf, with_background
from rsepm_edu.multistage.config import MultistageConfig, StageConfig
from rsepm_edu.multistage.run import Multistage, run_multistage
from rsepm_edu.multistage.segmentation import SegmentationConfig
from rsepm_edu.multistage.walk import WalkConfig
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.loop import Trainer, train
from rsepm_edu.training.mixings import Mixing
from rsepm_edu.training.phases import Phase
from tests.pretend_gpu import GPU, WAITS, PretendGpu, works

pytestmark = [
    pytest.mark.skipif(not works(), reason="this torch cannot pretend a GPU"),
    pytest.mark.filterwarnings("ignore"),  # torch misses the driver
]

PHASES = [Phase(), Phase(puzzle=True), Phase(refine=True)]
PHASES += [Phase(refine=True, mixing=mixing) for mixing in get_args(Mixing)]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A pretended GPU; nothing is learnt on it."""
    monkeypatch.setattr(torch.Tensor, "backward", lambda self: None)
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)
    with PretendGpu():
        yield GPU


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    """A step of each phase."""
    return TrainConfig(
        split="train", backbone="creatures", weights="none", separable=True, epochs=3, rs_start=1, mix_start=2,
        learning_rate=0.05, head_factor=1.0, pamr_stride=2, size=32, jitter=0.1, workers=0, batch_size=4,
        accumulate=2, decoder_channels=16, decoder_rates=(1, 2), panel_every=1, precision="fp32",
    )  # fmt: skip


def test_it_tells_the_sides_apart(gpu: torch.device) -> None:
    there, here = torch.ones(3, device=gpu), torch.ones(3)
    with pytest.raises(AssertionError, match=r"add.Tensor: tensors on the GPU, and on the CPU one of shape \(3,\)"):
        there + here
    assert (there + here.to(gpu)).device == gpu
    assert there.cpu().device == torch.device("cpu")


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
def test_a_step_computes_there_what_it_computes_here(config: TrainConfig, phase: Phase, gpu: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    mixing = replace(config, mixing=phase.mixing)
    losses = [
        Trainer(mixing, ("a", "b", "c"), device).step(images, tags, phase, step=5, alpha=1.0)
        for device in (torch.device("cpu"), gpu)
    ]
    assert losses[0] == losses[1]


def test_how_often_a_step_makes_the_host_wait(config: TrainConfig, gpu: torch.device) -> None:
    """Of a step with all on: PAMR twice (are the numbers finite?), EdgePredict thrice (its maps, how many regions and
    which labels there are), the losses. A real one asks for the gradient's length too.
    """
    trainer = Trainer(replace(config, accumulate=1), ("a", "b", "c"), gpu)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    trainer.step(images, torch.ones(4, 3), PHASES[-1], step=0)
    del WAITS[:]
    trainer.step(images, torch.ones(4, 3), Phase(refine=True, mixing="epm"), step=1)
    assert len(WAITS) == 6, WAITS


def test_a_run_is_trained_resumed_scored_and_used(
    config: TrainConfig, creatures: Path, tmp_path: Path, gpu: torch.device
) -> None:
    train(config, creatures, tmp_path / "run", device=gpu, progress=False)
    network = train(config, creatures, tmp_path / "run", device=gpu, progress=False, resume=True)
    assert network.classifier.weight.device == gpu
    dataset = VocDataset(creatures, "val", masks=True)
    dataset.names = dataset.names[:2]
    options = SeedOptions(scales=(1.0,), pamr_stride=2)
    score_seeds(network, dataset, options, progress=False)
    segmentation_confusion(network, dataset, scales=(1.0,), progress=False)
    # Not by the classifier: torch does not split such a tensor in inference mode.
    criteria = tuple(CRITERIA.keys() - {"classifier"})
    choose_thresholds(network, dataset, options, criteria=criteria, progress=False)


def test_all_stages_of_a_multi_stage_run(
    config: TrainConfig, creatures: Path, tmp_path: Path, gpu: torch.device
) -> None:
    train(
        replace(config, method="cam", mixing="none", epochs=1), creatures, tmp_path / "run", device=gpu, progress=False
    )
    common: Any = {"backbone": "creatures", "weights": "none", "batch_size": 4, "size": 32, "workers": 0, "epochs": 1}
    settings = MultistageConfig(
        StageConfig(split="train", seed_map="cam", scales=(1.0,), walk="boundary", walk_steps=4, final_scales=(1.0,)),
        WalkConfig(precision="fp32", **common),
        SegmentationConfig(channels=16, rates=(1, 2), separable=True, precision="fp32", **common),
    )
    run = Multistage(tmp_path / "run/last.pt", creatures, tmp_path / "stages", settings, device=gpu, progress=False)
    assert run_multistage(run)


def test_pictures_of_ones_own(config: TrainConfig, gpu: torch.device) -> None:
    network = Trainer(config, ("a", "b"), gpu).network
    images = torch.rand(1, 3, 40, 50, device=gpu)
    labels = segment(network, images, scales=(1.0, 0.5))
    assert labels.device == gpu
    probabilities = with_background(torch.rand(1, 2, 40, 50, device=gpu))
    assert dense_crf(images * 255, probabilities, iterations=1).device == gpu
