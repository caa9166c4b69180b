"""Explore mixing: choose two pictures, a method and a seed, see the new picture, its mask and its tags."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from rsepm_edu.data.palette import colourise
from rsepm_edu.data.voc import Sample
from rsepm_edu.labels import VOID
from rsepm_edu.methods.mixing import Mixed
from rsepm_edu.viz.explorers.explorer import Explorer, View, enlarge, outline
from rsepm_edu.viz.panels import Judged, Picture

MOST_SEEDS = 30


class Shown(NamedTuple):
    """What one state of the controls gives: picture, labels, where they were pasted, tags, truth that came along."""

    image: Picture
    labels: Tensor
    pasted: Judged
    tags: Tensor
    truth: Tensor


def mixing_explorer(
    samples: Mapping[str, Sample],
    maps: Mapping[str, Tensor],
    methods: Mapping[str, Callable[..., Mixed]],
    names: Sequence[str],
    *,
    seed: int = 0,
) -> "MixingExplorer":
    """Explore what mixing methods make of two pictures: parts of one on the other.

    Args:
        samples: at least two pictures of one size, opened with their masks; the masks only judge.
        maps: of the same names, (K+1)×H×W probabilities, background first, absent classes zero.
        methods: name to a function mix(images, tags, maps, generator=...), see `rsepm_edu.methods.mixing`.
        names: the K class names.
        seed: where its slider starts, 0 to 30.

    Raises:
        ValueError: fewer than two pictures, sizes that differ, maps that do not fit them, or no method.
    """
    return MixingExplorer(samples, maps, methods, names, seed=seed)


class MixingExplorer(Explorer):
    """What `mixing_explorer` returns. Controls: `above`, `below`, `method` (Dropdown), `seed` (IntSlider)."""

    on_pages = {"method": None, "seed": range(6)}

    def __init__(
        self,
        samples: Mapping[str, Sample],
        maps: Mapping[str, Tensor],
        methods: Mapping[str, Callable[..., Mixed]],
        names: Sequence[str],
        *,
        seed: int = 0,
    ) -> None:
        shapes = {tuple(sample["image"].shape) for sample in samples.values()}
        if len(samples) < 2 or len(shapes) != 1:
            raise ValueError(f"samples: expected at least two of one size, got {len(samples)} of {sorted(shapes)}")
        (shape,) = shapes
        wanted = (len(names) + 1, *shape[1:])
        got = {name: tuple(values.shape) for name, values in maps.items()}
        if got != dict.fromkeys(samples, wanted):
            raise ValueError(f"maps: expected {wanted} for each of {', '.join(samples)}, got {got}")
        if not methods:
            raise ValueError("methods: expected at least one, got none")
        self._samples, self._maps, self._methods, self._names = dict(samples), dict(maps), dict(methods), tuple(names)
        offered = list(samples)
        self.above = ipywidgets.Dropdown(options=offered, value=offered[0], description="paste from")
        self.below = ipywidgets.Dropdown(options=offered, value=offered[1], description="paste on")
        self.method = ipywidgets.Dropdown(options=list(methods), description="method")
        self.seed = ipywidgets.IntSlider(value=seed, min=0, max=MOST_SEEDS, description="seed")
        super().__init__([self.above, self.below, self.method, self.seed])

    def __repr__(self) -> str:
        pair = f"{self.above.value} on {self.below.value}"
        return f"MixingExplorer({self.method.value}, {pair}, seed {self.seed.value})"

    def mixed(self) -> Shown:
        """Mix the two pictures as the controls say."""
        pair = [self.above.value, self.below.value]
        samples = [self._samples[name] for name in pair]
        images = torch.stack([sample["image"].as_subclass(Tensor) for sample in samples])
        masks = torch.stack([sample["mask"].as_subclass(Tensor) for sample in samples])
        # Which picture a pixel comes from, and its true label, travel along as two more channels.
        origin = torch.tensor([1.0, 0.0])[:, None, None, None].expand(2, 1, *images.shape[2:])
        channels = torch.cat([images.float(), origin, masks[:, None].float()], dim=1)
        tags = torch.stack([sample["tags"] for sample in samples])
        maps = torch.stack([self._maps[name] for name in pair])
        generator = torch.Generator().manual_seed(int(self.seed.value))
        mixed = self._methods[self.method.value](channels, tags, maps, generator=generator)
        row = mixed.images[0]  # of two pictures each is the other's partner
        return Shown(
            row[:3].round().byte().permute(1, 2, 0).contiguous().numpy(),
            mixed.pseudo_masks[0],
            (row[3] > 0.5).numpy(),
            mixed.tags[0],
            row[4].round().long(),
        )

    def render(self) -> View:
        shown = self.mixed()
        mask = enlarge(colourise(shown.labels.numpy()))
        mask[outline(enlarge(shown.pasted))] = 255
        tiles = [*(enlarge(_picture(self._samples[name])) for name in (self.above.value, self.below.value))]
        captions = [f"paste from {self.above.value}", f"on {self.below.value}", _tags(shown.tags, self._names)]
        return View([*tiles, enlarge(shown.image), mask], [*captions, self._right(shown)])

    def _right(self, shown: Shown) -> str:
        """How many of the pasted labels are true, void left out on both sides."""
        pasted = torch.from_numpy(shown.pasted)
        claimed = pasted & (shown.labels > 0) & (shown.labels <= len(self._names)) & (shown.truth != VOID)
        if not claimed.any():
            return f"{pasted.float().mean():.0%} pasted, no animal in it"
        right = (shown.labels == shown.truth)[claimed].float().mean()
        return f"{pasted.float().mean():.0%} pasted, its labels {right:.0%} true"


def _picture(sample: Sample) -> Picture:
    return np.ascontiguousarray(sample["image"].as_subclass(Tensor).permute(1, 2, 0).numpy())


def _tags(tags: Tensor, names: Sequence[str]) -> str:
    present = [(name, float(value)) for name, value in zip(names, tags, strict=True) if value > 0]
    if all(value == 1 for _, value in present):
        return "tags: " + (", ".join(name for name, _ in present) or "none")
    return "tags: " + ", ".join(f"{name} {value:.2f}" for name, value in present)
