import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rsepm_edu.errors import UserError
from rsepm_edu.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_network,
    network_from_config,
    save_checkpoint,
)
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.loop import Trainer
from rsepm_edu.training.phases import Phase

CLASSES = ("cat", "dog")


@pytest.fixture
def trainer(tiny: TrainConfig) -> Trainer:
    """Two steps into a run, so that network, average and momentum all differ."""
    trainer = Trainer(tiny, CLASSES, torch.device("cpu"))
    for step in range(2):
        images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
        trainer.step(images, torch.eye(2), Phase(refine=True), step=step)
    trainer.epoch = 3
    return trainer


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def test_everything_comes_back(trainer: Trainer, tmp_path: Path) -> None:
    path = tmp_path / "run" / "last.pt"
    saved = trainer.checkpoint()
    save_checkpoint(path, saved)
    loaded = load_checkpoint(str(path))
    for field in fields(Checkpoint):
        if field.name == "source":  # where it came from
            continue
        assert same(getattr(loaded, field.name), getattr(saved, field.name)), field.name
    assert (loaded.config, loaded.classes, loaded.epoch) == (trainer.config, CLASSES, 3)
    assert loaded.optimizer["state"], "no momentum was saved"


def test_a_restored_trainer_is_the_one_that_was_saved(trainer: Trainer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", trainer.checkpoint())
    other = Trainer(replace(trainer.config, seed=5), CLASSES, torch.device("cpu"))
    other.restore(load_checkpoint(tmp_path / "last.pt"))
    assert other.epoch == 3
    for name in ("network", "ema", "optimizer"):
        assert same(getattr(other.checkpoint(), name), getattr(trainer.checkpoint(), name)), name


def test_load_network_gives_the_average_ready_to_use(trainer: Trainer, tmp_path: Path) -> None:
    # The weights it started from are not looked for again.
    config = replace(trainer.config, weights="no/such/file.pth")
    save_checkpoint(tmp_path / "last.pt", replace(trainer.checkpoint(), config=config))
    network = load_network(tmp_path / "last.pt")
    assert not network.training and network.classes == CLASSES
    assert same(network.state_dict(), trainer.average.network.state_dict())
    assert not same(network.state_dict(), trainer.network.state_dict())


def test_a_save_that_fails_leaves_the_old_file(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, trainer.checkpoint())
    before = path.read_bytes()

    def full_disk(state: object, file: Path) -> None:
        Path(file).write_bytes(b"half of it")
        raise OSError("no space left on device")

    trainer.epoch = 4
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(
        UserError, match=r"last.pt: expected to write a checkpoint, got: .*; the one before it is whole$"
    ):
        save_checkpoint(path, trainer.checkpoint())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert load_checkpoint(path).epoch == 3


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint(trainer: Trainer, tmp_path: Path, share: float) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, trainer.checkpoint())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: expected a whole checkpoint, got: .") as info:
        load_checkpoint(path)
    assert "\n" not in str(info.value)


def test_a_missing_file_and_other_files(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: expected a checkpoint, got no such file$"):
        load_checkpoint(path)
    for other in ({"weight": torch.zeros(2)}, [1, 2], {"format": 0}):
        torch.save(other, path)
        with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: expected a checkpoint of rsepm-edu"):
            load_checkpoint(path)


def test_a_checkpoint_with_a_setting_of_another_version(trainer: Trainer, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, trainer.checkpoint())
    state = torch.load(path, weights_only=True)
    state["config"] = '{"flavour": 1, ' + state["config"][1:]
    torch.save(state, path)
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: .* got flavour$"):
        load_checkpoint(path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"format": 1, "config": Path("x").exists}, path)
    with pytest.raises(UserError, match="expected a whole checkpoint, got: "):
        load_checkpoint(path)


def test_the_network_of_a_config_has_its_settings(tiny: TrainConfig) -> None:
    config = replace(tiny, backbone="mobilenet_v2", output_stride=8, weights="no/such/file", decoder_rates=(1, 2, 3))
    network = network_from_config(config, CLASSES, weights="none")
    assert network.stride == 8 and network.classes == CLASSES
    assert len(network.decoder.aspp.branches) == 4
    assert network.decoder.aspp.branches[1][0].groups == 16  # separable, after 1,280 channels were reduced
    assert network.decoder.refine[-1].weight.shape == (3, 16, 1, 1)
    with pytest.raises(UserError, match="^no/such/file: "):
        network_from_config(config, CLASSES)


@pytest.fixture
def state(trainer: Trainer, tmp_path: Path) -> dict[str, Any]:
    """What a checkpoint holds, to be edited."""
    save_checkpoint(tmp_path / "last.pt", trainer.checkpoint())
    return torch.load(tmp_path / "last.pt", weights_only=True)


NAMES = ("config", "classes", "epoch", "network", "ema", "optimizer", "scaler")


def test_an_entry_that_is_missing_or_of_another_kind(state: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "edited.pt"
    for name in NAMES:
        for value in (None, 3.5, [1, {}], "text", {"a": torch.ones(2)}):
            if not (isinstance(value, dict) and isinstance(state[name], dict)):  # those only the network can tell
                edited = {key: other for key, other in state.items() if key != name}
                torch.save(edited if value is None else edited | {name: value}, path)
                with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: expected .*, got:? ") as info:
                    load_network(path)
                assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", ["network", "ema", "optimizer"])
def test_the_state_of_something_else(trainer: Trainer, name: str) -> None:
    other = replace(trainer.checkpoint(), **{name: {"a": torch.ones(2)}})
    with pytest.raises(UserError, match=r"^last\.pt: expected "):
        trainer.restore(other, "last.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 10**30}, "expected 0 to 4 epochs done and a batch, got 1000"),
        ({"epoch": -1}, "expected 0 to 4 epochs done"),
        ({"epoch": True}, r"expected a checkpoint with epoch \(int\), got True"),
        ({"batch": -1}, "expected 0 to 4 epochs done and a batch"),
        ({"classes": ["cat", "cat"]}, "expected a checkpoint with different names of classes, got"),
        ({"classes": ["cat", 3]}, "expected a checkpoint with different names of classes, got"),
        ({"classes": ["cat", "dog", "cow"]}, r"expected weights of .*, classifier.weight of shape \(3, .*, got \(2, "),
        ({"totals": '{"cam": "much"}'}, "expected a checkpoint with totals that are numbers"),
        ({"totals": "[1, 2]"}, r"expected a checkpoint with totals \(dict\), got a list"),
        ({"totals": '{"cam": NaN}'}, "expected a checkpoint with totals that are numbers"),
        ({"config": "{"}, "expected a checkpoint with config in JSON, got: "),
        ({"config": "[" * 100_000}, "expected a checkpoint with config in JSON, got: "),
        ({"format": True}, "expected a checkpoint of rsepm-edu, format 1, got another file"),
    ],
)
def test_an_entry_out_of_range(state: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str) -> None:
    torch.save(state | change, path := tmp_path / "edited.pt")
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: {message}"):
        load_network(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 1.5), ("epochs", "4"), ("size", None), ("jitter", "NaN"), ("separable", 1), ("decoder_rates", ["a"])],
)
def test_a_setting_of_another_kind(state: dict[str, Any], tmp_path: Path, name: str, value: Any) -> None:
    config = json.loads(state["config"]) | {name: float("nan") if value == "NaN" else value}
    torch.save(state | {"config": json.dumps(config)}, path := tmp_path / "edited.pt")
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: expected {name} like .*, got "):
        load_checkpoint(path)


@pytest.mark.parametrize("part", ["network", "ema", "optimizer"])
def test_numbers_that_are_not_finite(state: dict[str, Any], tmp_path: Path, part: str) -> None:
    values = (
        state["optimizer"]["state"][0]["momentum_buffer"] if part == "optimizer" else state[part]["classifier.weight"]
    )
    values[:, 1] = float("nan")
    torch.save(state, path := tmp_path / "edited.pt")
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: expected finite numbers, got NaN .* in {part}\."):
        load_checkpoint(path)


def test_a_checkpoint_with_a_flipped_bit(state: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(state["ema"]["classifier.weight"].numpy().tobytes()) + 2] ^= 16
    path.write_bytes(damaged)
    torch.load(path, weights_only=True)  # torch sees nothing
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: expected a whole checkpoint, got: a damaged one"):
        load_checkpoint(path)


def test_settings_of_a_network_that_no_machine_can_hold(state: dict[str, Any], tmp_path: Path) -> None:
    config = json.loads(state["config"]) | {"decoder_channels": 10**14}
    torch.save(state | {"config": json.dumps(config)}, path := tmp_path / "edited.pt")
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: decoder_channels: expected at most 8192, got 1"):
        load_network(path)
