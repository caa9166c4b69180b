r"""
.. math::

   a_{ij} = \operatorname{softmax}_{j}\left(
   -\frac{1}{C}\sum_{c}\frac{|x_{ic} - x_{jc}|}{\sigma\,\sigma_{ic}}\right), \qquad
   m_i \leftarrow \sum_{j} a_{ij}\,m_j

The neighbours :math:`j` of a pixel :math:`i` are the 8 around it at every dilation.
"""

import torch

from rsepm_edu.methods.pamr import pamr
from rsepm_edu.viz.panels import heat, overlay, panel

# An animal: a round body and a head on a noisy ground. The map finds the head.
rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
body = ((rows - 56) / 22) ** 2 + ((columns - 44) / 30) ** 2 < 1
head = (rows - 34) ** 2 + (columns - 70) ** 2 < 14**2
animal, ground = torch.tensor([210.0, 130, 60]), torch.tensor([60.0, 110, 90])
image = torch.where((body | head)[:, :, None], animal, ground).permute(2, 0, 1)
image = (image + 12 * torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(0))).clamp(0, 255).byte()
cam = torch.exp(-((rows - 38) ** 2 + (columns - 66) ** 2) / (2 * 16**2))[None, None]

refined = pamr(image[None] / 255, cam, iterations=10)
print(f"maximum before {cam.max():.2f}, after {refined.max():.2f}")
after = refined[0, 0] / refined.max()
figure = panel(
    [[image, heat(cam[0, 0]), heat(after), overlay(image, after)]], ["image", "cam", "after PAMR", "over the image"]
)
