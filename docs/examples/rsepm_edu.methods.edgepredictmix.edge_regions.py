r"""
.. math::

   \text{edge} = \operatorname{Canny}(m), \qquad
   R_i = \text{the connected component of pixels without an edge that holds } i
"""

import torch

from rsepm_edu.data.palette import colourise
from rsepm_edu.methods.edgepredictmix import edge_regions
from rsepm_edu.viz.panels import heat, panel

# An animal: a round body and a head on a noisy ground.
rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
body = ((rows - 56) / 22) ** 2 + ((columns - 44) / 30) ** 2 < 1
head = (rows - 34) ** 2 + (columns - 70) ** 2 < 14**2
animal, ground = torch.tensor([210.0, 130, 60]), torch.tensor([60.0, 110, 90])
image = torch.where((body | head)[:, :, None], animal, ground).permute(2, 0, 1)
image = (image + 12 * torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(0))).clamp(0, 255).byte()

# A decoder that is unsure about the far side of the body.
sure = 0.95 - 0.008 * (columns - 70).abs()
score = torch.where(body | head, sure, 0.04)
score = torch.nn.functional.avg_pool2d(score[None, None], 5, 1, 2, count_include_pad=False)[0, 0]

regions = edge_regions(score[None])
print(f"{int(regions.max())} regions, {int((regions == 0).sum())} pixels of edge")
figure = panel(
    [[image, heat(score), colourise(regions[0] % 20), heat((regions[0] == 0).float())]],
    ["image", "probability", "regions", "edges"],
)
