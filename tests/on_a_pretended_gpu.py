"""Whole runs on a pretended GPU: nothing may be left on the wrong side (see pretend_gpu.py)."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from rsepm_edu.data.transforms import change_colours
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.device import sent
from rsepm_edu.evaluation.choosing import CRITERIA, choose_thresholds
from rsepm_edu.evaluation.inference import segment
from rsepm_edu.evaluation.scoring import score_seeds, segmentation_confusion
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.methods import edgepredictmix
from rsepm_edu.methods.dense_crf import dense_crf, with_background
from rsepm_edu.methods.edgepredictmix import majority_labels
from rsepm_edu.methods.shapes import expect_range
from rsepm_edu.multistage.config import MultistageConfig, StageConfig
from rsepm_edu.multistage.run import Multistage, run_multistage
from rsepm_edu.multistage.segmentation import SegmentationConfig
from rsepm_edu.multistage.walk import WalkConfig
from rsepm_edu.training.config import Optimizer, TrainConfig
from rsepm_edu.training.loop import Trainer, train
from rsepm_edu.training.mixings import Mixing
from rsepm_edu.training.phases import Phase
from tests.pretend_gpu import GPU, WAITS, OnGpu, PretendGpu, works

pytestmark = [
    pytest.mark.skipif(not works(), reason="this torch cannot pretend a GPU"),
    pytest.mark.filterwarnings("ignore"),  # torch misses the driver
]

PHASES = [Phase(), Phase(puzzle=True), *(Phase(refine=True, mixing=mixing) for mixing in get_args(Mixing))]
TAGS = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 1], [1, 1, 0]])


def backward(loss: Tensor) -> None:
    """In the place of a backward pass: gradients of zeros for all weights that the loss comes from."""
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [earlier for earlier, _ in node.next_functions]
        if hasattr(node, "variable"):
            node.variable.grad = torch.zeros_like(node.variable)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A pretended GPU; nothing is learnt on it."""
    monkeypatch.setattr(torch.Tensor, "backward", backward)
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
    mixing = replace(config, mixing=phase.mixing)
    losses = [
        Trainer(mixing, ("a", "b", "c"), device).step(pictures(), TAGS, phase, step=5, alpha=1.0)
        for device in (torch.device("cpu"), gpu)
    ]
    assert losses[0] == losses[1]


def pictures() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)


# where the host waits for the GPU


def expect_waits(most: int, work: Callable[[], object]) -> None:
    """Expect that some work makes the host wait so often at most; the lines that do are told."""
    del WAITS[:]
    work()
    assert len(WAITS) <= most, f"{len(WAITS)} waits, expected at most {most}:\n" + "\n".join(WAITS)


def test_waits_are_told_by_their_lines(gpu: torch.device) -> None:
    there = torch.tensor([0.5, 2.0], device=gpu)
    for wait in (
        lambda: float(there.max()),
        lambda: there.tolist(),
        lambda: there.cpu(),
        lambda: there[there > 1],
        lambda: (there > 1).nonzero(),
        lambda: there.masked_select(there > 1),
        lambda: there.unique(),
        lambda: torch.tensor([1.0], device=gpu),
        lambda: torch.zeros(2).to(gpu),
        lambda: bool((there > 1).any()),
        lambda: there.repeat_interleave(torch.ones(2, dtype=torch.int64).to(gpu, non_blocking=True)),
    ):
        with pytest.raises(AssertionError, match=r"waits, expected at most 0:\s+no line of the package: "):
            expect_waits(0, wait)
    with pytest.raises(AssertionError, match=r"\srsepm_edu/methods/shapes.py:\d+: aten._local_scalar_dense.default"):
        expect_waits(0, lambda: expect_range("maps", there, 0, 3))
    expect_waits(0, lambda: (sent(torch.zeros(2), gpu) + there)[torch.tensor([1, 0])].where(there > 1, 0))


@pytest.fixture
def with_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """EdgePredict's regions as from the kernels of a GPU, which cannot be pretended."""

    def regions(planes: OnGpu, **levels: int) -> OnGpu:
        return OnGpu(edgepredictmix.regions_by_opencv(planes.kept, **levels))

    monkeypatch.setattr(edgepredictmix, "kernels_agree", lambda device: True)
    monkeypatch.setattr(edgepredictmix, "regions_between_edges", regions)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
@pytest.mark.usefixtures("with_kernels")
def test_a_step_makes_the_host_wait_once(config: TrainConfig, phase: Phase, parts: int, gpu: torch.device) -> None:
    """For its losses and the length of its gradient together, at the end."""
    trainer = Trainer(replace(config, accumulate=parts, mixing=phase.mixing), ("a", "b", "c"), gpu)
    expect_waits(1, lambda: trainer.step(pictures(), TAGS, phase, step=0, alpha=1.0))
    assert all(not weight.requires_grad or weight.grad is not None for weight in trainer.network.backbone.parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_once_in_half_precision_too(
    config: TrainConfig, optimizer: Optimizer, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    trainer = Trainer(replace(config, optimizer=optimizer, accumulate=1), ("a", "b", "c"), gpu)
    trainer.scaler = torch.amp.GradScaler("cuda")  # as of float16
    assert trainer.scaler.is_enabled()
    expect_waits(1, lambda: trainer.step(pictures(), TAGS, Phase(), step=0))


def test_without_its_kernels_edge_predict_waits_for_the_maps_alone(config: TrainConfig, gpu: torch.device) -> None:
    phase = Phase(refine=True, mixing="epm")
    trainer = Trainer(replace(config, accumulate=1), ("a", "b", "c"), gpu)
    expect_waits(2, lambda: trainer.step(pictures(), TAGS, phase, step=0))


def test_colours_are_changed_without_waiting(gpu: torch.device) -> None:
    images, factors = pictures(), torch.tensor([[0.9, 1.1, 1.2]]).expand(4, 3)
    wanted, there = change_colours(images, factors), images.to(gpu)
    expect_waits(0, lambda: change_colours(there, factors))
    assert torch.equal(change_colours(there, factors).cpu(), wanted)


def test_as_many_regions_as_there_can_be_vote(gpu: torch.device) -> None:
    """Every second pixel is one: more do not go without touching."""
    for size in ((3, 5), (4, 4), (1, 1)):
        row, column = torch.arange(size[0])[:, None], torch.arange(size[1])
        regions = ((row + column) % 2 == 0).flatten()
        regions = (regions.cumsum(0) * regions).view(1, *size).expand(2, *size)
        labels = torch.tensor([0, 2, 255])[(row * size[1] + column) % 3].expand(2, *size)
        votes = partial(majority_labels, regions.to(gpu), labels.to(gpu), classes=2)
        expect_waits(0, votes)
        assert torch.equal(votes().cpu(), majority_labels(regions, labels))


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
