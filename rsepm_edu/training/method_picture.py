"""The method at a glance: images, and beside them what a trained network makes of them step by step."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.evaluation.inference import NEAR_SCALES, multi_scale_maps
from rsepm_edu.methods.cam import normalize_cam
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.targets import Batch, refine
from rsepm_edu.viz.panels import class_colours, overlay, panel, picture

COLUMNS = ("image", "CAM", "RecurSeed's target M_rs", "the network's mask", "true mask")


@torch.no_grad()
def method_picture(
    network: SingleStageNetwork, config: TrainConfig, dataset: VocDataset, indices: Sequence[int]
) -> Figure:
    """A row an image: the image, its CAM, M_rs, the decoder's arg-max over ``NEAR_SCALES``, and the true mask.

    CAM and M_rs are those of the image's tags. The decoder is told no tags.

    Args:
        network: whose decoder is trained, on the CPU.
        config: thresholds and sizes of its training.
        dataset: opened with masks, its images of one size.
        indices: of the images to show.
    """
    samples = [dataset[index] for index in indices]
    images = normalise(torch.stack([sample["image"].as_subclass(torch.Tensor) for sample in samples]))
    tags = torch.stack([sample["tags"] for sample in samples])
    network.eval()
    outputs = network(images)
    size = images.shape[2:]
    cams = F.interpolate(normalize_cam(outputs.cam, tags), size, mode="bilinear")
    targets = refine(config, Batch(images, tags, torch.ones_like(images[:, :1])), outputs).rs_map
    targets = F.interpolate(targets, size, mode="bilinear")
    seen = multi_scale_maps(network, images, scales=NEAR_SCALES)
    assert seen.probabilities is not None
    masks = seen.probabilities.argmax(dim=1)
    rows = []
    for sample, cam, target, mask in zip(samples, cams, targets, masks, strict=True):
        image = picture(sample["image"])
        shown = [overlay(image // 2, layer, opacity=0.75) for layer in (cam, target, mask, sample["mask"])]
        rows.append([image, *shown])
    return panel(rows, COLUMNS, legend=class_colours(dataset.classes))
