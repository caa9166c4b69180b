from dataclasses import replace
from math import exp, log
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from rsepm_edu.labels import VOID
from rsepm_edu.methods import edgepredictmix
from rsepm_edu.methods.mixing import Mixed
from rsepm_edu.methods.puzzle import puzzle_loss
from rsepm_edu.methods.recurseed import Refined, cam_loss, class_shares, decoder_loss, hold_seed, recur_seed
from rsepm_edu.models.network import Outputs
from rsepm_edu.training.config import Mixing, TrainConfig
from rsepm_edu.training.losses import (
    MIXERS,
    Phase,
    mix,
    mixed_losses,
    phase_of,
    plain_losses,
    puzzle_losses,
    refine,
    tag_loss,
)

TAGS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


@pytest.fixture
def outputs() -> Outputs:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    stages = (draw(2, 8, 8, 8), draw(2, 8, 4, 4), draw(2, 8, 4, 4), draw(2, 8, 4, 4))
    return Outputs(draw(2, 3), draw(2, 3, 4, 4), draw(2, 4, 8, 8), stages)


def test_phases_begin_at_their_epochs(tiny: TrainConfig) -> None:
    config = replace(tiny, seed_start=2, mix_start=4)
    names = {
        method: [phase_of(replace(config, method=method), epoch).name for epoch in range(6)]
        for method in ("cam", "puzzle", "rs", "rs+epm")
    }
    assert names == {
        "cam": ["cam"] * 6,
        "puzzle": ["puzzle"] * 6,
        "rs": ["cam"] * 2 + ["rs"] * 4,
        "rs+epm": ["cam"] * 2 + ["rs"] * 2 + ["rs+epm"] * 2,
    }


@pytest.mark.parametrize("mixing", get_args(Mixing))
def test_a_phase_names_its_mixing_once_it_mixes(tiny: TrainConfig, mixing: Mixing) -> None:
    name = {"edgepredictmix": "rs+epm"}.get(mixing, f"rs+{mixing}")
    for method, wanted in (("rs+epm", ["cam", "rs", name, name]), ("rs", ["cam", "rs", "rs", "rs"])):
        config = replace(tiny, method=method, mixing=mixing)
        assert [phase_of(config, epoch).name for epoch in range(4)] == wanted
    assert phase_of(config, 1) == phase_of(replace(tiny, mixing="cutmix"), 1), "the same until mixing begins"


def test_there_is_no_mixing_before_there_are_seeds(tiny: TrainConfig) -> None:
    config = replace(tiny, seed_start=3, mix_start=1)
    assert [phase_of(config, epoch) for epoch in (1, 2, 3)] == [
        Phase(False, False),
        Phase(False, False),
        Phase(True, True),
    ]


def test_tag_loss_is_the_mean_binary_cross_entropy() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64)
    tags = (torch.rand(4, 3) < 0.5).double()
    total = 0.0
    for logit, tag in zip(logits.flatten().tolist(), tags.flatten().tolist(), strict=True):
        probability = 1 / (1 + exp(-logit))
        total -= tag * log(probability) + (1 - tag) * log(1 - probability)
    assert float(tag_loss(logits, tags)) == pytest.approx(total / 12, rel=1e-6)


def test_tag_loss_of_a_fraction_is_least_at_that_probability() -> None:
    logits = torch.linspace(-3, 3, 601)[:, None]
    tags = torch.full((1, 1), 0.3)
    values = torch.stack([tag_loss(logit[None], tags) for logit in logits])
    probability = float(logits[int(values.argmin())].sigmoid())
    assert probability == pytest.approx(0.3, abs=0.002)
    assert float(values[300]) == pytest.approx(log(2))


def test_tag_loss_of_low_precision_logits_is_computed_in_float32() -> None:
    logits = torch.tensor([[9.0, -9.0]], dtype=torch.bfloat16)
    loss = tag_loss(logits, torch.tensor([[1.0, 0.0]]))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(log(1 + exp(-9.0)), rel=1e-4)


def test_refine_takes_stages_4_and_5_and_has_no_gradient(outputs: Outputs, tiny: TrainConfig) -> None:
    images = torch.randn(2, 3, 32, 32)
    config = replace(tiny, pamr_stride=2, certain=0.6, uncertain=0.2, scg_threshold=0.7)
    refined = refine(config, images, outputs, TAGS)
    filtered: dict[str, Any] = {"certain": 0.6, "uncertain": 0.2, "first_threshold": 0.7}
    wanted = recur_seed(images, outputs.stages[2:], outputs.cam, TAGS, size=(16, 16), **filtered)
    for got, want in zip(refined, wanted, strict=True):
        assert torch.equal(got, want) and not got.requires_grad
    assert refined.pseudo_mask.shape == (2, 16, 16)


def test_mix_cuts_along_the_prediction_of_present_classes(
    outputs: Outputs, tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, Tensor, dict[str, float]]] = []
    original = edgepredictmix.edge_predict

    def spy(probabilities: Tensor, tags: Tensor, **settings: float) -> Tensor:
        seen.append((probabilities, tags, settings))
        return original(probabilities, tags, **settings)

    monkeypatch.setattr(edgepredictmix, "edge_predict", spy)
    images = torch.randn(2, 3, 32, 32)
    assert outputs.seg_logits is not None
    logits = outputs.seg_logits * 3
    mixed = mix(tiny, images, TAGS, logits, generator=torch.Generator().manual_seed(0))
    [(probabilities, tags, settings)] = seen
    assert settings == {"certain": tiny.certain, "uncertain": tiny.uncertain}
    assert torch.equal(tags, TAGS)
    assert probabilities.shape == (2, 4, 32, 32)
    assert float(probabilities[0, 2].max()) == 0 and float(probabilities[1, [1, 3]].max()) == 0
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, 32, 32))
    ratio = logits[1, 2].sub(logits[1, 0]).exp()  # background and class 2 alone share picture 1
    wanted = torch.nn.functional.interpolate((ratio / (1 + ratio))[None, None], size=(32, 32), mode="bilinear")
    torch.testing.assert_close(probabilities[1, 2], wanted[0, 0])

    assert mixed.images.shape == images.shape and not mixed.pseudo_masks.requires_grad
    for y in range(0, 32, 5):  # two pictures: each is the other's partner
        for x in range(0, 32, 5):
            pixel = mixed.images[0, :, y, x]
            assert torch.equal(pixel, images[0, :, y, x]) or torch.equal(pixel, images[1, :, y, x])
    again = mix(tiny, images, TAGS, logits, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(mixed, again, strict=True))


def probabilities_of(seg_logits: Tensor, tags: Tensor) -> Tensor:
    """What `mix` hands on, by a loop over pictures and the soft-max over their own classes alone."""
    result = torch.zeros(2, 4, 32, 32)
    for b in range(2):
        labels = [0, *(k + 1 for k in range(3) if tags[b, k])]
        soft = seg_logits[b, labels].softmax(dim=0)
        result[b, labels] = torch.nn.functional.interpolate(soft[None], size=(32, 32), mode="bilinear")[0]
    return result.detach()


def test_edgepredictmix_is_what_it_was_before_there_were_others(outputs: Outputs, tiny: TrainConfig) -> None:
    """Bit for bit the masks of edge_predict, mixed by edge_predict_mix."""
    assert outputs.seg_logits is not None and tiny.mixing == "edgepredictmix"
    images, logits = torch.randn(2, 3, 32, 32), outputs.seg_logits * 3
    probabilities = probabilities_of(logits, TAGS)
    masks = edgepredictmix.edge_predict(probabilities, TAGS, certain=tiny.certain, uncertain=tiny.uncertain)
    generator = torch.Generator().manual_seed(5)
    wanted = edgepredictmix.edge_predict_mix(images, TAGS, masks, generator=generator)
    mixed = mix(tiny, images, TAGS, logits, generator=torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(mixed, wanted, strict=True))
    assert len(wanted.pseudo_masks.unique()) > 2


@pytest.mark.parametrize("mixing", get_args(Mixing))
def test_every_mixing_of_the_settings_is_there_and_gets_the_thresholds(
    outputs: Outputs, tiny: TrainConfig, mixing: Mixing
) -> None:
    assert MIXERS.keys() == set(get_args(Mixing))
    assert outputs.seg_logits is not None
    images, logits = torch.randn(2, 3, 32, 32), outputs.seg_logits * 3
    config = replace(tiny, mixing=mixing, certain=0.8, uncertain=0.3)
    mixed = mix(config, images, TAGS, logits, generator=torch.Generator().manual_seed(1))
    thresholds = {} if mixing == "classmix" else {"certain": 0.8, "uncertain": 0.3}
    generator = torch.Generator().manual_seed(1)
    wanted = MIXERS[mixing](images, TAGS, probabilities_of(logits, TAGS), generator=generator, **thresholds)
    for result, other in zip(mixed, wanted, strict=True):
        assert torch.equal(result, other) and not result.requires_grad


def test_plain_losses_are_weighted(outputs: Outputs, tiny: TrainConfig) -> None:
    config = replace(tiny, cam_weight=2.0, decoder_weight=3.0)
    assert plain_losses(config, outputs, TAGS, None).keys() == {"tags"}
    refined = Refined(torch.rand(2, 3, 4, 4), torch.rand(2, 3, 8, 8), torch.randint(0, 4, (2, 8, 8)))
    terms = plain_losses(config, outputs, TAGS, refined)
    assert terms.keys() == {"tags", "cam", "decoder"}
    assert outputs.seg_logits is not None
    torch.testing.assert_close(terms["tags"], tag_loss(outputs.tag_logits, TAGS))
    target, known = hold_seed(refined.seed, refined.pseudo_mask)
    torch.testing.assert_close(terms["cam"], 2 * cam_loss(outputs.cam, target, TAGS, known))
    torch.testing.assert_close(terms["decoder"], 3 * decoder_loss(outputs.seg_logits, refined.pseudo_mask))


def test_mixed_losses_are_weighted_and_void_counts_for_nothing(outputs: Outputs, tiny: TrainConfig) -> None:
    config = replace(tiny, mix_tag_weight=2.0, mix_cam_weight=3.0, mix_decoder_weight=5.0)
    masks = torch.randint(0, 4, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    masks[:, :7] = VOID
    terms = mixed_losses(config, outputs, Mixed(torch.zeros(2, 3, 16, 16), TAGS, masks))
    assert terms.keys() == {"mix_tags", "mix_cam", "mix_decoder"}
    assert outputs.seg_logits is not None
    torch.testing.assert_close(terms["mix_tags"], 2 * tag_loss(outputs.tag_logits, TAGS))
    torch.testing.assert_close(terms["mix_decoder"], 5 * decoder_loss(outputs.seg_logits, masks))

    cam = outputs.cam.detach()
    shares, known = class_shares(masks, 3, (4, 4))
    total, count = 0.0, 0.0
    for b in range(2):
        for k in range(3):
            top = max(0.0, float(cam[b, k].max()))
            for y in range(4):
                for x in range(4):
                    weight = float(TAGS[b, k] * known[b, 0, y, x])
                    seed = max(0.0, float(cam[b, k, y, x])) / (top + 1e-5)
                    total += weight * abs(seed - float(shares[b, k, y, x]))
                    count += weight
    assert float(terms["mix_cam"].detach()) == pytest.approx(3 * total / count, rel=1e-5)


@pytest.mark.parametrize("kind", ["plain", "mixed"])
def test_every_term_pulls_on_the_network(outputs: Outputs, tiny: TrainConfig, kind: str) -> None:
    if kind == "plain":
        refined = Refined(torch.rand(2, 3, 4, 4), torch.rand(2, 3, 8, 8), torch.randint(0, 4, (2, 8, 8)))
        terms = plain_losses(tiny, outputs, TAGS, refined)
    else:
        terms = mixed_losses(tiny, outputs, Mixed(torch.zeros(2, 3, 8, 8), TAGS, torch.randint(0, 4, (2, 8, 8))))
    sources = (outputs.tag_logits, outputs.cam, outputs.seg_logits)
    for term, source in zip(terms.values(), sources, strict=True):
        assert source is not None
        [gradient] = torch.autograd.grad(term, source)
        assert float(gradient.abs().sum()) > 0


def test_fractions_of_tags_weigh_the_cam_loss_of_their_class(outputs: Outputs, tiny: TrainConfig) -> None:
    tags = torch.tensor([[0.25, 0.0, 1.0], [0.0, 0.5, 0.0]])
    masks = torch.randint(0, 4, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    terms = mixed_losses(tiny, outputs, Mixed(torch.zeros(2, 3, 16, 16), tags, masks))
    shares, _ = class_shares(masks, 3, (4, 4))
    total = 0.0
    for b in range(2):
        for k in range(3):
            seed = outputs.cam[b, k].detach().relu() / (outputs.cam[b, k].detach().relu().max() + 1e-5)
            total += float(tags[b, k]) * float((seed - shares[b, k]).abs().sum())
    assert float(terms["mix_cam"].detach()) == pytest.approx(total / (16 * 1.75), rel=1e-5)
    torch.testing.assert_close(terms["mix_tags"], tag_loss(outputs.tag_logits, tags))


def test_puzzle_losses_classify_both_maps_and_pull_them_together(outputs: Outputs) -> None:
    merged = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    terms = puzzle_losses(outputs, merged, TAGS, alpha=2.5)
    assert terms.keys() == {"tags", "puzzle_tags", "puzzle"}
    torch.testing.assert_close(terms["tags"], tag_loss(outputs.tag_logits, TAGS))
    means = torch.tensor([[float(plane.detach().sum()) / 16 for plane in picture] for picture in merged])
    torch.testing.assert_close(terms["puzzle_tags"].detach(), tag_loss(means, TAGS))
    torch.testing.assert_close(terms["puzzle"], 2.5 * puzzle_loss(outputs.cam, merged, TAGS))
    for term, sources in zip(terms.values(), ([outputs.tag_logits], [merged], [outputs.cam, merged]), strict=True):
        assert all(gradient.any() for gradient in torch.autograd.grad(term, sources, retain_graph=True))
