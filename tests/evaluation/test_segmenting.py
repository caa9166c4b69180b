from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.data.transforms import normalise
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import segmenting
from rsepm_edu.evaluation.inference import multi_scale_maps, predict_labels
from rsepm_edu.evaluation.scoring import seed_maps
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.evaluation.segmenting import (
    Recipe,
    best_recipe,
    decide_in_bands,
    look,
    score_recipes,
    segment_picture,
)
from rsepm_edu.evaluation.thresholds import labels_at
from rsepm_edu.models.network import SingleStageNetwork, build_network
from rsepm_edu.models.segmenters import build_segmenter

CLASSES = ("cat", "dog", "owl")
TAGS = torch.tensor([1.0, 0.0, 1.0])


@pytest.fixture
def network() -> SingleStageNetwork:
    torch.manual_seed(0)
    made = build_network("creatures", CLASSES, decoder_channels=8, decoder_rates=(1, 2))
    with torch.no_grad():  # so that maps differ from place to place
        made.classifier.weight.mul_(50)
    return made.eval()


@pytest.fixture
def image() -> Tensor:
    return torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("pamr", [False, True])
@pytest.mark.parametrize("name", ["cam", "decoder"])
def test_a_map_is_cut_as_seeds_are_scored(network: SingleStageNetwork, image: Tensor, name: str, pamr: bool) -> None:
    seeds, _ = seed_maps(network, normalise(image[None]), TAGS[None], SeedOptions((1.0, 0.5), pamr_stride=2))
    expected = labels_at(seeds[f"{name}+pamr" if pamr else name], 0.3)[0]
    labels = segment_picture(network, image, Recipe(name, pamr, threshold=0.3), TAGS, scales=(1.0, 0.5), pamr_stride=2)
    assert labels.dtype == torch.uint8 and set(labels.unique().tolist()) <= {0, 1, 3}
    assert (labels == expected).float().mean() > 0.999 and labels.any()


def test_argmax_is_the_decoders_own_segmentation(network: SingleStageNetwork, image: Tensor) -> None:
    maps = multi_scale_maps(network, image[None], scales=(1.0,))
    assert torch.equal(segment_picture(network, image, Recipe("argmax"), scales=(1.0,)), predict_labels(maps)[0].byte())
    given = segment_picture(network, image, Recipe("argmax"), TAGS, scales=(1.0,))
    assert torch.equal(given, predict_labels(maps, TAGS[None])[0].byte())


def test_a_picture_without_classes_is_background(network: SingleStageNetwork, image: Tensor) -> None:
    labels = segment_picture(network, image, Recipe("cam", threshold=0.1), torch.zeros(3), scales=(1.0,))
    assert labels.shape == (48, 64) and not labels.any()


@pytest.mark.parametrize("size", [(100, 37), (600, 9), (48, 64), (31, 20)])
def test_labels_in_bands_are_those_of_the_whole(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(segmenting, "BAND", 13)
    heights = []

    def decide(part: Tensor) -> Tensor:
        heights.append(part.shape[2])
        return part.argmax(dim=1)

    whole = F.interpolate(scores, size, mode="bilinear", align_corners=False).argmax(dim=1)
    labels = decide_in_bands(scores, size, decide)
    assert labels.shape == whole.shape and (labels == whole).float().mean() > 0.999
    assert size == (48, 64) or max(heights) <= 13


@pytest.mark.parametrize(
    "recipe",
    [Recipe("cam", True, threshold=0.2), Recipe("decoder", crf=True, threshold=0.3), Recipe("argmax", crf=True)],
)
def test_a_large_picture_is_seen_small_and_labelled_large(
    network: SingleStageNetwork, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = torch.randint(0, 256, (3, 60, 200), dtype=torch.uint8)
    seen: list[tuple[int, ...]] = []
    original: Callable[..., object] = network.forward

    def forward(images: Tensor, **options: bool) -> object:
        seen.append(tuple(images.shape[2:]))
        return original(images, **options)

    monkeypatch.setattr(network, "forward", forward)
    labels = segment_picture(network, image, recipe, TAGS, scales=(1.0,), longest=64)
    assert labels.shape == (60, 200) and seen == [(20, 64)]  # 19 rows, to a multiple of the stride
    assert set(labels.unique().tolist()) <= {0, 1, 3}


def test_a_segmenter_sees_any_class_or_those_given(image: Tensor) -> None:
    torch.manual_seed(0)
    segmenter = build_segmenter("deeplabv2", "creatures", CLASSES, rates=(1, 2)).eval()
    seen = look(segmenter, image, scales=(1.0,))
    assert seen.cam is None and seen.labels.tolist() == [1, 2, 3]
    labels = segment_picture(segmenter, image, Recipe("argmax"), torch.tensor([0.0, 1.0, 0.0]), scales=(1.0,))
    assert set(labels.unique().tolist()) <= {0, 2}


def test_the_map_whose_colours_tell_most_is_chosen(image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A red square on blue: the decoder has it, the cam has something else."""
    painted = torch.zeros(3, 40, 40, dtype=torch.uint8)
    painted[2] = 200
    painted[0, 5:25, 5:25], painted[2, 5:25, 5:25] = 200, 0
    square = (painted[0] > 0).float()[None, None] * 0.7
    other = torch.zeros(1, 1, 40, 40)
    other[..., :20] = 0.9
    seen = segmenting.Seen(painted[None], torch.tensor([2]), other, torch.cat([1 - square, square], dim=1))
    monkeypatch.setattr(segmenting, "look", lambda *_, **__: seen)

    def chosen(*maps: str) -> Recipe:
        scored = score_recipes(None, [(painted, None)], maps=maps, pamrs=(False,))  # type: ignore[arg-type]
        assert [recipe.map for recipe, _ in scored] == list(maps)
        return best_recipe(scored, crf=True)

    recipe = chosen("cam", "decoder")
    assert recipe.map == "decoder" and recipe.crf and recipe.threshold is not None and recipe.threshold < 0.7
    assert chosen("cam").map == "cam"
    assert chosen("argmax", "cam") == Recipe("argmax", crf=True)


@pytest.mark.parametrize(
    "wrong", [("seed", False, False, 0.3), ("cam", False, False, None), ("cam", False, False, 1.0), ("argmax", True)]
)
def test_a_recipe_that_makes_no_sense_is_refused(wrong: tuple[object, ...]) -> None:
    with pytest.raises(UserError, match="expected"):
        Recipe(*wrong)  # type: ignore[arg-type]


def test_a_recipe_says_what_it_is() -> None:
    assert str(Recipe("cam", True, True, 0.45)) == "cam + PAMR at θ 0.45 + CRF"
    assert str(Recipe("argmax")) == "decoder (arg-max)"
