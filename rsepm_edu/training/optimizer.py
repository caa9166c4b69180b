"""Which weights learn and how fast: parameter groups, the polynomial schedule, the moving average."""

import copy
from typing import Any, Protocol

import torch
from torch import nn

from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.models.segmenters import Segmenter
from rsepm_edu.training.config import Optimizer, TrainConfig


class OptimizerSettings(Protocol):
    """The settings of an optimiser and of the stages it leaves alone."""

    @property
    def freeze_stages(self) -> int: ...
    @property
    def optimizer(self) -> Optimizer: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def head_factor(self) -> float: ...
    @property
    def bias_factor(self) -> float: ...
    @property
    def momentum(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def freeze(network: SingleStageNetwork | Segmenter, config: OptimizerSettings) -> None:
    """Fix the first ``freeze_stages`` stages of the backbone; call before the optimiser is made."""
    for stage in network.backbone.stages[: config.freeze_stages]:
        stage.requires_grad_(False)


def training_mode(network: SingleStageNetwork, config: TrainConfig) -> None:
    """Put a network in training mode, but for the parts whose batch norm is fixed."""
    network.train()
    for stage in network.backbone.stages[: config.freeze_stages]:
        stage.eval()
    if config.freeze_batch_norm:
        network.backbone.eval()


def make_optimizer(network: nn.Module, config: OptimizerSettings) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW, in the four groups published for Puzzle-CAM.

    Backbone weights learn at the learning rate, biases ``bias_factor`` times as fast and without decay; both
    ``head_factor`` times as fast in the new layers, which are all that the network has beside its ``backbone``.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            key = (not name.startswith("backbone."), name.endswith("bias"))
            groups.setdefault(key, []).append(parameter)
    options: list[dict[str, Any]] = []
    for (new, bias), parameters in groups.items():
        factor = (config.head_factor if new else 1.0) * (config.bias_factor if bias else 1.0)
        decay = 0.0 if bias else config.weight_decay
        options.append({"params": parameters, "factor": factor, "weight_decay": decay})
    if config.optimizer == "adamw":
        on_gpu = all(parameter.is_cuda for group in options for parameter in group["params"])
        return torch.optim.AdamW(options, lr=config.learning_rate, fused=on_gpu or None)  # fewer launches
    return torch.optim.SGD(options, lr=config.learning_rate, momentum=config.momentum)


class Schedule(Protocol):
    """The settings of the polynomial schedule."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def poly_power(self) -> float: ...


def set_learning_rate(optimizer: torch.optim.Optimizer, config: Schedule, *, step: int, steps: int) -> float:
    """Polynomial decay, learning rate × (1 − step / steps) ^ power, times each group's factor.

    Returns:
        The backbone's learning rate at that step.
    """
    rate = config.learning_rate * (1 - step / steps) ** config.poly_power
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    return rate


class MovingAverage:
    """An exponential moving average of a network's weights and statistics.

    Early on it follows faster, by min(decay, (1 + step) / (10 + step)), so that the random start is soon forgotten.

    Args:
        network: copied.
        decay: share of the average that one step keeps, in [0, 1).
    """

    def __init__(self, network: SingleStageNetwork, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: SingleStageNetwork, step: int) -> None:
        """Move towards ``network`` after its step number ``step``, counted from 0."""
        keep = min(self.decay, (1 + step) / (10 + step))
        own, new = self.network.state_dict(), network.state_dict()
        averaged = [name for name, value in own.items() if value.is_floating_point()]
        counted = [name for name, value in own.items() if not value.is_floating_point()]  # batches that norms have seen
        torch._foreach_lerp_([own[n] for n in averaged], [new[n] for n in averaged], 1 - keep)
        if counted:  # a network without batch norm has none
            torch._foreach_copy_([own[n] for n in counted], [new[n] for n in counted])
