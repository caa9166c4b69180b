"""What every backbone is: four stages in a row, whose features all may be used."""

from collections.abc import Sequence

from torch import Tensor, nn


class Backbone(nn.Module):
    """Four stages in a row; ``forward`` returns the features of each.

    Args:
        stages: four modules, each fed by the one before.
        channels: channels of the four outputs.
        strides: pixels of the picture per position of the four outputs.
    """

    def __init__(self, stages: Sequence[nn.Module], channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels = tuple(channels)
        self.strides = tuple(strides)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """B×3×H×W normalised images to a tuple of four B×C×h×w."""
        features = []
        for stage in self.stages:
            images = stage(images)
            features.append(images)
        return tuple(features)
