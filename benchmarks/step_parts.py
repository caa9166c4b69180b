"""The parts of a training step that benchmarks tell apart: the functions that are theirs."""

from typing import Any

from torch import Tensor

from rsepm_edu.methods import edgepredictmix, recurseed
from rsepm_edu.training import loop
from rsepm_edu.training import step as step_of_training
from rsepm_edu.training.loop import Trainer
from rsepm_edu.training.phases import Phase

FULL = Phase(refine=True, mixing="epm")
"""A step with every part of the method on."""


def parts_of_a_step(trainer: Trainer) -> list[tuple[str, Any, str]]:
    """Name of the part, what holds its function, and the function's name there; parts may lie inside others."""
    return [
        ("network forward", Trainer, "_forward"),
        ("SCG", recurseed, "scg"),
        ("PAMR", recurseed, "pamr"),
        ("RecurSeed, the rest", step_of_training, "refine"),
        ("EdgePredict", edgepredictmix, "edge_predict"),
        ("pasting", edgepredictmix, "edge_predict_mix"),
        ("targets, the rest", loop, "teacher_targets"),
        ("backward", Tensor, "backward"),
        ("optimiser and average", trainer.optimizer, "step"),
        ("optimiser and average", trainer.average, "update"),
    ]
