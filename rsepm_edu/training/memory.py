"""How much memory a training step needs, counted before anything is computed, and what to do when it is not there."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from rsepm_edu.errors import UserError
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.phases import Phase
from rsepm_edu.training.step import Target, step_terms
from rsepm_edu.training.targets import Batch


def step_memory(config: TrainConfig, network: SingleStageNetwork, phase: Phase, precision: torch.dtype) -> int:
    """Bytes that a step of a phase needs at its height: when the losses are there and the backward pass begins.

    Weights, their average, gradients and the optimiser's state, and all that autograd keeps of one part of a batch.
    What a GPU takes beyond that is ``gpu_memory``'s.

    Args:
        config: the settings.
        network: any state, on any device; left as it is.
        phase: what is on.
        precision: of autocast; float32 where it is off.
    """
    weights = sum(parameter.numel() for parameter in network.parameters())
    learning = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    moments = 2 if config.optimizer == "adamw" else 1
    state = 4 * (2 * weights + (1 + moments) * learning)
    if precision != torch.float32:
        state += precision.itemsize * weights  # the copy that autocast makes
    return state + kept_for_backward(config, network, phase, precision)


OF_A_GPU = 1.11
TARGETS = 0.27e9
WORKSPACE = {torch.float32: 0.08e9, torch.bfloat16: 0.71e9, torch.float16: 1.39e9}
DEPTHWISE = 2.28e9 / (16 * 256**2)


def gpu_memory(config: TrainConfig, network: SingleStageNetwork, phase: Phase, precision: torch.dtype) -> int:
    """Bytes that torch reserves on a GPU for a step: more than ``step_memory`` counts.

    Fitted to 27 points of one H200 with torch 2.11 (``results/benchmarks/gpu_check``: three presets, three phases,
    three precisions), which it meets within -1 and +9 %: an estimate that is too low stops a run. Four terms:

    * ``OF_A_GPU`` times what is counted: torch takes memory in segments of 2 and 20 MiB and leaves gaps (reserved is
      1.02 to 1.10 of allocated), and the first gradients of the backward pass live beside all that waits for it;
    * ``TARGETS``, where the method makes some: the teacher's maps and PAMR's affinities;
    * ``WORKSPACE``, of cuDNN for the convolutions of a ResNet: the same for 8 and for 16 pictures of 512²;
    * in its place, for a backbone of depthwise convolutions, ``DEPTHWISE`` bytes a pixel in float32 and bfloat16, none
      in float16. Seen with MobileNetV2 and 16 pictures of 256² alone; that it goes with the pixels is our guess.

    Not in it is CUDA's own context, about half a GB of the card, which torch never sees.

    Args:
        config, network, phase, precision: see ``step_memory``.
    """
    depthwise = any(
        isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1 for layer in network.backbone.modules()
    )
    if not depthwise:
        workspace = WORKSPACE[precision]
    elif precision == torch.float16:
        workspace = 0.0
    else:
        workspace = DEPTHWISE * (config.batch_size // config.accumulate) * config.size**2
    targets = TARGETS if phase.refine else 0.0
    return round(OF_A_GPU * step_memory(config, network, phase, precision) + workspace + targets)


def kept_for_backward(config: TrainConfig, network: SingleStageNetwork, phase: Phase, precision: torch.dtype) -> int:
    """Bytes that autograd keeps of one part of a batch until the backward pass, weights not among them.

    The step itself is gone through (``step_terms``) on the meta device, where tensors have shapes and
    no values: nothing is computed. See ``step_memory`` for the arguments.
    """
    twin = copy.deepcopy(network).to("meta").to(precision).train()
    for module in twin.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(_channels_last)
    weights = {parameter.untyped_storage()._cdata for parameter in twin.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # by address, since several tensors may share one

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    def targets(batch: Batch) -> list[Target]:
        small = max(1, config.size // config.pamr_stride)
        plain = _target(batch, small, small)
        return [plain, _target(batch, small, config.size)] if phase.mix else [plain]

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.device("meta"):
        terms = step_terms(config, phase, _batch(config, twin, precision), student=twin, targets=targets, alpha=1.0)
    assert terms  # until here they hold what was counted
    return sum(storage.nbytes() for storage in kept.values())


def _channels_last(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """A convolution's output in the layout that it has in training, where the CAM reads features without copying them.

    On the meta device convolutions give the other layout, whatever they are given.
    """
    return output.contiguous(memory_format=torch.channels_last)


def _batch(config: TrainConfig, network: SingleStageNetwork, precision: torch.dtype) -> Batch:
    """One part of a batch, of the right shapes."""
    count, side = config.batch_size // config.accumulate, config.size
    images = torch.empty(count, 3, side, side, dtype=precision)
    return Batch(images, torch.empty(count, network.num_classes), torch.empty(count, 1, side, side))


def _target(batch: Batch, maps: int, mask: int) -> Target:
    """A target of the right shapes, with maps and mask of so many pixels a side."""
    count, classes = batch.tags.shape
    return Target(batch, torch.empty(count, classes, maps, maps), torch.empty(count, mask, mask, dtype=torch.int64))


@contextmanager
def memory_advice(config: TrainConfig, last: Path) -> Iterator[None]:
    """Turn running out of a GPU's memory into one line that says which setting to change.

    Args:
        config: the settings of the run.
        last: its checkpoint, named in the line where there is one.

    Raises:
        UserError: the block ran out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        parts = config.accumulate
        more = next((n for n in range(parts + 1, config.batch_size // 2 + 1) if config.batch_size % n == 0), None)
        smaller = f"--set size={max(32, config.size * 3 // 4 // 32 * 32)}"
        if more is None:
            advice = f"{smaller}, in a new run"
        else:
            advice = f"--set accumulate={more} ({config.batch_size // more} at a time), or {smaller} in a new run"
        kept = f"; {last} is whole, --resume goes on from it" if last.is_file() else ""
        raise UserError(
            f"memory: expected {config.batch_size // parts} pictures of {config.size}x{config.size} at a time "
            f"(batch_size {config.batch_size}, accumulate {parts}) to fit on the device, got out of memory; "
            f"try {advice}{kept}"
        ) from error
