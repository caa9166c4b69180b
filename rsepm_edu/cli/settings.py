"""rsepm-edu settings: every setting of train, or of multistage, with its meaning and its source."""

import argparse

from rsepm_edu.multistage.config import MultistageConfig
from rsepm_edu.training.config import TrainConfig, preset
from rsepm_edu.training.described import settings_text


def run(options: argparse.Namespace) -> None:
    """Print them."""
    if not options.multistage:
        print(settings_text(TrainConfig() if options.preset is None else preset(options.preset)), end="")
        return
    config = MultistageConfig() if options.preset is None else MultistageConfig.preset(options.preset)
    parts = {
        "between the networks": config.stages,
        "walk.…, the network of the walk": config.walk,
        "segmentation.…, the segmenter": config.segmentation,
    }
    print("\n".join(f"=== {title}\n\n{settings_text(part)}" for title, part in parts.items()), end="")
