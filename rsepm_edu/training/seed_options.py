"""How the seeds of a trained network are made: as in its training."""

from rsepm_edu.evaluation.inference import SCALES
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.training.config import WITHOUT_DECODER, TrainConfig


def seed_options_of(
    config: TrainConfig,
    learnt: tuple[str, ...] | None = None,
    *,
    scales: tuple[float, ...] = SCALES,
    mirror: bool = True,
) -> SeedOptions:
    """SCG and PAMR as in that training, and the decoder's maps if it was trained.

    Args:
        config: of the training.
        learnt: the heads it has trained, see ``Checkpoint.learnt``; None: those of its method, at its end.
        scales, mirror: see ``SeedOptions``.
    """
    return SeedOptions(
        scales=scales,
        mirror=mirror,
        decode=config.method not in WITHOUT_DECODER if learnt is None else "decoder" in learnt,
        scg_threshold=config.scg_threshold,
        pamr_stride=config.pamr_stride,
    )
