"""What a run has learnt, told by its progress, and whether its schedule ever reaches its method.

Both follow from the phases of the epochs alone (``phases.phase_of``), so no setting is named here. Phases only add to
one another: what the last epoch trains, it and those before it have trained.
"""

import sys
from dataclasses import fields

from rsepm_edu.errors import UserError
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.phases import Phase, phase_of


def reached_phase(config: TrainConfig, progress: tuple[int, int]) -> Phase | None:
    """The phase a run has come to.

    Args:
        config: its settings.
        progress: epochs done, and batches done of the next one.

    Returns:
        The phase of its last step; None before the first.
    """
    epoch, batch = progress
    begun = epoch + (batch > 0)
    return phase_of(config, begun - 1) if begun > 0 else None


def learnt_heads(config: TrainConfig, progress: tuple[int, int]) -> tuple[str, ...]:
    """The heads of the network that a run has trained so far: "cam", and "decoder" from the first step with RS on.

    See ``reached_phase`` for the arguments.
    """
    phase = reached_phase(config, progress)
    if phase is None:
        return ()
    return ("cam", "decoder") if phase.refine else ("cam",)


def expect_method_reached(config: TrainConfig) -> None:
    """Check that the epochs of a run suffice for the method that was asked for.

    Raises:
        UserError: they end in an earlier phase.
    """
    last, wanted = phase_of(config, config.epochs - 1), phase_of(config, sys.maxsize)
    if last != wanted:
        names = [field.name for field in fields(config) if field.name.endswith("_start")]
        starts = [name for name in names if getattr(config, name) >= config.epochs]
        told = ", ".join(f"{name}={getattr(config, name)}" for name in starts)
        raise UserError(
            f"epochs: expected enough to reach {wanted.name} ({told}, counted from 0), got {config.epochs}, "
            f"which end in {last.name}; change epochs, {' and '.join(starts)}, or method"
        )
