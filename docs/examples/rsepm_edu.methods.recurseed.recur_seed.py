r"""
.. math::

   M_{scg} = \operatorname{SCG}(M_{cam}), \quad
   M_{rs} = \operatorname{PAMR}(M_{scg}), \qquad M_{seg} = \operatorname{CF}(M_{rs})

.. math::

   \operatorname{CF}(m) = \begin{cases} k & m_k \ge \tau_{certain} \\ 0 & m_k \le \tau_{uncertain} \\
   \text{void} & \text{else} \end{cases}

with :math:`k` the class of the largest score.
"""

import torch

from rsepm_edu.data.palette import colourise
from rsepm_edu.methods.recurseed import recur_seed
from rsepm_edu.viz.panels import heat, panel

# An animal: a round body and a head on a noisy ground. The map finds the head.
rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
body = ((rows - 56) / 22) ** 2 + ((columns - 44) / 30) ** 2 < 1
head = (rows - 34) ** 2 + (columns - 70) ** 2 < 14**2
animal, ground = torch.tensor([210.0, 130, 60]), torch.tensor([60.0, 110, 90])
image = torch.where((body | head)[:, :, None], animal, ground).permute(2, 0, 1)
image = (image + 12 * torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(0))).clamp(0, 255).byte()
cam = torch.exp(-((rows - 38) ** 2 + (columns - 66) ** 2) / (2 * 16**2))[None, None]

features = torch.nn.functional.avg_pool2d(image[None] / 255 - 0.35, 4)
scores = torch.nn.functional.avg_pool2d(cam, 4)
refined = recur_seed(image[None] / 255, features, scores, torch.ones(1, 1))
known = refined.pseudo_mask != 255
print(f"{known.float().mean():.0%} of the pixels have a label")
maps = [torch.nn.functional.interpolate(m, (96, 96))[0, 0] for m in refined[:2]]
figure = panel(
    [[image, *(heat(m) for m in maps), colourise(refined.pseudo_mask[0])]],
    ["image", "M_scg", "M_rs", "M_seg, void pale"],
)
