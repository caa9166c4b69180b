"""The one set of settings under which the results of all lessons are compared, on the scoreboard and wherever else."""

from dataclasses import dataclass

from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.seed_options import SeedOptions


@dataclass(frozen=True)
class SettingsCard:
    """How a map is made and scored.

    Attributes:
        split: of Creatures.
        pictures: how many are scored, the first ones; their tags are given.
        options: how maps are made. Whether the decoder's are made too depends on the network.
        steps: an oracle θ is the best of 1 / steps, 2 / steps, … below 1.

    Raises:
        UserError: no picture, or less than two steps.
    """

    split: str
    pictures: int
    options: SeedOptions
    steps: int

    def __post_init__(self) -> None:
        if self.pictures < 1:
            raise UserError(f"pictures: expected at least 1, got {self.pictures}")
        if self.steps < 2:
            raise UserError(f"steps: expected at least 2, got {self.steps}")

    @property
    def thresholds(self) -> tuple[float, ...]:
        """All θ that are tried, increasing."""
        return tuple(step / self.steps for step in range(1, self.steps))

    def __str__(self) -> str:
        options = self.options
        scales = ", ".join(f"{scale:g}" for scale in options.scales)
        return (
            f"Creatures, the first {self.pictures} images of {self.split}, tags given; "
            f"scale {scales}, {'with' if options.mirror else 'without'} the mirror image; "
            f"SCG with θ₁ = {options.scg_threshold:g}; PAMR with stride {options.pamr_stride}; "
            f"oracle θ: the best by mIoU of {len(self.thresholds)} values, {min(self.thresholds):g} "
            f"to {max(self.thresholds):g}"
        )


CARD = SettingsCard(
    split="train",
    pictures=100,
    # θ₁ and stride are those with which creatures_rs was trained.
    options=SeedOptions(scales=(1.0,), mirror=False, scg_threshold=0.30, pamr_stride=2),
    steps=100,
)
"""The card of the course."""
