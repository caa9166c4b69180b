r"""
.. math::

   k_{ij} = w_1 \exp\left(-\frac{|p_i - p_j|^2}{2\sigma^2}\right)
   + w_2 \exp\left(-\frac{|p_i - p_j|^2}{2\sigma_{xy}^2} - \frac{|I_i - I_j|^2}{2\sigma_{rgb}^2}\right)

.. math::

   Q_i(l) \propto p_i(l) \exp\left(\sum_{j \ne i} k_{ij}\,Q_j(l)\right)
"""

import torch

from rsepm_edu.methods.dense_crf import dense_crf
from rsepm_edu.viz.panels import heat, panel

# An animal: a round body and a head on a noisy ground. The belief knows where it is, and no outline.
rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
body = ((rows - 56) / 22) ** 2 + ((columns - 44) / 30) ** 2 < 1
head = (rows - 34) ** 2 + (columns - 70) ** 2 < 14**2
animal, ground = torch.tensor([210.0, 130, 60]), torch.tensor([60.0, 110, 90])
image = torch.where((body | head)[:, :, None], animal, ground).permute(2, 0, 1)
image = (image + 12 * torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(0))).clamp(0, 255).byte()

blurred = torch.nn.functional.avg_pool2d((body | head).float()[None, None], 25, 1, 12, count_include_pad=False)
belief = blurred[0, 0].clamp(0.05, 0.95)
refined = dense_crf(image[None], torch.stack([1 - belief, belief])[None], colour_sigma=13)
right = [((m > 0.5) == (body | head)).float().mean() for m in (belief, refined[0, 1])]
print(f"right before {right[0]:.1%}, after {right[1]:.1%}")
figure = panel([[image, heat(belief), heat(refined[0, 1])]], ["image", "belief in the animal", "after the CRF"])
