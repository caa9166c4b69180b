"""How the seeds of a trained network are made: as in its training."""

from rsepm_edu.evaluation.inference import SCALES
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.training.config import WITHOUT_DECODER, TrainConfig


def seed_options_of(config: TrainConfig, *, scales: tuple[float, ...] = SCALES, mirror: bool = True) -> SeedOptions:
    """SCG and PAMR as in that training, and the decoder's maps if its method trains one.

    Args:
        config: of the training.
        scales, mirror: see ``SeedOptions``.
    """
    return SeedOptions(
        scales=scales,
        mirror=mirror,
        decode=config.method not in WITHOUT_DECODER,
        scg_threshold=config.scg_threshold,
        pamr_stride=config.pamr_stride,
    )
