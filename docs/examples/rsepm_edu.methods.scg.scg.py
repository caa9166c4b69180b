r"""
.. math::

   S_{ij} = \max\left(0, \frac{F_i \cdot F_j}{|F_i|\,|F_j|}\right), \qquad
   M^{scg} = \max_{\text{stages, orders}} \left[\bar{S}_{pos} - \bar{S}_{neg}\right]_{+}

Here :math:`\bar{S}_{pos}` is the mean of the columns of the positions that the map calls object,
:math:`\bar{S}_{neg}` that of those it calls ground, each stretched to [0, 1].
"""

import torch

from rsepm_edu.methods.scg import scg
from rsepm_edu.viz.panels import heat, overlay, panel

# An animal: a round body and a head on a noisy ground. The map finds the head.
rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
body = ((rows - 56) / 22) ** 2 + ((columns - 44) / 30) ** 2 < 1
head = (rows - 34) ** 2 + (columns - 70) ** 2 < 14**2
animal, ground = torch.tensor([210.0, 130, 60]), torch.tensor([60.0, 110, 90])
image = torch.where((body | head)[:, :, None], animal, ground).permute(2, 0, 1)
image = (image + 12 * torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(0))).clamp(0, 255).byte()
cam = torch.exp(-((rows - 38) ** 2 + (columns - 66) ** 2) / (2 * 16**2))[None, None]

# Features of three numbers at 24×24 positions: here, the colours.
features = torch.nn.functional.avg_pool2d(image[None] / 255 - 0.35, 4)
small = torch.nn.functional.avg_pool2d(cam, 4)
spread = scg(features, small, torch.ones(1, 1))
print(f"above 0.5: {(small > 0.5).float().mean():.0%} of the positions, after SCG {(spread > 0.5).float().mean():.0%}")
large = torch.nn.functional.interpolate(spread, (96, 96))[0, 0]
figure = panel(
    [[image, heat(cam[0, 0]), heat(large), overlay(image, large)]], ["image", "cam", "after SCG", "over the image"]
)
