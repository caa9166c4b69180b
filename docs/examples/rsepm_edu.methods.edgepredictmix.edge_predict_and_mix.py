r"""
.. math::

   M_{ep} = \operatorname{EP}(M_{dec}), \qquad
   I'_b = \mu_b \odot I_b + (1 - \mu_b) \odot I_{\pi(b)}, \qquad \mu_b = [\,M_{ep,b} \text{ shows a class}\,]

:math:`\pi` draws a partner for each image of the batch.
"""

import torch

from rsepm_edu.data.palette import colourise
from rsepm_edu.methods.edgepredictmix import edge_predict_and_mix
from rsepm_edu.viz.panels import panel, picture

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

other = image.flip(2).roll(40, dims=0)
other = torch.stack([other[2], other[0], other[1]])
other_score = score.flip(1)
blank = torch.zeros(96, 96)
maps = torch.stack([torch.stack([1 - score, score, blank]), torch.stack([1 - other_score, blank, other_score])])
tags = torch.eye(2)
mixed = edge_predict_and_mix(
    torch.stack([image, other]).float(), tags, maps, generator=torch.Generator().manual_seed(0)
)
print("tags after mixing:", mixed.tags.tolist())
figure = panel(
    [[image, other, picture(mixed.images[0].byte()), colourise(mixed.pseudo_masks[0])]],
    ["image", "partner", "mixed", "its pseudo mask"],
)
