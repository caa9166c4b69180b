"""The networks, layer by layer, with the shapes that the networks themselves give: nothing is written down by hand."""

from collections.abc import Sequence
from typing import Any

import torch
from drawing_canvas import Canvas
from torch import Tensor, nn

from rsepm_edu.data.creature_drawing import CREATURES
from rsepm_edu.models.affinity import BoundaryNetwork
from rsepm_edu.models.backbones import Residual
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.training.checkpoint import network_from_config
from rsepm_edu.training.config import preset


def creatures_network() -> SingleStageNetwork:
    """The network of the lessons, with random weights."""
    return network_from_config(preset("creatures-cpu"), CREATURES).eval()


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """What every module of a network gives for one picture of Creatures, by the module's name: C×h×w without "
    "the batch."""
    found: dict[str, tuple[int, ...]] = {}

    def keep(name: str) -> Any:
        def look(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                found[name] = tuple(output.shape[1:])

        return look

    size = preset("creatures-cpu").size
    handles = [module.register_forward_hook(keep(name)) for name, module in network.named_modules()]
    with torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()
    return found


def times(shape: Sequence[int]) -> str:
    """A shape as text."""
    return "×".join(str(side) for side in shape)


def layer_name(module: nn.Module) -> str:
    """What a layer of the small backbone is: a first convolution or a residual block, with its step and kernel."""
    first = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
    size = times(first.kernel_size)
    name = f"{size} convolution"
    if isinstance(module, Residual):
        name = "residual block" if size == "3×3" else f"residual block, {size}"
    return name if first.stride == (1, 1) else f"{name}, step {first.stride[0]}"


def backbone() -> Canvas:
    """The small backbone, stage by stage."""
    network = creatures_network()
    shapes, size = shapes_of(network), preset("creatures-cpu").size
    canvas = Canvas(
        "The small backbone, layer by layer",
        "An image passes a convolution and five residual blocks in four stages, numbered 2 to 5. The shapes of the "
        f"outputs are {', '.join(times(shapes[f'backbone.stages.{i}']) for i in range(4))}: channels, height, "
        "width. A residual block is two 3×3 convolutions around a shortcut; those of the last block are 1×1.",
    )
    canvas.text(24, 30, "The small backbone", anchor="start", style="head")
    canvas.text(506, 30, "channels×height×width", anchor="end", style="note small")
    rows = [
        ("stage 2", "backbone.stages.0.0"),
        ("", "backbone.stages.0.1"),
        ("stage 3", "backbone.stages.1.0"),
        ("", "backbone.stages.1.1"),
        ("stage 4", "backbone.stages.2"),
        ("stage 5", "backbone.stages.3"),
    ]
    canvas.box(110, 46, 240, 34, "image", "data")
    canvas.text(366, 69, times((3, size, size)), anchor="start")
    y = 80.0
    for stage, module in rows:
        canvas.arrow((230, y), (230, y + 20))
        canvas.box(110, y + 20, 240, 34, layer_name(network.get_submodule(module)), "net")
        canvas.text(366, y + 43, times(shapes[module]), anchor="start")
        if stage:
            canvas.text(24, y + 43, stage, anchor="start", style="head")
        y += 54
    y += 22
    canvas.panel(24, y, 492, 150)
    canvas.text(36, y + 24, "A residual block", anchor="start", style="head")
    canvas.box(86, y + 40, 180, 32, "3×3 convolution", "net")
    canvas.box(300, y + 40, 180, 32, "3×3 convolution", "net")
    canvas.box(193, y + 102, 180, 32, "1×1: the shortcut", "net")
    canvas.arrow((40, y + 56), (86, y + 56))
    canvas.arrow((266, y + 56), (300, y + 56))
    canvas.arrow((60, y + 56), (60, y + 118), (193, y + 118))
    canvas.arrow((480, y + 56), (500, y + 56))
    canvas.arrow((373, y + 118), (500, y + 118), (500, y + 62))
    canvas.text(506, y + 24, "batch norm after each; ReLU", anchor="end", style="note small")
    canvas.text(506, y + 98, "1×1 in the last block", anchor="end", style="note small")
    return canvas


def cam_head() -> Canvas:
    """Stage 5, one weight for each feature and class, the CAM, and its mean."""
    network = creatures_network()
    shapes, kinds = shapes_of(network), network.num_classes
    stage = shapes["backbone.stages.3"]
    canvas = Canvas(
        "The CAM head",
        f"The features of stage 5, {times(stage)}, pass a 1×1 convolution without bias, which gives one map for "
        f"each of the {kinds} classes, {times((kinds, *stage[1:]))}: the CAM. The mean of each map is the class's "
        "tag score.",
    )
    canvas.text(24, 30, "The CAM head", anchor="start", style="head")
    rows = [
        (f"features of stage 5: {times(stage)}", "data"),
        (f"1×1 convolution, {kinds}×{stage[0]} weights, no bias", "net"),
        (f"CAM, raw scores: {times((kinds, *stage[1:]))}", "map"),
        ("mean over all positions", "step"),
        (f"tag scores: {kinds}", "data"),
        ("L_{cls} with the tags", "loss"),
    ]
    y = 46.0
    for i, (text, kind) in enumerate(rows):
        if i:
            canvas.arrow((270, y - 20), (270, y))
        canvas.box(70, y, 400, 36, text, kind, 18 if kind == "loss" else 6)
        y += 56
    return canvas


def decoder() -> Canvas:
    """The decoder: many fields of view of stage 5, then back to the resolution of stage 2."""
    network = creatures_network()
    shapes, rates = shapes_of(network), preset("creatures-cpu").decoder_rates
    coarse, fine = shapes["backbone.stages.3"], shapes["backbone.stages.0"]
    joined = (shapes["decoder.aspp"][0] + shapes["decoder.low"][0], *fine[1:])
    canvas = Canvas(
        "The decoder",
        f"Stage 5, {times(coarse)}, is seen at once by a 1×1 convolution, by 3×3 convolutions with holes of "
        f"{', '.join(map(str, rates))} positions and by a mean over the whole map (ASPP); together they become "
        f"{times(shapes['decoder.aspp'])}, are enlarged and joined with stage 2, {times(fine)}. Three more "
        f"convolutions give one score for each label, {times(shapes['decoder'])}.",
    )
    canvas.text(24, 30, "The decoder (DeepLabv3+, light)", anchor="start", style="head")
    canvas.box(36, 46, 280, 34, f"stage 5: {times(coarse)}", "data")
    canvas.panel(24, 104, 304, 190)
    canvas.text(36, 127, "ASPP: near, far, everywhere", anchor="start", style="head")
    names = ["1×1", *(f"3×3, {rate}" for rate in rates), "mean"]
    for i, name in enumerate(names):
        canvas.box(34 + 96 * (i % 3), 140 + 44 * (i // 3), 88, 34, name, "net")
    canvas.text(274, 207, "3×3, dilation", style="note small")
    canvas.box(48, 242, 256, 38, f"1×1, joined: {times(shapes['decoder.aspp'])}", "net")
    canvas.arrow((176, 80), (176, 104))
    canvas.arrow((176, 218), (176, 242))
    canvas.box(340, 46, 180, 34, f"stage 2: {times(fine)}", "data")
    canvas.box(340, 242, 180, 38, f"1×1: {times(shapes['decoder.low'])}", "net")
    canvas.arrow((434, 80), (434, 242))
    canvas.arrow((176, 280), (176, 320))
    canvas.box(76, 320, 200, 34, "enlarged, bilinear", "step")
    canvas.arrow((176, 354), (176, 392))
    canvas.arrow((434, 280), (434, 392))
    y = 392.0
    for text, kind in (
        (f"side by side: {times(joined)}", "data"),
        (f"3×3 convolution: {times(shapes['decoder.refine.0'])}", "net"),
        (f"3×3 convolution: {times(shapes['decoder.refine.1'])}", "net"),
        (f"1×1 convolution: {times(shapes['decoder'])}", "net"),
        (f"decoder's map: soft-max over {shapes['decoder'][0]} labels", "mask"),
    ):
        if y > 392:
            canvas.arrow((270, y - 20), (270, y))
        canvas.box(70, y, 400, 36, text, kind)
        y += 56
    return canvas


def boundary() -> Canvas:
    """IRNet's boundary branch on the same backbone."""
    shapes = shapes_of(BoundaryNetwork(creatures_network().backbone).eval())
    stages = [shapes[f"backbone.stages.{i}"] for i in range(4)]
    branches = [shapes[f"branches.{i}"] for i in range(4)]
    canvas = Canvas(
        "The boundary branch",
        f"Each of the four stages, {', '.join(map(times, stages))}, passes a 1×1 convolution and a group norm to "
        f"{branches[0][0]} channels and is enlarged to {times(branches[0][1:])}. Side by side they pass one 1×1 "
        f"convolution and a sigmoid: the edge map, {times(shapes[''])}. The backbone stays as it is.",
    )
    canvas.text(24, 30, "The boundary branch (after IRNet)", anchor="start", style="head")
    canvas.text(24, 56, "backbone, fixed", anchor="start", style="note")
    for i, (stage, branch) in enumerate(zip(stages, branches, strict=True)):
        x = 24 + 125 * i
        canvas.box(x, 68, 117, 52, (f"stage {i + 2}", times(stage)), "data")
        canvas.arrow((x + 58, 120), (x + 58, 146))
        canvas.box(x, 146, 117, 52, ("1×1, norm", times(branch)), "net")
        canvas.arrow((x + 58, 198), (x + 58, 224))
    joined = (sum(branch[0] for branch in branches), *branches[0][1:])
    y = 224.0
    for text, kind in (
        (f"each enlarged to {times(joined[1:])}, then ReLU", "step"),
        (f"side by side: {times(joined)}", "data"),
        (f"1×1 convolution: {times(shapes['join'])}", "net"),
        (f"sigmoid: edge map, {times(shapes[''])}", "map"),
    ):
        if y > 224:
            canvas.arrow((270, y - 20), (270, y))
        canvas.box(24, y, 492, 36, text, kind)
        y += 56
    return canvas


NETWORKS = {"backbone": backbone, "cam_head": cam_head, "decoder": decoder, "boundary": boundary}
"""By the name of the file."""
