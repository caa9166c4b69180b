r"""
.. math::

   I' = \mu \odot I_a + (1 - \mu) \odot I_b, \qquad
   M' = \mu \odot M_a + (1 - \mu) \odot M_b, \qquad
   y' = \lambda\,y_a + (1 - \lambda)\,y_b

:math:`\mu` is 1 in the region, :math:`\lambda` the share that the caller gives.
"""

import torch

from rsepm_edu.data.palette import colourise
from rsepm_edu.methods.mixing import Mixed, paste_region
from rsepm_edu.viz.panels import panel, picture

# An animal: a round body and a head on a noisy ground.
rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
body = ((rows - 56) / 22) ** 2 + ((columns - 44) / 30) ** 2 < 1
head = (rows - 34) ** 2 + (columns - 70) ** 2 < 14**2
animal, ground = torch.tensor([210.0, 130, 60]), torch.tensor([60.0, 110, 90])
image = torch.where((body | head)[:, :, None], animal, ground).permute(2, 0, 1)
image = (image + 12 * torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(0))).clamp(0, 255).byte()

masks = torch.stack([(body | head).long(), 2 * (body | head).flip(1).long()])
images = torch.stack([image, image.flip(2).flip(0)]).float()
batch = Mixed.unmixed(images, torch.eye(2), masks)
region = torch.zeros(2, 96, 96, dtype=torch.bool)
region[:, 10:70, 40:96] = True
share = region.float().mean(dim=(1, 2))
mixed = paste_region(batch, batch.rows(torch.tensor([1, 0])), region, share)
print("tags after mixing:", [[f"{tag:.2f}" for tag in row] for row in mixed.tags.tolist()])
figure = panel(
    [[image, picture(images[1].byte()), picture(mixed.images[0].byte()), colourise(mixed.pseudo_masks[0])]],
    ["image", "partner", "mixed", "its labels"],
)
