from dataclasses import replace

import pytest
import torch
from torch import nn

from rsepm_edu.models.network import SingleStageNetwork, build_network
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.loop import Trainer
from rsepm_edu.training.optimizer import MovingAverage, freeze, make_optimizer, set_learning_rate
from rsepm_edu.training.phases import Phase

CLASSES = ("cat", "dog")
FULL = Phase(refine=True, mixing="epm")


@pytest.fixture
def config(tiny: TrainConfig) -> TrainConfig:
    return replace(tiny, learning_rate=0.1, head_factor=10.0, bias_factor=2.0, weight_decay=1e-3)


def network_for(config: TrainConfig, backbone: str = "resnet18") -> SingleStageNetwork:
    return build_network(backbone, CLASSES, decoder_channels=16, decoder_rates=(1, 2))


# parameter groups and the schedule


@pytest.mark.parametrize("freeze_stages", [0, 2])
def test_each_weight_that_learns_is_in_the_group_of_its_factor(config: TrainConfig, freeze_stages: int) -> None:
    config = replace(config, freeze_stages=freeze_stages)
    network = network_for(config)
    freeze(network, config)
    optimizer = make_optimizer(network, config)
    groups = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert id(parameter) not in groups
            groups[id(parameter)] = group
    for name, parameter in network.named_parameters():
        frozen = name.startswith(tuple(f"backbone.stages.{i}." for i in range(freeze_stages)))
        assert parameter.requires_grad is not frozen
        if frozen:
            assert id(parameter) not in groups
            continue
        group = groups.pop(id(parameter))
        factor = (1 if name.startswith("backbone.") else 10) * (2 if name.endswith(".bias") else 1)
        assert group["factor"] == factor, name
        assert group["weight_decay"] == (0 if name.endswith(".bias") else 1e-3)
    assert groups == {}


def test_the_kind_of_optimiser_is_a_setting(config: TrainConfig) -> None:
    [*_, group] = make_optimizer(network_for(config), config).param_groups
    assert group["momentum"] == 0.9 and not group["nesterov"]
    adamw = make_optimizer(network_for(config), replace(config, optimizer="adamw"))
    assert isinstance(adamw, torch.optim.AdamW)
    assert sorted(group["factor"] for group in adamw.param_groups) == [1, 2, 10, 20]


def test_the_rate_falls_polynomially_from_the_first_step_to_nearly_nothing(config: TrainConfig) -> None:
    optimizer = make_optimizer(network_for(config), config)
    for step, wanted in [(0, 0.1), (50, 0.1 * 0.5**0.9), (99, 0.1 * 0.01**0.9)]:
        assert set_learning_rate(optimizer, config, step=step, steps=100) == pytest.approx(wanted)
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(wanted * group["factor"])
    linear = replace(config, poly_power=1.0)
    assert set_learning_rate(optimizer, linear, step=25, steps=100) == pytest.approx(0.075)


# what is frozen


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(before[name], value)}


def full_step(trainer: Trainer) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=generator)
    # From bright to dark. A bias of ASPP's mean that ReLU lets through for all pictures alike (as for noise, which has
    # one mean) adds one number everywhere, and the batch norm behind it takes that away: no gradient.
    images = images // torch.tensor([1, 2, 4, 8], dtype=torch.uint8).view(4, 1, 1, 1)
    trainer.step(images, torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]), FULL, step=0)


@pytest.mark.parametrize("backbone", ["creatures", "mobilenet_v2"])
def test_frozen_stages_keep_weights_and_statistics(config: TrainConfig, backbone: str) -> None:
    trainer = Trainer(replace(config, backbone=backbone, freeze_stages=2), CLASSES, torch.device("cpu"))
    before = state(trainer.network)
    full_step(trainer)
    now = changed(before, trainer.network)
    assert not any(name.startswith(("backbone.stages.0.", "backbone.stages.1.")) for name in now)
    moving = {name for name in before if not name.startswith(("backbone.stages.0.", "backbone.stages.1."))}
    assert now == moving


def test_frozen_batch_norm_keeps_statistics_but_learns(config: TrainConfig) -> None:
    trainer = Trainer(replace(config, freeze_batch_norm=True), CLASSES, torch.device("cpu"))
    before = state(trainer.network)
    full_step(trainer)
    now = changed(before, trainer.network)
    kept = {name for name in before if name.startswith("backbone.") and ("running" in name or "tracked" in name)}
    assert kept and not now & kept
    learning = {name for name in before if name.startswith("backbone.")} - kept
    assert learning <= now and {name for name in before if name.startswith("decoder.") and "running" in name} <= now


def test_otherwise_everything_moves(config: TrainConfig) -> None:
    trainer = Trainer(config, CLASSES, torch.device("cpu"))
    before = state(trainer.network)
    full_step(trainer)
    assert changed(before, trainer.network) == before.keys()


# the moving average


def test_the_average_is_a_loop_over_its_definition() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    average = MovingAverage(network, 0.6)
    wanted = {name: value.clone() for name, value in network.state_dict().items()}
    for step in range(12):
        for parameter in network.parameters():
            parameter.data.normal_()
        network(torch.randn(5, 2, dtype=torch.float64))
        average.update(network, step)
        keep = min(0.6, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            wanted[name] = keep * wanted[name] + (1 - keep) * value if value.is_floating_point() else value.clone()
    for name, value in average.network.state_dict().items():
        torch.testing.assert_close(value, wanted[name], msg=name)
    assert int(average.network[1].num_batches_tracked) == 12


def test_the_average_follows_fast_at_first_and_slowly_later() -> None:
    network = nn.Linear(1, 1, bias=False)
    shares = []
    for step in (0, 8, 10_000):
        network.weight.data.fill_(0.0)
        average = MovingAverage(network, 0.99)
        network.weight.data.fill_(1.0)
        average.update(network, step)
        shares.append(float(average.network.weight.detach()))
    assert shares == pytest.approx([0.9, 0.5, 0.01])


def test_the_average_is_a_network_of_its_own_for_evaluation() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    average = MovingAverage(network, 0.9)
    assert not average.network.training and network.training
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    network[0].weight.data.add_(1.0)
    assert not torch.equal(average.network[0].weight, network[0].weight)
