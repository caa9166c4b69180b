"""How seeds are made from a trained network: one object, so that what is chosen, scored and drawn is the same maps."""

from dataclasses import dataclass

from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.inference import SCALES


@dataclass(frozen=True)
class SeedOptions:
    """Options of ``seed_maps``; those of a training come from ``rsepm_edu.training.seed_options``.

    Attributes:
        scales: sizes at which a picture is seen, see ``multi_scale_maps``.
        mirror: whether each scale's mirror image is seen too.
        decode: whether the decoder's maps are made too; worth it where one was trained.
        scg_threshold: ``first_threshold`` of ``scg``, in [0, 1].
        pamr_stride: pixels per position of PAMR.

    Raises:
        UserError: a value out of range.
    """

    scales: tuple[float, ...] = SCALES
    mirror: bool = True
    decode: bool = True
    scg_threshold: float = 0.50
    pamr_stride: int = 4

    def __post_init__(self) -> None:
        if not self.scales or not min(self.scales) > 0:
            raise UserError(f"scales: expected positive numbers, got {self.scales}")
        if not 0 <= self.scg_threshold <= 1:
            raise UserError(f"scg_threshold: expected 0 to 1, got {self.scg_threshold}")
        if self.pamr_stride < 1:
            raise UserError(f"pamr_stride: expected at least 1, got {self.pamr_stride}")


DEFAULT_OPTIONS = SeedOptions()
