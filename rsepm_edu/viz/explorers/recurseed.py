"""Explore RecurSeed's recursion: choose an animal, turn the epochs like pages, see map, targets and decoder change."""

from collections.abc import Sequence
from typing import Protocol

import ipywidgets
import numpy as np
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.labels import VOID
from rsepm_edu.viz.explorers.explorer import EXTRA, MISSED, RIGHT, Explorer, View, enlarge, outline
from rsepm_edu.viz.panels import Array, Picture, judge, overlay, picture, verdict

COLOURS = (RIGHT, EXTRA, MISSED)


class Recursion(Protocol):
    """The state of P pictures after each of T epochs, such as a `Film` of `rsepm_edu.course.film`.

    epochs: T names or numbers. tags: P×K in {0, 1}. cam: T×P×K×h×w, rs_map: T×P×K×S×S in [0, 1]. pseudo_mask:
    T×P×S×S int64. probabilities: T×P×(K+1)×S×S, background first, absent classes zero.
    """

    @property
    def epochs(self) -> Sequence[int]: ...
    @property
    def tags(self) -> Tensor: ...
    @property
    def cam(self) -> Tensor: ...
    @property
    def rs_map(self) -> Tensor: ...
    @property
    def pseudo_mask(self) -> Tensor: ...
    @property
    def probabilities(self) -> Tensor: ...


def recurseed_explorer(
    images: Sequence[Array],
    film: Recursion,
    names: Sequence[str],
    truths: Sequence[Array],
    *,
    epoch: int | None = None,
) -> "RecurSeedExplorer":
    """Explore how the maps, the targets and the decoder of a few pictures change from epoch to epoch.

    Args:
        images: P pictures, uint8 3xHxW, all of one size.
        film: their states.
        names: the K class names.
        truths: P masks HxW (0 background, k + 1 for class k, 255 void); they outline the animal and judge the decoder.
        epoch: where the slider starts, one of the film's; default: the first.

    Raises:
        ValueError: pictures, masks, names and film do not go together, or an epoch that the film does not hold.
    """
    return RecurSeedExplorer(images, film, names, truths, epoch=epoch)


class RecurSeedExplorer(Explorer):
    """What `recurseed_explorer` returns. Controls: `choice` (Dropdown of animals), `epoch` (SelectionSlider)."""

    on_pages = {"epoch": None}

    def __init__(
        self,
        images: Sequence[Array],
        film: Recursion,
        names: Sequence[str],
        truths: Sequence[Array],
        *,
        epoch: int | None = None,
    ) -> None:
        count, classes = film.tags.shape
        if not len(images) == len(truths) == count or len(names) != classes:
            raise ValueError(
                f"expected {count} images, {count} truths and {classes} names, "
                f"got {len(images)}, {len(truths)} and {len(names)}"
            )
        self._images = [picture(image) for image in images]
        self._truths = [np.asarray(truth) for truth in truths]
        sizes = {image.shape[:2] for image in self._images} | {truth.shape for truth in self._truths}
        if len(sizes) != 1:
            raise ValueError(f"expected images and truths of one size, got {sorted(sizes)}")
        if epoch is not None and epoch not in film.epochs:
            raise ValueError(f"epoch: expected one of {tuple(film.epochs)}, got {epoch}")
        self._film = film
        offered = [(f"{p + 1}: {names[k]}", (p, k)) for p, k in film.tags.nonzero().tolist()]
        self.choice = ipywidgets.Dropdown(options=offered, description="animal")
        options = [(str(number), index) for index, number in enumerate(film.epochs)]
        start = 0 if epoch is None else list(film.epochs).index(epoch)
        self.epoch = ipywidgets.SelectionSlider(options=options, value=start, description="epoch")
        super().__init__([self.choice, self.epoch])

    def __repr__(self) -> str:
        return f"RecurSeedExplorer({self.choice.label}, epoch {self._film.epochs[self.epoch.value]})"

    def render(self) -> View:
        (p, k), t = self.choice.value, int(self.epoch.value)
        image, truth, film = self._images[p], self._truths[p], self._film
        size = (truth.shape[0], truth.shape[1])
        pseudo = F.interpolate(film.pseudo_mask[t, p][None, None].float(), size=size)[0, 0].long().numpy()  # nearest
        maps = [
            F.interpolate(maps[t, p, k][None, None], size=size, mode="bilinear")[0, 0]
            for maps in (film.cam, film.rs_map)
        ]
        probabilities = F.interpolate(film.probabilities[t, p][None], size=size, mode="bilinear")[0]
        mask = (probabilities.argmax(dim=0) == k + 1).numpy()
        tiles = [overlay(image, values, opacity=0.75) for values in maps]
        tiles += [overlay(image, pseudo, opacity=0.75), verdict(image, mask, truth, k + 1)]

        counted = truth != VOID
        labelled = counted & (pseudo != VOID)
        right = (labelled & (pseudo == truth)).sum() / max(1, labelled.sum())
        captions = [
            f"epoch {film.epochs[t]}: CAM",
            "its target: M_rs",
            f"pseudo mask: {labelled.sum() / counted.sum():.0%} labelled, {right:.0%} right",
            "decoder, arg-max",
        ]
        parts = [int(part.sum()) for part in judge(mask, truth, k + 1)]
        union = max(1, sum(parts))
        texts = ("IoU {:.2f}", "FP {:.2f}", "FN {:.2f}")
        legend = [(text.format(n / union), colour) for text, n, colour in zip(texts, parts, COLOURS, strict=True)]
        return View([self._tile(tile, truth == k + 1) for tile in tiles], captions, legend)

    def _tile(self, shown: Picture, animal: Array) -> Picture:
        """Enlarged, with the animal's true outline in grey."""
        tile = enlarge(shown)
        tile[outline(enlarge(np.asarray(animal)))] = 200
        return tile
