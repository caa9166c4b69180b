import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsepm_edu.course.networks import load_lesson_network
from rsepm_edu.data.palette import write_mask
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.models.segmenters import Segmenter, build_segmenter
from rsepm_edu.multistage import segmentation
from rsepm_edu.multistage.segmentation import (
    SEGMENTATION_PRESETS,
    SegmentationConfig,
    is_segmenter,
    load_segmenter,
    read_segmenter,
    segmentation_loss,
    train_segmenter,
)
from rsepm_edu.training.loop import NotFiniteError

VOID = 255
HEADS: Any = ("deeplabv2", "deeplabv3+")


@pytest.fixture(scope="module")
def tiny_segmentation() -> SegmentationConfig:
    """Three epochs of two steps."""
    return SegmentationConfig(
        backbone="creatures",
        weights="none",
        channels=16,
        rates=(1, 2),
        separable=True,
        epochs=3,
        learning_rate=0.01,
        head_factor=1.0,
        batch_size=4,
        size=32,
        scale=(0.5, 1.0),
        workers=0,
    )


@pytest.fixture(scope="module")
def oracle_labels(creatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ORACLE: labels from the masks, which only a test may use, to see whether anything is learnt from labels."""
    return shutil.copytree(creatures / "SegmentationClass", tmp_path_factory.mktemp("oracle") / "labels")


def run(config: SegmentationConfig, root: Path, labels: Path, out: Path, **settings: Any) -> Segmenter:
    return train_segmenter(config, root, "train", labels, out, device="cpu", progress=False, **settings)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def is_finite(network: nn.Module) -> bool:
    return all(bool(value.isfinite().all()) for value in network.state_dict().values() if value.is_floating_point())


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as info:
        call()
    assert "\n" not in str(info.value)
    return str(info.value)


# the loss


@pytest.mark.parametrize("head", HEADS)
def test_the_loss_is_the_mean_cross_entropy_of_labelled_pixels(head: Any) -> None:
    torch.manual_seed(0)
    network = build_segmenter(head, "creatures", ("a", "b"), channels=16, rates=(1, 2)).double().eval()
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 16, 24), dtype=torch.uint8)
    labels[:, :5] = VOID
    logits = F.interpolate(network(images).detach(), (16, 24), mode="bilinear", align_corners=False)
    costs = [
        -float(logits[b, :, y, x].log_softmax(0)[labels[b, y, x].item()])
        for b in range(2)
        for y in range(16)
        for x in range(24)
        if labels[b, y, x] != VOID
    ]
    loss = segmentation_loss(network, images, labels)
    assert float(loss.detach()) == pytest.approx(sum(costs) / len(costs), rel=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_a_batch_of_void_costs_nothing_and_moves_nothing(head: Any) -> None:
    network = build_segmenter(head, "creatures", ("a", "b"), channels=16, rates=(1, 2)).train()
    labels = torch.full((2, 16, 16), VOID, dtype=torch.uint8)
    loss = segmentation_loss(network, torch.randn(2, 3, 16, 16), labels)
    loss.backward()
    assert float(loss.detach()) == 0
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert gradients and not any(bool(gradient.any()) for gradient in gradients)


def test_half_precision_reaches_the_soft_max_as_float32() -> None:
    class Hot(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([60_000.0, -60_000.0], dtype=torch.float16)[None, :, None, None].expand(1, 2, 8, 8)

    labels = torch.ones(1, 8, 8, dtype=torch.uint8)
    loss = segmentation_loss(Hot(), torch.zeros(1, 3, 8, 8), labels)  # type: ignore[arg-type]
    assert loss.dtype == torch.float32 and float(loss) == 120_000


# training


def test_presets_are_settings_that_pass_the_checks() -> None:
    assert SEGMENTATION_PRESETS["voc-gpu"] == SegmentationConfig()
    assert SEGMENTATION_PRESETS.keys() == {"creatures-cpu", "voc-sample-cpu", "voc-gpu"}


@pytest.mark.parametrize("head", HEADS)
def test_a_run_leaves_settings_log_and_a_network_that_loads(
    head: Any, tiny_segmentation: SegmentationConfig, creatures: Path, oracle_labels: Path, tmp_path: Path
) -> None:
    config = replace(tiny_segmentation, head=head, epochs=1)
    network = run(config, creatures, oracle_labels, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "log.jsonl", "last.pt"}
    again = load_segmenter(tmp_path / "last.pt")
    assert same_weights(network, again) and not again.training
    assert again.classes == VocDataset(creatures, "train").classes
    assert is_segmenter(tmp_path / "last.pt") and read_segmenter(tmp_path / "last.pt")[1] == config
    assert not is_segmenter(tmp_path / "config.json") and not is_segmenter(tmp_path / "missing.pt")


def test_it_starts_from_a_backbone_whose_batch_norm_stays(
    tiny_segmentation: SegmentationConfig, creatures: Path, oracle_labels: Path, tmp_path: Path
) -> None:
    backbone = load_lesson_network().backbone
    config = replace(tiny_segmentation, epochs=1, freeze_stages=1)
    network = run(config, creatures, oracle_labels, tmp_path, backbone=backbone)
    before, after = backbone.state_dict(), network.backbone.state_dict()
    statistics = [name for name in before if "running" in name or "num_batches" in name]
    assert statistics and all(torch.equal(before[name], after[name]) for name in statistics)
    first = [name for name in before if name.startswith("stages.0.")]
    assert first and all(torch.equal(before[name], after[name]) for name in first)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved and all(name.startswith(("stages.1.", "stages.2.", "stages.3.")) for name in moved)
    assert all(parameter.requires_grad for parameter in backbone.parameters())  # the given one is left alone


def test_a_stopped_run_goes_on_as_if_it_never_was(
    tiny_segmentation: SegmentationConfig, creatures: Path, oracle_labels: Path, tmp_path: Path
) -> None:
    straight = run(tiny_segmentation, creatures, oracle_labels, tmp_path / "straight")
    calls = iter(range(100))

    def stop(*args: Any) -> Tensor:
        if torch.is_grad_enabled() and next(calls) == 3:
            raise KeyboardInterrupt
        return segmentation_loss(*args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(segmentation, "segmentation_loss", stop)
        run(tiny_segmentation, creatures, oracle_labels, tmp_path / "stopped")
    assert [row["epoch"] for row in rows(tmp_path / "stopped")] == [1]
    resumed = run(tiny_segmentation, creatures, oracle_labels, tmp_path / "stopped", resume=True)
    assert same_weights(resumed, straight)
    assert [row["loss"] for row in rows(tmp_path / "stopped")] == [row["loss"] for row in rows(tmp_path / "straight")]
    message = error_of(
        lambda: run(
            replace(tiny_segmentation, learning_rate=0.02), creatures, oracle_labels, tmp_path / "stopped", resume=True
        )
    )
    assert message.endswith("expected learning_rate = 0.01 as in the run to resume, got 0.02")


def test_resuming_for_other_classes_is_refused(
    tiny_segmentation: SegmentationConfig, creatures: Path, oracle_labels: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(creatures, tmp_path / "set")
    config = replace(tiny_segmentation, epochs=1)
    run(config, root, oracle_labels, tmp_path / "run")
    names = (root / "classes.txt").read_text().split()
    (root / "classes.txt").write_text("\n".join(names[::-1]) + "\n")
    message = error_of(lambda: run(config, root, oracle_labels, tmp_path / "run", resume=True))
    assert message.startswith(f"{tmp_path / 'run' / 'last.pt'}: expected the classes ['zebbo', ")


# no collapse


@pytest.mark.parametrize("head", HEADS)
def test_pictures_of_void_and_classes_that_never_occur_do_no_harm(
    head: Any, tiny_segmentation: SegmentationConfig, creatures: Path, tmp_path: Path
) -> None:
    """Half of the batches hold nothing but void, and of five classes one occurs, in one picture."""
    dataset = VocDataset(creatures, "train")
    for name in dataset.names:
        write_mask(tmp_path / "labels" / f"{name}.png", torch.full((64, 64), VOID, dtype=torch.uint8))
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[:, 32:] = 2
    write_mask(tmp_path / "labels" / f"{dataset.names[0]}.png", mask)
    network = run(replace(tiny_segmentation, head=head), creatures, tmp_path / "labels", tmp_path / "run")
    losses = [row["loss"] for row in rows(tmp_path / "run")]
    assert is_finite(network) and all(0 < loss < 10 for loss in losses)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("learning_rate", [10.0, 1e8, 1e30])
def test_a_learning_rate_far_too_large_ends_in_numbers_or_in_one_line(
    head: Any,
    learning_rate: float,
    tiny_segmentation: SegmentationConfig,
    creatures: Path,
    oracle_labels: Path,
    tmp_path: Path,
) -> None:
    """Never in a checkpoint of numbers that are none; also where the last step of all is the bad one."""
    for epochs, batch_size in ((2, 4), (1, 8)):
        config = replace(
            tiny_segmentation, head=head, learning_rate=learning_rate, epochs=epochs, batch_size=batch_size
        )
        out = tmp_path / str(epochs)
        try:
            network = run(config, creatures, oracle_labels, out)
        except NotFiniteError as error:
            assert re.fullmatch(r"training stopped: [^\n]+; (the last good state is .*|none was saved yet)", str(error))
        else:
            assert is_finite(network) and is_finite(load_segmenter(out / "last.pt"))
            assert bool(network(torch.randn(1, 3, 32, 32)).isfinite().all())
            assert learning_rate < 1e30
        if (out / "last.pt").is_file():
            assert is_finite(load_segmenter(out / "last.pt"))


def test_weights_that_the_last_step_spoils_are_not_saved(
    tiny_segmentation: SegmentationConfig, creatures: Path, oracle_labels: Path, tmp_path: Path
) -> None:
    """Every loss and every gradient of the run is finite; what the only step leaves is not."""
    config = replace(tiny_segmentation, epochs=1, batch_size=8, learning_rate=1e38, clip_norm=1e30)
    with pytest.raises(NotFiniteError, match=r"^training stopped: the weights .* after epoch 1; none was saved yet$"):
        run(config, creatures, oracle_labels, tmp_path)
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "unet"}, "head: expected one of .* got 'unet'"),
        ({"backbone": "vgg"}, "backbone: expected one of .* got 'vgg'"),
        ({"freeze_stages": 5}, "freeze_stages: expected 0 to 4, got 5"),
        ({"channels": 0}, "channels: expected at least 1, got 0"),
        ({"learning_rate": float("nan")}, r"learning_rate: expected a number up to 3.4e\+38, got nan"),
        ({"weight_decay": -1.0}, "weight_decay: expected at least 0, got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    assert re.fullmatch(message, error_of(lambda: SegmentationConfig(**changes)))


# does it learn?


def test_masks_are_learnt(
    tiny_segmentation: SegmentationConfig, creatures: Path, oracle_labels: Path, tmp_path: Path
) -> None:
    """ORACLE labels: what is asked is whether twenty steps on eight pictures do anything at all."""
    config = replace(
        tiny_segmentation, epochs=20, batch_size=8, optimizer="adamw", learning_rate=1e-2, size=48, scale=(0.8, 1.0)
    )
    run(config, creatures, oracle_labels, tmp_path, backbone=load_lesson_network().backbone)
    losses = [row["loss"] for row in rows(tmp_path)]
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
