r"""
.. math::

   T_{ij} = \frac{a_{ij}^{\beta}}{\sum_k a_{kj}^{\beta}}, \qquad m \leftarrow m\,T \quad \text{(steps times)}
"""

import torch

from rsepm_edu.methods.random_walk import edge_affinity, random_walk
from rsepm_edu.viz.panels import heat, panel

# An animal: a round body and a head on a noisy ground. The map finds the head.
rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
body = ((rows - 56) / 22) ** 2 + ((columns - 44) / 30) ** 2 < 1
head = (rows - 34) ** 2 + (columns - 70) ** 2 < 14**2
animal, ground = torch.tensor([210.0, 130, 60]), torch.tensor([60.0, 110, 90])
image = torch.where((body | head)[:, :, None], animal, ground).permute(2, 0, 1)
image = (image + 12 * torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(0))).clamp(0, 255).byte()
cam = torch.exp(-((rows - 38) ** 2 + (columns - 66) ** 2) / (2 * 16**2))[None, None]

inside = (body | head).float()[None, None]
edge = torch.nn.functional.max_pool2d(inside, 3, 1, 1) - inside  # where objects end
walked = random_walk(cam * (1 - edge), edge_affinity(edge), steps=256)
after = (walked / walked.max())[0, 0]
shares = [(m[inside[0, 0] > 0] > 0.5).float().mean() for m in (cam[0, 0], after)]
print(f"of the animal above half the maximum before {shares[0]:.0%}, after {shares[1]:.0%}")
figure = panel([[image, heat(edge[0, 0]), heat(cam[0, 0]), heat(after)]], ["image", "edges", "seed", "after the walk"])
