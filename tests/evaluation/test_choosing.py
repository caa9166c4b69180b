import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import scoring
from rsepm_edu.evaluation.choosing import CRITERIA, choose_thresholds, rank_checkpoints, thresholds_of
from rsepm_edu.evaluation.maskfree import ColourInformation
from rsepm_edu.evaluation.scoring import DECODER_SEEDS, SEEDS, score_seeds
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.evaluation.thresholds import THRESHOLDS
from rsepm_edu.models.network import SingleStageNetwork, build_network

FAST = SeedOptions(scales=(1.0,), mirror=False, pamr_stride=4)


@pytest.fixture(scope="module")
def network() -> SingleStageNetwork:
    torch.manual_seed(0)
    classes = ("zebbo", "dotkin", "ringlo", "plusmo", "tramlo")
    return build_network("creatures", classes, decoder_channels=8, decoder_rates=(1,), separable=True).eval()


@pytest.fixture(scope="module")
def maskless(creatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small Creatures set without a single mask."""
    root = tmp_path_factory.mktemp("maskless") / "set"
    shutil.copytree(creatures, root, ignore=shutil.ignore_patterns("SegmentationClass", "SegmentationObject"))
    assert not list(root.rglob("*.png"))
    return root


def test_no_mask_is_read(
    network: SingleStageNetwork, creatures: Path, maskless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = choose_thresholds(network, VocDataset(maskless, "val"), FAST, criteria=tuple(CRITERIA), progress=False)
    assert {criterion: set(seeds) for criterion, seeds in without.items()} == dict.fromkeys(
        CRITERIA, {*SEEDS, *DECODER_SEEDS}
    )

    def refuse(*_: object) -> None:
        raise AssertionError("a mask was read")

    # Where there are masks, and the data set is opened with them, they stay closed, and the choice is the same.
    monkeypatch.setattr(VocDataset, "read_mask", refuse)
    opened = choose_thresholds(
        network, VocDataset(creatures, "val", masks=True), FAST, criteria=tuple(CRITERIA), progress=False
    )
    for criterion, seeds in without.items():
        for name, seen in seeds.items():
            assert torch.equal(seen.curve, opened[criterion][name].curve)


def test_pictures_are_spread_over_the_split(
    network: SingleStageNetwork, maskless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    sample = VocDataset.sample

    def note(self: VocDataset, index: int, *, masks: bool) -> object:
        seen.append(index)
        return sample(self, index, masks=masks)

    monkeypatch.setattr(VocDataset, "sample", note)
    dataset = VocDataset(maskless, "train")
    assert len(dataset) == 8
    options = replace(FAST, decode=False)
    choose_thresholds(network, dataset, options, criteria=("otsu",), pictures=3, progress=False)
    assert seen == [0, 2, 5]
    seen.clear()
    choose_thresholds(network, dataset, options, criteria=("otsu",), pictures=100, progress=False)
    assert seen == list(range(8))


def test_rows_hold_the_oracle_and_the_choices_at_their_own_thresholds(
    network: SingleStageNetwork, creatures: Path
) -> None:
    dataset = VocDataset(creatures, "val", masks=True)
    chosen = choose_thresholds(network, dataset, FAST, criteria=("colour", "otsu"), progress=False)
    scored = score_seeds(network, dataset, FAST, progress=False)
    rows = scored.rows(seed=0, chosen=thresholds_of(chosen))
    assert [(row.method, row.choice) for row in rows[:4]] == [
        *(("cam", "oracle"), ("cam", "colour"), ("cam", "otsu"), ("cam+pamr", "oracle"))
    ]
    assert (rows[-1].choice, rows[-1].threshold) == ("none", None)
    for row in rows[:-1]:
        assert row.oracle == (row.choice == "oracle")
        if not row.oracle:
            assert row.threshold == chosen[row.choice][row.method].best()[0]
        assert row.threshold is not None
        assert row.miou == 100 * scored.sweeps[row.method].at(row.threshold, dataset.classes).miou
    assert [row for row in scored.rows(seed=0)] == [row for row in rows if row.choice in ("oracle", "none")]


def test_stability_sees_a_mirrored_and_larger_view_turned_back(
    network: SingleStageNetwork, maskless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A network without prejudice gives the same maps for both views, mirrored: kappa is 1 where it is not trivial.
    def left_half(_: object, images: torch.Tensor, tags: torch.Tensor, options: SeedOptions) -> object:
        views.append((options.scales, options.mirror))
        bright = images.mean(dim=1, keepdim=True)
        low, high = bright.amin(), bright.amax()
        return {"cam": ((bright - low) / (high - low)).expand(-1, tags.shape[1], -1, -1)}, None

    views: list[object] = []
    monkeypatch.setattr("rsepm_edu.evaluation.choosing.seed_maps", left_half)
    chosen = choose_thresholds(network, VocDataset(maskless, "val"), FAST, criteria=("stability",), progress=False)
    assert chosen["stability"]["cam"].curve.max() == pytest.approx(1, abs=1e-9)
    assert views[:3] == [((1.0,), False), ((1.0,), False), ((1.5,), False)]


def test_ranking_is_by_the_mean_over_common_seeds() -> None:
    def with_curve(*values: float) -> ColourInformation:
        criterion = ColourInformation((0.1, 0.2))
        criterion._add(torch.tensor([values]))
        return criterion

    early = {"cam": with_curve(0.1, 0.4), "cam+pamr": with_curve(0.2, 0.0)}
    late = {"cam": with_curve(0.3, 0.0), "cam+pamr": with_curve(0.1, 0.5), "decoder": with_curve(0.0, 0.0)}
    assert rank_checkpoints({"early": early, "late": late}) == [
        ("late", pytest.approx(0.4)),
        ("early", pytest.approx(0.3)),
    ]
    with pytest.raises(ValueError, match="checkpoints with seeds in common"):
        rank_checkpoints({})
    with pytest.raises(ValueError, match="checkpoints with seeds in common"):
        rank_checkpoints({"early": {"cam": early["cam"]}, "late": {"decoder": late["decoder"]}})


def test_what_is_rejected(network: SingleStageNetwork, maskless: Path) -> None:
    dataset = VocDataset(maskless, "val")
    with pytest.raises(UserError, match="criteria: expected some of colour, stability, classifier, otsu, got dice"):
        choose_thresholds(network, dataset, FAST, criteria=("colour", "dice"), progress=False)
    with pytest.raises(ValueError, match="pictures: expected at least 1, got 0"):
        choose_thresholds(network, dataset, FAST, pictures=0, progress=False)


def test_thresholds_come_from_the_sweep() -> None:
    # so that scores at every choice can be read off the same sweep
    assert all(set(kind().thresholds) <= set(THRESHOLDS) for kind in CRITERIA.values())
    assert scoring.ThresholdSweep(1).thresholds == THRESHOLDS
