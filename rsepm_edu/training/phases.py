"""The phases of a run: which parts of the method are on in an epoch."""

from dataclasses import dataclass

from rsepm_edu.training.config import TrainConfig, method_name
from rsepm_edu.training.mixings import Mixing


@dataclass(frozen=True)
class Phase:
    """Which parts of the method are on; none: classification alone."""

    refine: bool = False  # RecurSeed
    mixing: Mixing = "none"  # on top of it
    puzzle: bool = False  # Puzzle-CAM

    @property
    def mix(self) -> bool:
        """Whether mixed pictures are learnt from too."""
        return self.mixing != "none"

    @property
    def name(self) -> str:
        """For logs: the method so far, see ``method_name``."""
        return method_name("rs" if self.refine else "puzzle" if self.puzzle else "cam", self.mixing)


def phase_of(config: TrainConfig, epoch: int) -> Phase:
    """The phase of an epoch, counted from 0."""
    refine = config.method == "rs" and epoch >= config.rs_start
    mixing = config.mixing if refine and epoch >= config.mix_start else "none"
    puzzle = config.method == "puzzle" and epoch >= config.puzzle_start
    return Phase(refine, mixing, puzzle=puzzle)
