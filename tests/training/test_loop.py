import json
import math
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rsepm_edu.data import voc
from rsepm_edu.data.creatures import draw_picture
from rsepm_edu.data.transforms import change_colours, normalise
from rsepm_edu.errors import UserError
from rsepm_edu.methods.puzzle import merge, tile
from rsepm_edu.training import keeping, loop
from rsepm_edu.training.checkpoint import load_checkpoint, load_network
from rsepm_edu.training.config import TrainConfig, preset
from rsepm_edu.training.loop import NotFiniteError, Trainer, resolve_precision, train
from rsepm_edu.training.mixings import MIXINGS, Mixing
from rsepm_edu.training.optimizer import set_learning_rate
from rsepm_edu.training.phases import Phase, phase_of
from rsepm_edu.training.step import Term

CPU = torch.device("cpu")
CAM, RS, FULL = Phase(), Phase(refine=True), Phase(refine=True, mixing="epm")
PUZZLE = Phase(puzzle=True)
CLASSES = ("cat", "dog", "cow")


def run(config: TrainConfig, root: Path, out: Path, **settings: Any) -> Any:
    return train(config, root, out, device="cpu", progress=False, **settings)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def flat(state: Any, name: str = "") -> dict[str, Any]:
    """All tensors and numbers of nested dictionaries and lists, by where they lie."""
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in flat(value, f"{name}/{key}").items()}
    if isinstance(state, list):
        return {k: v for key, value in enumerate(state) for k, v in flat(value, f"{name}/{key}").items()}
    return {name: state}


def differing(first: Path, second: Path) -> list[str]:
    """Where the states of two runs differ by a single bit."""
    states = []
    for out in (first, second):
        checkpoint = load_checkpoint(out / "last.pt")
        states.append(flat([checkpoint.epoch, checkpoint.network, checkpoint.ema, checkpoint.optimizer]))
    assert states[0].keys() == states[1].keys()
    return [
        name
        for name, value in states[0].items()
        if not (torch.equal(value, states[1][name]) if isinstance(value, Tensor) else value == states[1][name])
    ]


@pytest.fixture(scope="module")
def straight(tiny: TrainConfig, creatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run through all phases that was never stopped, with pictures of its state."""
    out = tmp_path_factory.mktemp("straight")
    run(replace(tiny, panel_every=2), creatures, out)
    return out


# what a run leaves


def test_a_run_leaves_settings_log_curves_pictures_and_a_checkpoint(straight: Path, tiny: TrainConfig) -> None:
    assert {path.name for path in straight.iterdir()} == {
        "config.json", "log.jsonl", "tensorboard", "panels", "last.pt"
    }  # fmt: skip
    assert TrainConfig.from_dict(json.loads((straight / "config.json").read_text())) == replace(tiny, panel_every=2)
    assert [path.name for path in sorted((straight / "panels").iterdir())] == ["epoch_002.png", "epoch_004.png"]
    assert any((straight / "tensorboard").glob("events.out.tfevents.*"))
    assert load_checkpoint(straight / "last.pt").epoch == 4


def test_the_log_tells_phase_losses_and_rate_of_each_epoch(straight: Path, tiny: TrainConfig) -> None:
    rows = lines(straight)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["phase"] for row in rows] == ["cam", "rs", "rs+epm", "rs+epm"]
    mixed = ["mix_cam", "mix_decoder"]
    assert [list(row["losses"]) for row in rows] == [
        ["tags"], ["tags", "cam", "decoder"], *[["tags", "cam", "decoder", *mixed]] * 2
    ]  # fmt: skip
    for index, row in enumerate(rows):
        last_step = 2 * index + 1  # of eight, two an epoch
        assert row["learning_rate"] == pytest.approx(tiny.learning_rate * (1 - last_step / 8) ** 0.9)
        assert row["seconds"] > 0 and row["pictures_per_second"] > 0


def test_train_gives_the_averaged_network_and_calls_back(tiny: TrainConfig, creatures: Path, tmp_path: Path) -> None:
    rows = []
    network = run(tiny, creatures, tmp_path, on_epoch=lambda trainer, row: rows.append((trainer.epoch, row)))
    assert [epoch for epoch, _ in rows] == [1, 2, 3, 4] and [row for _, row in rows] == lines(tmp_path)
    assert not network.training and network.classes[0] == "zebbo"
    loaded = load_network(tmp_path / "last.pt").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())


def test_each_epoch_has_batches_of_its_own(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    original = loop.epoch_loader

    def record(dataset: Any, **settings: Any) -> Any:
        asked.append((settings["seed"], settings["epoch"], settings["batch_size"]))
        return original(dataset, **settings)

    monkeypatch.setattr(loop, "epoch_loader", record)
    run(replace(tiny, method="cam", mixing="none", seed=3, epochs=3), creatures, tmp_path)
    assert asked == [(3, 0, 4), (3, 1, 4), (3, 2, 4)]


def test_nothing_is_printed_without_progress(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(replace(tiny, method="cam", mixing="none", epochs=1), creatures, tmp_path)
    assert capfd.readouterr() == ("", "")
    train(replace(tiny, method="cam", mixing="none", epochs=1), creatures, tmp_path / "shown", device="cpu")
    assert "epoch 1/1 cam" in capfd.readouterr().err


def test_checkpoints_come_at_their_epochs_and_at_the_end(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    monkeypatch.setattr(
        keeping, "save_checkpoint", lambda path, checkpoint: saved.append((path.name, checkpoint.epoch))
    )
    run(replace(tiny, method="cam", mixing="none", epochs=5, checkpoint_every=2), creatures, tmp_path)
    assert saved == [("last.pt", 2), ("last.pt", 4), ("last.pt", 5)]


# masks are never learnt from


def test_a_root_without_masks_trains_to_the_same_weights(
    tiny: TrainConfig, creatures: Path, straight: Path, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    shutil.copytree(creatures, root)
    shutil.rmtree(root / "SegmentationClass")
    run(replace(tiny, panel_every=2), root, tmp_path / "out")
    assert differing(tmp_path / "out", straight) == []


def test_no_mask_is_read_while_training(
    tiny: TrainConfig, creatures: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path) -> Tensor:
        pytest.fail(f"{path} was read")

    monkeypatch.setattr(voc, "read_mask", forbidden)
    run(tiny, creatures, tmp_path)
    assert differing(tmp_path, straight) == []
    with pytest.raises(pytest.fail.Exception):  # the trap does work
        voc.VocDataset(creatures, "train", masks=True)[0]


# stopping and going on


class StopError(Exception):
    """Stands for Ctrl+C or a machine that goes down."""


def stop_after_step(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    step, done = Trainer.step, iter(range(count))

    def counted(self: Trainer, *args: Any, **settings: Any) -> dict[str, float]:
        if next(done, None) is None:
            raise StopError
        return step(self, *args, **settings)

    monkeypatch.setattr(Trainer, "step", counted)


@pytest.mark.parametrize("steps", [2, 3, 4, 7])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    tiny: TrainConfig, creatures: Path, straight: Path, tmp_path: Path, steps: int
) -> None:
    """StopError after an epoch of two steps or within one; eight steps in all, through all phases."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
        stop_after_step(patch, steps)
        run(tiny, creatures, tmp_path)
    assert load_checkpoint(tmp_path / "last.pt").epoch == steps // 2
    torch.manual_seed(12345)  # another process has another generator
    run(tiny, creatures, tmp_path, resume=True)
    assert differing(tmp_path, straight) == []
    timeless = [{k: v for k, v in row.items() if "second" not in k} for row in lines(tmp_path)]
    assert timeless == [{k: v for k, v in row.items() if "second" not in k} for row in lines(straight)]


@pytest.mark.parametrize(
    "changes", [{"optimizer": "adamw", "learning_rate": 0.001}, {"accumulate": 2, "jitter": 0.2, "checkpoint_every": 2}]
)
def test_resuming_is_exact_with_other_settings_too(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = replace(tiny, **changes)
    run(config, creatures, tmp_path / "straight")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
        stop_after_step(patch, 6)
        run(config, creatures, tmp_path / "stopped")
    run(replace(config, workers=1), creatures, tmp_path / "stopped", resume=True)
    assert differing(tmp_path / "stopped", tmp_path / "straight") == []
    assert [row["epoch"] for row in lines(tmp_path / "stopped")] == [1, 2, 3, 4]


def test_a_stop_between_log_and_checkpoint_loses_no_line(
    tiny: TrainConfig, creatures: Path, straight: Path, tmp_path: Path
) -> None:
    save = keeping.save_checkpoint

    def stop_at_second(path: Path, checkpoint: Any) -> None:
        if checkpoint.epoch == 2:
            raise StopError
        save(path, checkpoint)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
        patch.setattr(keeping, "save_checkpoint", stop_at_second)
        run(tiny, creatures, tmp_path)
    run(tiny, creatures, tmp_path, resume=True)
    assert [row["epoch"] for row in lines(tmp_path)] == [1, 2, 3, 4]
    assert differing(tmp_path, straight) == []


def test_a_finished_run_is_left_as_it_is(tiny: TrainConfig, creatures: Path, straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "out")
    network = run(tiny, creatures, tmp_path / "out", resume=True)
    assert differing(tmp_path / "out", straight) == []
    assert lines(tmp_path / "out") == lines(straight)
    ema = load_checkpoint(straight / "last.pt").ema
    assert all(torch.equal(value, ema[name]) for name, value in network.state_dict().items())


def test_a_resumed_run_looks_for_no_weights(tiny: TrainConfig, creatures: Path, tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v2

    weights = tmp_path / "weights.pth"
    torch.save(mobilenet_v2(weights=None).state_dict(), weights)
    config = replace(tiny, mixing="none", backbone="mobilenet_v2", weights=str(weights), epochs=2, freeze_stages=2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
        stop_after_step(patch, 2)
        run(config, creatures, tmp_path / "out")
    weights.unlink()
    run(config, creatures, tmp_path / "out", resume=True)
    assert load_checkpoint(tmp_path / "out" / "last.pt").config == config


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as info:
        call()
    assert "\n" not in str(info.value)
    return str(info.value)


@pytest.mark.parametrize(("name", "value"), [("learning_rate", 0.1), ("batch_size", 2), ("seed", 1), ("size", 48)])
def test_resuming_with_another_setting_is_refused_by_name(
    tiny: TrainConfig, creatures: Path, straight: Path, name: str, value: Any
) -> None:
    before = (straight / "last.pt").read_bytes()
    message = error_of(lambda: run(replace(tiny, **{name: value}), creatures, straight, resume=True))
    wanted = rf"{re.escape(str(straight / 'last.pt'))}: .*{name} = {getattr(tiny, name)}\b.* got {value}"
    assert re.fullmatch(wanted, message), message
    assert (straight / "last.pt").read_bytes() == before


def test_methods_may_share_their_warm_up(tiny: TrainConfig, creatures: Path, straight: Path, tmp_path: Path) -> None:
    """Stopped while rs and rs+epm are still the same, a run may go on as either; not after that."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
        stop_after_step(patch, 4)
        run(replace(tiny, method="rs", mixing="none"), creatures, tmp_path)
    message = error_of(lambda: run(replace(tiny, method="cam", mixing="none"), creatures, tmp_path, resume=True))
    assert "method = 'rs'" in message and message.endswith("got 'cam'")
    run(tiny, creatures, tmp_path, resume=True)
    assert differing(tmp_path, straight) == []
    message = error_of(lambda: run(replace(tiny, method="rs", mixing="none"), creatures, tmp_path, resume=True))
    assert "mixing = 'epm'" in message and message.endswith("got 'none'")


def test_mixings_may_share_what_comes_before_mixing(tiny: TrainConfig, creatures: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
        stop_after_step(patch, 4)
        run(tiny, creatures, tmp_path / "shared")
    config = replace(tiny, mixing="cutmix")
    run(config, creatures, tmp_path / "shared", resume=True)
    run(config, creatures, tmp_path / "straight")
    assert differing(tmp_path / "shared", tmp_path / "straight") == []
    message = error_of(lambda: run(tiny, creatures, tmp_path / "shared", resume=True))
    assert "mixing = 'cutmix'" in message and message.endswith("got 'epm'")


def test_a_run_that_is_there_is_not_overwritten(tiny: TrainConfig, creatures: Path, straight: Path) -> None:
    message = error_of(lambda: run(tiny, creatures, straight))
    assert message.startswith(f"{straight / 'last.pt'}: expected a new folder or --resume, got ")


def test_resuming_what_is_not_there_or_broken_or_of_other_classes(
    tiny: TrainConfig, creatures: Path, straight: Path, tmp_path: Path
) -> None:
    assert "got no such file" in error_of(lambda: run(tiny, creatures, tmp_path, resume=True))
    assert not any(tmp_path.iterdir())

    root = tmp_path / "set"
    shutil.copytree(creatures, root)
    (root / "classes.txt").write_text("zebbo\ndotkin\n")
    shutil.copytree(straight, tmp_path / "out")
    message = error_of(lambda: run(tiny, root, tmp_path / "out", resume=True))
    assert "expected the classes ('zebbo', 'dotkin', 'ringlo', 'plusmo', 'tramlo')" in message
    assert message.endswith("got ('zebbo', 'dotkin')")

    path = tmp_path / "out" / "last.pt"
    path.write_bytes(path.read_bytes()[:-100])
    assert error_of(lambda: run(tiny, creatures, tmp_path / "out", resume=True)).startswith(f"{path}: expected a whole")


def test_one_picture_is_not_enough(tiny: TrainConfig, creatures: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(creatures, root)
    split = root / "ImageSets/Segmentation/train.txt"
    split.write_text(split.read_text().splitlines()[0])
    assert error_of(lambda: run(tiny, root, tmp_path / "out")).endswith("expected at least 2 pictures in train, got 1")


# what goes wrong


def break_term(monkeypatch: pytest.MonkeyPatch, *, step: int, term: str, change: Callable[[Tensor], Tensor]) -> None:
    original, calls = loop.step_terms, iter(range(1000))

    def broken(*args: Any, **settings: Any) -> dict[str, Term]:
        terms = original(*args, **settings)
        if next(calls) == step:
            terms[term] = terms[term]._replace(loss=change(terms[term].loss))
        return terms

    monkeypatch.setattr(loop, "step_terms", broken)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_the_last_good_state_stays(
    tiny: TrainConfig, creatures: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    with monkeypatch.context() as patch, pytest.raises(NotFiniteError) as info:
        break_term(patch, step=3, term="decoder", change=lambda loss: loss * value)
        run(tiny, creatures, tmp_path)
    message = str(info.value)
    assert "\n" not in message and f"'decoder' is {value} at step 3" in message
    assert message.endswith(f"the last good state is {tmp_path / 'last.pt'}")
    assert load_checkpoint(tmp_path / "last.pt").epoch == 1
    assert [row["epoch"] for row in lines(tmp_path)] == [1]
    run(tiny, creatures, tmp_path, resume=True)
    assert differing(tmp_path, straight) == []


def test_before_the_first_checkpoint_there_is_nothing_to_go_back_to(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_term(monkeypatch, step=0, term="tags", change=lambda loss: loss / 0)
    with pytest.raises(NotFiniteError, match=r"'tags' is inf at step 0; none was saved yet$"):
        run(tiny, creatures, tmp_path)
    assert not (tmp_path / "last.pt").exists()


def pictures(count: int, *, seed: int = 0, side: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    tags = torch.randint(0, 2, (count, 3), generator=generator).float()
    tags[:, 0] = 1
    return images, tags


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.network.named_parameters()}


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """√x at 0 has the value 0 and an infinite slope: a loss can be fine when its gradient is not."""
    trainer = Trainer(tiny, CLASSES, CPU)
    before = weights_of(trainer)
    break_term(monkeypatch, step=0, term="tags", change=lambda loss: loss + (loss * 0).sqrt())
    with pytest.raises(NotFiniteError, match="gradient's length is nan at step 0"):
        trainer.step(*pictures(4), CAM, step=0)
    assert all(torch.equal(before[name], value) for name, value in trainer.network.named_parameters())


@pytest.mark.parametrize(("mixing", "head"), [("none", "classifier"), *((name, "decoder") for name in MIXINGS)])
def test_a_teacher_that_is_not_finite_stops_the_run(tiny: TrainConfig, mixing: Any, head: str) -> None:
    """SCG makes zeros of such a CAM, the filters void of such a decoder: without a word nothing would be learnt."""
    trainer = Trainer(replace(tiny, mixing=mixing), CLASSES, CPU)
    before = weights_of(trainer)
    for parameter in getattr(trainer.average.network, head).parameters():
        parameter.data.fill_(math.nan)
    with pytest.raises(NotFiniteError, match=r"^loss term 'cam' is nan at step 0$"):
        trainer.step(*pictures(4), Phase(refine=True, mixing=mixing), step=0)
    assert all(torch.equal(before[name], value) for name, value in trainer.network.named_parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_with_a_scaler_a_gradient_that_is_not_finite_is_left_out(
    tiny: TrainConfig, optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in float16: the next scale is smaller then; else a step is as without one."""
    plain, scaled = (Trainer(replace(tiny, optimizer=optimizer), CLASSES, CPU) for _ in range(2))
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    before = weights_of(scaled)
    break_term(monkeypatch, step=0, term="tags", change=lambda loss: loss + (loss * 0).sqrt())
    scaled.step(*pictures(4), CAM, step=0)
    assert all(torch.equal(before[name], value) for name, value in scaled.network.named_parameters())
    assert scaled.scaler.get_scale() == 2.0**9
    for trainer in (plain, scaled):
        for _ in range(2):
            trainer.step(*pictures(4), CAM, step=1)
    for name, value in plain.network.named_parameters():
        assert not torch.equal(value, before[name]) or name.startswith("decoder."), name
    moved = weights_of(scaled)
    for name, value in plain.network.named_parameters():
        torch.testing.assert_close(moved[name], value.detach(), rtol=1e-4, atol=1e-5, msg=name)


# one step


def gradients(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in trainer.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("count", "parts"), [(4, 2), (4, 4), (3, 2)])
def test_accumulated_gradients_are_those_of_the_whole_batch(tiny: TrainConfig, count: int, parts: int) -> None:
    """Batch norm must not see the parts, so it is fixed; the loss of the tags is a mean over pictures."""
    config = replace(tiny, freeze_batch_norm=True, clip_norm=1e6)
    whole, split = Trainer(config, CLASSES, CPU), Trainer(replace(config, accumulate=parts), CLASSES, CPU)
    losses = [trainer.step(*pictures(count), CAM, step=0) for trainer in (whole, split)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    expected = gradients(whole)
    assert gradients(split).keys() == expected.keys()
    for name, gradient in gradients(split).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("phase", [CAM, PUZZLE, RS, FULL])
def test_a_step_is_fixed_by_its_number(tiny: TrainConfig, phase: Phase) -> None:
    def step(number: int) -> dict[str, Tensor]:
        trainer = Trainer(tiny, CLASSES, CPU)
        torch.rand(number)  # what was drawn before must not matter
        trainer.step(*pictures(4), phase, step=number)
        return weights_of(trainer)

    first, again, other = step(5), step(5), step(6)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    if phase.refine:  # dropout of the decoder
        assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_each_step_mixes_in_a_way_of_its_own(tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    original = loop.teacher_targets

    def record(*args: Any, generator: torch.Generator, **settings: Any) -> Any:
        seeds.append(generator.initial_seed())
        return original(*args, generator=generator, **settings)

    monkeypatch.setattr(loop, "teacher_targets", record)
    for config in (tiny, replace(tiny, seed=1)):
        trainer = Trainer(config, CLASSES, CPU)
        for step in (0, 1, 0):
            trainer.step(*pictures(4), FULL, step=step)
    assert len(set(seeds)) == 4
    assert seeds[0] == seeds[2] and seeds[3] == seeds[5]


@pytest.mark.parametrize("mixing", MIXINGS)
def test_every_mixing_trains_all_of_the_network(tiny: TrainConfig, mixing: Mixing) -> None:
    config = replace(tiny, mixing=mixing, certain=0.3, uncertain=0.2, mix_tag_weight=1.0)
    trainer = Trainer(config, CLASSES, CPU)
    phase = Phase(refine=True, mixing=mixing)
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        method = MIXINGS[mixing]
        patch.setitem(MIXINGS, mixing, method._replace(mix=record_calls(method.mix, seen)))
        terms = trainer.step(*pictures(4), phase, step=0)
    [mixed] = seen
    assert mixed.images.shape == (4, 3, 32, 32) and mixed.tags.shape == (4, 3)
    assert list(terms) == ["tags", "cam", "decoder", "mix_tags", "mix_cam", "mix_decoder"]
    assert all(value > 0 for value in terms.values())
    assert len(gradients(trainer)) == len(weights_of(trainer))


def record_calls(mixer: Callable[..., Any], seen: list[Any]) -> Callable[..., Any]:
    def recording(*args: Any, **settings: Any) -> Any:
        seen.append(mixer(*args, **settings))
        return seen[-1]

    return recording


@pytest.mark.parametrize("side", [32, 33])
def test_a_step_of_puzzle_cam_sees_the_whole_and_the_pieces(tiny: TrainConfig, side: int) -> None:
    config = replace(tiny, freeze_batch_norm=True)  # so that what a forward pass gives does not depend on its batch
    trainer = Trainer(config, CLASSES, CPU)
    images, tags = pictures(4, side=side)
    normal = loop.normalise(images)
    with torch.no_grad():
        trainer.network.eval()
        cam = trainer.network(normal, decode=False).cam
        whole = merge(trainer.network(tile(normal), decode=False).cam, size=cam.shape[2:])
    terms = trainer.step(images, tags, PUZZLE, step=0, alpha=3.0)
    assert list(terms) == ["tags", "puzzle_tags", "puzzle"]
    distance = float(((cam - whole).abs() * tags[:, :, None, None]).mean())
    assert terms["puzzle"] == pytest.approx(3 * distance, rel=1e-4) and distance > 0
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    assert terms["puzzle_tags"] == pytest.approx(float(bce(whole.mean((2, 3)), tags)), rel=1e-4)
    assert not any(name.startswith("decoder.") for name in gradients(trainer))


def test_a_run_of_puzzle_cam_has_a_weight_that_grows(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alphas = []
    step = Trainer.step

    def record(self: Trainer, *args: Any, alpha: float, **settings: Any) -> dict[str, float]:
        alphas.append(alpha)
        return step(self, *args, alpha=alpha, **settings)

    monkeypatch.setattr(Trainer, "step", record)
    run(replace(tiny, method="puzzle", mixing="none", puzzle_alpha=2.0), creatures, tmp_path)
    assert alphas == [0, 0.5, 1, 1.5, 2, 2, 2, 2]
    rows = lines(tmp_path)
    assert [row["phase"] for row in rows] == ["puzzle"] * 4
    assert all(list(row["losses"]) == ["tags", "puzzle_tags", "puzzle"] for row in rows)
    assert rows[3]["losses"]["puzzle"] > 0


def test_puzzle_cam_may_wait_for_the_classifier_to_learn(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alphas: list[tuple[bool, float]] = []
    step = Trainer.step

    def record(self: Trainer, images: Any, tags: Any, phase: Phase, *, alpha: float, **settings: Any) -> Any:
        alphas.append((phase.puzzle, alpha))
        return step(self, images, tags, phase, alpha=alpha, **settings)

    monkeypatch.setattr(Trainer, "step", record)
    run(replace(tiny, method="puzzle", mixing="none", puzzle_start=2), creatures, tmp_path)
    assert [alpha for puzzle, alpha in alphas if puzzle] == [0, 2, 4, 4]
    assert [row["phase"] for row in lines(tmp_path)] == ["cam", "cam", "puzzle", "puzzle"]


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet18"])
def test_puzzle_cam_trains_other_networks_too(tiny: TrainConfig, backbone: str) -> None:
    config = replace(tiny, backbone=backbone, method="puzzle", mixing="none")
    trainer = Trainer(config, CLASSES, CPU)
    terms = trainer.step(*pictures(2, side=49), PUZZLE, step=0, alpha=1.0)
    assert terms["puzzle"] > 0


def test_the_gradient_is_no_longer_than_the_norm_and_zeroed_between_steps(tiny: TrainConfig) -> None:
    trainer = Trainer(replace(tiny, clip_norm=0.01), CLASSES, CPU)
    for step in range(2):
        trainer.step(*pictures(4), CAM, step=step)
        length = sum(float(g.square().sum()) for g in gradients(trainer).values()) ** 0.5
        assert length == pytest.approx(0.01, rel=1e-3)


def test_a_step_is_sgd_on_the_sum_of_the_losses(tiny: TrainConfig) -> None:
    config = replace(tiny, momentum=0.0, weight_decay=0.0, bias_factor=1.0, learning_rate=0.05)
    trainer = Trainer(config, CLASSES, CPU)
    before = weights_of(trainer)
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.05
    trainer.step(*pictures(4), RS, step=0)
    moved = gradients(trainer)
    assert len(moved) == len(before)
    for name, value in trainer.network.named_parameters():
        torch.testing.assert_close(value.detach(), before[name] - 0.05 * moved[name])


def test_seeds_give_other_weights_and_the_same_seed_the_same(tiny: TrainConfig) -> None:
    networks = [weights_of(Trainer(replace(tiny, seed=seed), CLASSES, CPU)) for seed in (0, 0, 1)]
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])
    assert not torch.equal(networks[0]["classifier.weight"], networks[2]["classifier.weight"])


def test_the_decoder_waits_for_its_phase(tiny: TrainConfig) -> None:
    trainer = Trainer(tiny, CLASSES, CPU)
    before = weights_of(trainer)
    images, tags = pictures(4)
    # From bright to dark. A bias of ASPP's mean that ReLU lets through for all pictures alike (as for noise, which has
    # one mean) adds one number everywhere, and the batch norm behind it takes that away: no gradient.
    images = images // torch.tensor([1, 2, 4, 8], dtype=torch.uint8).view(4, 1, 1, 1)
    trainer.step(images, tags, CAM, step=0)
    moved = {name for name, value in trainer.network.named_parameters() if not torch.equal(before[name], value)}
    assert moved == {name for name in before if not name.startswith("decoder.")}
    trainer.step(images, tags, RS, step=1)
    assert {name for name, value in trainer.network.named_parameters() if not torch.equal(before[name], value)} == set(
        before
    )


def test_the_targets_come_from_the_averaged_network(tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tiny, CLASSES, CPU)
    with torch.no_grad():
        for parameter in trainer.average.network.parameters():
            parameter.mul_(0.9)
    images, tags = pictures(4)
    with torch.no_grad():
        wanted = trainer.average.network(normalise(images))
    seen = []
    make = loop.teacher_targets

    def record(*args: Any, teacher: Callable[..., Any], **settings: Any) -> Any:
        def forward(*inputs: Any, **options: Any) -> Any:
            seen.append(teacher(*inputs, **options))
            return seen[-1]

        return make(*args, teacher=forward, **settings)

    monkeypatch.setattr(loop, "teacher_targets", record)
    trainer.step(images, tags, FULL, step=0)
    [outputs] = seen
    torch.testing.assert_close(outputs.cam, wanted.cam)
    torch.testing.assert_close(outputs.seg_logits, wanted.seg_logits)
    assert not outputs.cam.requires_grad and not trainer.average.network.training


def test_half_precision_trains_with_losses_in_full(tiny: TrainConfig) -> None:
    exact, rough = Trainer(tiny, CLASSES, CPU), Trainer(replace(tiny, precision="bf16"), CLASSES, CPU)
    dtypes = set()
    rough.network.register_forward_hook(lambda module, args, out: dtypes.add(out.cam.dtype))
    losses = [trainer.step(*pictures(4), FULL, step=0) for trainer in (exact, rough)]
    assert dtypes == {torch.bfloat16}
    assert losses[1]["tags"] == pytest.approx(losses[0]["tags"], rel=0.05)
    assert all(value.dtype == torch.float32 for value in rough.network.parameters())


def test_auto_precision_is_what_the_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_precision("auto", CPU) == torch.float32
    for has_bf16, dtype in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has_bf16: has)
        assert resolve_precision("auto", torch.device("cuda")) == dtype
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.items():
        assert resolve_precision(name, CPU) == dtype


def test_the_data_set_of_a_run_can_be_sent_to_workers_that_are_not_forked(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS and Windows start workers anew and send them the data set; a lambda in it cannot be sent."""
    seen = []
    original = loop.epoch_loader

    def record(dataset: Any, **settings: Any) -> Any:
        seen.append(pickle.loads(pickle.dumps(dataset)))
        return original(dataset, **settings)

    monkeypatch.setattr(loop, "epoch_loader", record)
    run(replace(tiny, method="cam", mixing="none", epochs=1), creatures, tmp_path)
    image, tags, box, colours = seen[0][0]
    assert image.shape == (3, 32, 32) and tags.shape == (5,) and colours.tolist() == [1, 1, 1]
    assert box.tolist() == [0, 0, 32, 32]


def test_the_colours_that_are_drawn_reach_the_network(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[float, Tensor] = {}
    for jitter in (0.0, 0.3):

        def record(self: Trainer, images: Tensor, *_: Any, key: float = jitter, **__: Any) -> dict[str, float]:
            seen.setdefault(key, images)
            return {"tags": 0.0}

        monkeypatch.setattr(Trainer, "step", record)
        run(replace(tiny, method="cam", mixing="none", epochs=1, jitter=jitter), creatures, tmp_path / str(jitter))
    dataset = loop.training_dataset(replace(tiny, jitter=0.3), creatures)
    [(_, _, _, factors), *_] = loop.epoch_loader(dataset, batch_size=4, seed=0, epoch=0)
    assert torch.equal(seen[0.3], change_colours(seen[0.0], factors))
    assert not torch.equal(seen[0.3], seen[0.0])


# does it learn?


def test_the_tags_of_a_few_pictures_can_be_learnt(tiny: TrainConfig, creatures: Path, tmp_path: Path) -> None:
    config = replace(tiny, method="cam", mixing="none", epochs=12, batch_size=8, scale=(0.9, 1.0), size=48)
    run(replace(config, learning_rate=0.2), creatures, tmp_path)  # twelve steps in all
    losses = [row["losses"]["tags"] for row in lines(tmp_path)]
    shares = torch.stack([torch.as_tensor(item["tags"]) for item in voc.VocDataset(creatures, "train")]).float().mean(0)
    guessed = float(torch.special.entr(torch.stack([shares, 1 - shares])).sum(0).mean())  # without looking at pictures
    assert losses[-1] < 0.6 * min(losses[0], guessed)


def test_the_decoder_learns_its_own_pseudo_masks(tiny: TrainConfig) -> None:
    trainer = Trainer(replace(tiny, learning_rate=0.02), CLASSES, CPU)
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.02
    values = [trainer.step(*pictures(4), RS, step=step)["decoder"] for step in range(15)]
    assert sum(values[-3:]) / 3 < 0.8 * values[0]


def test_the_rates_of_the_gpu_presets_stay_finite_and_learn() -> None:
    """200 steps of voc-gpu's settings on drawn pictures, smaller ones and fewer at a time: its rates from its start.

    The batch norm and dropout of training stay; weights are random, where the presets start from ImageNet's.
    """
    config = preset("voc-gpu", backbone="resnet18", weights="none", size=64, batch_size=4, decoder_channels=32)
    trainer = Trainer(config, CLASSES, CPU)
    drawn = [draw_picture(0, "train", index, size=64) for index in range(4)]
    images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _, _ in drawn])
    tags = torch.stack([torch.from_numpy(tags[: len(CLASSES)]) for _, _, tags in drawn])
    steps, terms = 200, []
    for step in range(steps):
        epoch = 30 * step // steps
        set_learning_rate(trainer.optimizer, config, step=step, steps=steps)
        terms.append(trainer.step(images, tags, phase_of(config, epoch), step=step))
    assert all(math.isfinite(value) for row in terms for value in row.values())
    assert list(terms[-1]) == ["tags", "cam", "decoder", "mix_cam", "mix_decoder"]
    assert all(bool(value.isfinite().all()) for value in trainer.average.network.state_dict().values())
    first, last = ([row["tags"] for row in part] for part in (terms[:10], terms[-10:]))
    assert sum(last) < 0.5 * sum(first)
    assert terms[-1]["decoder"] < next(row["decoder"] for row in terms if "decoder" in row)
