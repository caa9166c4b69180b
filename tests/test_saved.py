"""What torch.save wrote comes back as it was, or not at all."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from rsepm_edu.errors import UserError
from rsepm_edu.saved import expect_sums, fill, fill_optimizer, fill_scaler, read_saved


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def refused(call: Callable[[], object], pattern: str) -> None:
    with pytest.raises(UserError, match=pattern) as info:
        call()
    assert str(info.value).isprintable() and "weights_only" not in str(info.value)


def test_every_flipped_bit_in_the_numbers_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    state = network().state_dict()
    torch.save(state, path)
    expect_sums(path, "weights")
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        member = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
        start = whole.index(state["0.weight"].numpy().tobytes())
        assert member.file_size == 3 * 4 * 9 * 4
    for bit in range(0, 8 * member.file_size, 97):
        damaged = bytearray(whole)
        damaged[start + bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert torch.load(path, weights_only=True).keys() == state.keys(), "torch itself would have said so"
        refused(lambda: read_saved(path, "weights"), rf"^{re.escape(str(path))}: expected weights, got: a damaged one")


def test_older_files_of_torch_have_no_sums_and_are_read(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(5.0)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert read_saved(tmp_path / "a.pt", "weights")["a"].tolist() == [0, 1, 2, 3, 4]


def test_what_is_read_never_runs_and_the_words_are_our_own(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "a.pt")  # a whole module
    refused(
        lambda: read_saved(tmp_path / "a.pt", "weights"), r"got: other objects than .* save its state_dict\(\) inst"
    )
    torch.save(network(), tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    refused(lambda: read_saved(tmp_path / "b.pt", "weights"), "got: other objects than ")
    (tmp_path / "c.pt").write_text("<html>\x1b[31m404</html>")
    refused(lambda: read_saved(tmp_path / "c.pt", "weights"), "got: a file that torch.save did not write$")
    with zipfile.ZipFile(tmp_path / "d.pt", "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    refused(lambda: read_saved(tmp_path / "d.pt", "weights"), "got: a file that torch.save did not write$")


def test_module_before_names_is_dropped() -> None:
    source, target = network(), network()
    fill(target, nn.DataParallel(source).state_dict(), "a.pt")
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    state = network().state_dict()
    state["1.running_var"][2] = value
    refused(
        lambda: fill(network(), state, "a.pt"), r"^a.pt: expected finite numbers, got NaN or infinity in 1.running_"
    )


def test_other_kinds_names_and_shapes_are_refused_by_name() -> None:
    good = network().state_dict()
    refused(lambda: fill(network(), [1], "a.pt"), "^a.pt: expected weights of Sequential, tensors by name, got a list$")
    refused(
        lambda: fill(network(), {"state_dict": good}, "a.pt"), "tensors by name, got a OrderedDict named 'state_dict'$"
    )
    refused(lambda: fill(network(), good | {"1.bias": torch.zeros(5)}, "a"), r"1.bias of shape \(4,\), got \(5,\)$")
    refused(lambda: fill(network(), good | {"0.bias": torch.zeros(4, dtype=torch.int8)}, "a"), "torch.float32, got tor")
    without = {name: value for name, value in good.items() if name != "0.bias"}
    refused(lambda: fill(network(), without, "a"), r"got 1 of 7 names missing \(0.bias, …\), 0 strange$")
    refused(lambda: fill(network(), good | {"z": torch.zeros(1)}, "a"), r"0 of 7 names missing, 1 strange \(z, …\)$")


def stepped(kind: type[torch.optim.Optimizer], model: nn.Module, **settings: float) -> torch.optim.Optimizer:
    optimizer = kind(model.parameters(), lr=0.1, **settings)  # type: ignore[call-arg]
    model(torch.rand(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(("kind", "settings"), [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {})])
def test_the_state_of_an_optimiser(kind: type[torch.optim.Optimizer], settings: dict[str, float]) -> None:
    model = network()
    state = stepped(kind, model, **settings).state_dict()
    fresh = kind(model.parameters(), lr=0.5, **settings)  # type: ignore[call-arg]
    fill_optimizer(fresh, state, "a.pt")
    assert fresh.param_groups[0]["lr"] == 0.1
    for index, values in state["state"].items():
        for name, value in values.items():
            assert torch.equal(fresh.state_dict()["state"][index][name], value)
    group = state["param_groups"][0]
    moved = {name: torch.zeros(1, 2, 3) for name in state["state"][0]}
    for wrong in (
        None,
        {},
        {"state": {}, "param_groups": [1]},
        state | {"param_groups": [group, group]},
        state | {"param_groups": [group | {"params": [0]}]},
        state | {"param_groups": [group | {"lr": "fast"}]},
        state | {"param_groups": [group | {"lr": float("nan")}]},
        state | {"param_groups": [{name: value for name, value in group.items() if name != "weight_decay"}]},
        state | {"state": {9: {}}},
        state | {"state": {0: moved}},
        state | {"state": {0: [1]}},
    ):
        refused(lambda wrong=wrong: fill_optimizer(fresh, wrong, "a.pt"), "^a.pt: expected ")


def test_adam_without_what_its_step_needs() -> None:
    optimizer = stepped(torch.optim.AdamW, network())
    state = optimizer.state_dict()
    del state["state"][1]["exp_avg_sq"]
    refused(lambda: fill_optimizer(optimizer, state, "a.pt"), "exp_avg, exp_avg_sq, step of each parameter, got")


def test_the_state_of_a_scaler() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    fill_scaler(scaler, {}, "a.pt")  # of a run without one
    assert scaler.get_scale() == 8.0
    fill_scaler(scaler, scaler.state_dict() | {"scale": 4.0}, "a.pt")
    assert scaler.get_scale() == 4.0
    for wrong in ([], {"scale": 1.0}, scaler.state_dict() | {"scale": "x"}, scaler.state_dict() | {"scale": torch.inf}):
        refused(lambda wrong=wrong: fill_scaler(scaler, wrong, "a.pt"), "^a.pt: expected ")
    fill_scaler(torch.amp.GradScaler("cpu", enabled=False), {}, "a.pt")
