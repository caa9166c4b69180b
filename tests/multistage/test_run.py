import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rsepm_edu.data.seeds import MAX_BYTES
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.multistage import run as run_module
from rsepm_edu.multistage.config import MultistageConfig, StageConfig
from rsepm_edu.multistage.judging import high_threshold, seed_information
from rsepm_edu.multistage.run import Multistage, run_multistage
from rsepm_edu.multistage.segmentation import SegmentationConfig, load_segmenter
from rsepm_edu.multistage.stored import choose_stored_threshold
from rsepm_edu.multistage.walk import WalkConfig
from rsepm_edu.training.checkpoint import Checkpoint, load_checkpoint, load_network
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.loop import train


@pytest.fixture(scope="module")
def single(tiny: TrainConfig, creatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single-stage network of three epochs, classification, RS, and RS + EPM."""
    out = tmp_path_factory.mktemp("single")
    train(replace(tiny, epochs=3), creatures, out, device="cpu", progress=False)
    return out / "last.pt"


@pytest.fixture(scope="module")
def settings() -> MultistageConfig:
    """One epoch of two steps for each network, few scales, short walks."""
    common: Any = {"backbone": "creatures", "weights": "none", "batch_size": 4, "size": 32, "workers": 0, "epochs": 1}
    return MultistageConfig(
        StageConfig(
            split="train",
            scales=(1.0,),
            seed_stride=1,
            foreground=0.3,
            background=0.05,
            walk_steps=4,
            walk_radius=3,
            walk_scaled=False,
            skip=False,
            threshold=0.25,
            final_scales=(1.0,),
        ),
        WalkConfig(radius=3, **common),
        SegmentationConfig(channels=16, rates=(1, 2), separable=True, **common),
    )


@pytest.fixture(scope="module")
def blind(creatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set without its masks: nothing but the scoring may miss them."""
    root = shutil.copytree(creatures, tmp_path_factory.mktemp("blind") / "set")
    shutil.rmtree(root / "SegmentationClass")
    return root


@pytest.fixture(scope="module")
def finished(single: Path, blind: Path, settings: MultistageConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run; copy it before changing it."""
    out = tmp_path_factory.mktemp("multistage")
    run = Multistage(single, blind, out, settings, device="cpu", progress=False)
    assert run_multistage(run, score=None, evaluate=None) == []
    run.predictions("val", crf=True)
    return out


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def change(config: MultistageConfig, **stages: Any) -> MultistageConfig:
    return replace(config, stages=replace(config.stages, **stages))


def error_of(call: Any) -> str:
    with pytest.raises(UserError) as info:
        call()
    assert "\n" not in str(info.value)
    return str(info.value)


# a run


def test_a_run_leaves_a_folder_for_each_stage(finished: Path, creatures: Path) -> None:
    names = VocDataset(creatures, "train").names
    there = {path.name: {entry.name for entry in path.iterdir()} for path in finished.iterdir()}
    network = {"stage.json", "config.json", "log.jsonl", "last.pt"}
    assert there == {
        "1_seeds": {"stage.json", *(f"{name}.npz" for name in names)},
        "2_labels": {"stage.json", *(f"{name}.png" for name in names)},
        "3_walk_boundary": network,
        "4_walked_boundary": {"stage.json", *(f"{name}.npz" for name in names)},
        "5_masks_boundary_0.25_crf": {"stage.json", *(f"{name}.png" for name in names)},
        "6_deeplabv3+_boundary_0.25_crf": network | {"val_crf"},
    }
    pictures = [path for path in finished.rglob("*") if path.suffix in (".npz", ".png")]
    assert all(path.stat().st_size <= MAX_BYTES for path in pictures)
    record = json.loads((finished / "5_masks_boundary_0.25_crf" / "stage.json").read_text())
    assert list(record) == ["seeds", "labels", "walk", "walked", "masks"]


def test_a_finished_run_does_nothing_again(
    single: Path,
    blind: Path,
    settings: MultistageConfig,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    run = Multistage(single, blind, out, settings, device="cpu", progress=False)

    def must_not_run(*args: Any, **settings: Any) -> Any:
        raise AssertionError("made again")

    monkeypatch.setattr(run.network, "forward", must_not_run)
    for name in ("refine_labels", "refine_probabilities"):
        monkeypatch.setattr(run_module, name, must_not_run)
    run_multistage(run, score=None, evaluate=None)
    run.predictions("val", crf=True)
    assert files(out) == files(finished)


@pytest.mark.parametrize("stage", ["1_seeds", "2_labels", "3_", "4_", "5_", "6_"])
def test_a_run_stopped_in_any_stage_goes_on_to_the_same_files(
    stage: str, single: Path, blind: Path, settings: MultistageConfig, finished: Path, tmp_path: Path
) -> None:
    """All after the stage is missing and half of its own files; a half-written file lies beside them."""
    out = shutil.copytree(finished, tmp_path / "out")
    for folder in sorted(out.iterdir()):
        if folder.name > stage and not folder.name.startswith(stage):
            shutil.rmtree(folder)
    (folder,) = out.glob(f"{stage}*")
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".npz", ".png", ".pt"))[::2]:
        path.unlink()
    (folder / ".picture.0badcafe.part.npz").write_bytes(b"half")
    run = Multistage(single, blind, out, settings, device="cpu", progress=False)
    run_multistage(run, score=None, evaluate=None)
    run.predictions("val", crf=True)
    assert not (folder / ".picture.0badcafe.part.npz").exists()
    before, after = files(finished), files(out)
    assert before.keys() == after.keys()
    same = [name for name in before if not name.endswith((".pt", "log.jsonl"))]  # these hold names and seconds
    assert [name for name in same if before[name] != after[name]] == []
    (last,) = (path.name for path in finished.glob("6_*"))
    states = [load_segmenter(folder / last / "last.pt").state_dict() for folder in (finished, out)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_without_walk_and_crf_the_seeds_are_the_masks(
    single: Path, blind: Path, settings: MultistageConfig, tmp_path: Path
) -> None:
    config = change(settings, walk="none", crf=False, seed_map="cam", threshold=0.5)
    config = replace(config, segmentation=replace(config.segmentation, head="deeplabv2"))
    run = Multistage(single, blind, tmp_path, config, device="cpu", progress=False)
    run_multistage(run, score=None, evaluate=None)
    assert {path.name for path in tmp_path.iterdir()} == {"1_seeds", "5_masks_none_0.5", "6_deeplabv2_none_0.5"}


def other(name: str, value: Any) -> Any:
    """Another value of a setting."""
    words = {
        **{"split": "val", "seed_map": "cam", "walk": "affinity", "backbone": "resnet18", "weights": "imagenet"},
        **{"head": "deeplabv2", "optimizer": "adamw", "precision": "bf16"},
    }
    match value:
        case str():
            return words[name.rpartition(".")[2]]
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value / 2 + 0.01
    return tuple(part / 2 for part in value) if name.endswith("scale") else tuple(part * 2 for part in value)


@pytest.mark.parametrize("stages", [{}, {"walk": "none"}, {"crf": False}, {"walk": "none", "crf": False}])
def test_every_setting_reaches_its_stage_unless_it_is_said_to_be_unused(
    stages: dict[str, Any],
    single: Path,
    blind: Path,
    settings: MultistageConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint, network = load_checkpoint(single), load_network(single)
    monkeypatch.setattr(Checkpoint, "build_network", lambda self: network)
    monkeypatch.setattr(run_module, "claim", lambda folder, record: folder)
    calls: list[Any] = []

    def plain(value: Any) -> Any:
        return value.keywords if isinstance(value, partial) else value.split if isinstance(value, VocDataset) else value

    def note(name: str) -> Any:
        def stage(*arguments: Any, **options: Any) -> torch.nn.Module:
            calls.append((name, [plain(a) for a in arguments], {key: plain(a) for key, a in options.items()}))
            return network

        return stage

    for name in ("seeds", "walk_labels", "walked_seeds", "pseudo_masks", "predictions"):
        monkeypatch.setattr(run_module, f"write_{name}", note(name))
    for name in ("train_walk", "train_segmenter"):
        monkeypatch.setattr(run_module, name, note(name))

    def judge(*arguments: Any, **options: Any) -> Any:
        calls.append("judged")
        return SimpleNamespace(best=lambda: (0.5, 0.1))

    monkeypatch.setattr(run_module, "seed_information", judge)
    monkeypatch.setattr(run_module, "mask_information", lambda *arguments, **options: 0.2)

    def done(config: MultistageConfig) -> list[Any]:
        calls.clear()
        run = Multistage(checkpoint, blind, tmp_path, config, device="cpu", progress=False)
        for crf in (False, True) if config.stages.crf else (False,):
            run.predictions("val", crf=crf)
        return list(calls)

    base = settings.with_settings({**stages, "segmentation.optimizer": "sgd"})
    expected = done(base)
    for name, value in base.settings().items():
        changed = base.with_settings({name: other(name, value)})
        assert changed.settings() == base.settings() | {name: other(name, value)}
        own = name.startswith("segmentation.") or name == "walk.output_stride"  # a training has all of its settings
        assert own or (done(changed) == expected) == (name in base.unused()), name
    assert "there is no walk" in base.unused().values() or base.stages.walk != "none"


def test_another_threshold_or_walk_shares_the_stages_before(
    single: Path, blind: Path, settings: MultistageConfig, finished: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    before = files(out)
    for config in (change(settings, threshold=0.4), change(settings, walk="affinity"), change(settings, crf=False)):
        _ = Multistage(single, blind, out, config, device="cpu", progress=False).masks
    assert {path.name for path in out.iterdir()} - {path.name for path in finished.iterdir()} == {
        *("5_masks_boundary_0.4_crf", "5_masks_boundary_0.25"),
        *("3_walk_affinity", "4_walked_affinity", "5_masks_affinity_0.25_crf"),
    }
    assert {name: data for name, data in files(out).items() if name in before} == before


def judged(monkeypatch: pytest.MonkeyPatch, scores: dict[str, float]) -> None:
    """Have folders judged by the first letter of their name."""

    def of_seeds(dataset: VocDataset, folder: Path, **settings: Any) -> Any:
        return SimpleNamespace(best=lambda: (0.4, scores[folder.name[0]]))

    def of_masks(dataset: VocDataset, folder: Path, **settings: Any) -> float:
        return scores[folder.name[0]]

    monkeypatch.setattr(run_module, "seed_information", of_seeds)
    monkeypatch.setattr(run_module, "mask_information", of_masks)
    monkeypatch.setattr(run_module, "segmenter_information", lambda *arguments, **settings: scores["6"])


@pytest.mark.parametrize(
    ("scores", "masks", "told"),
    [
        ({"1": 0.2, "4": 0.3, "5": 0.4, "6": 0.5}, "5_masks_boundary_0.25_crf", "...: better"),
        (
            {"1": 0.2, "4": 0.1, "5": 0.3, "6": 0.2},
            "5_masks_none_0.25_crf",
            "seeds: 0.2000 bits: no better, skipped: the",
        ),
        (
            {"1": 0.2, "4": 0.2, "5": 0.1, "6": 0.2},
            "5_masks_none_0.25",
            "0.2000 bits: no better, skipped: the masks with",
        ),
    ],
)
def test_a_stage_that_is_no_better_is_skipped_and_says_so(
    scores: dict[str, float],
    masks: str,
    told: str,
    single: Path,
    blind: Path,
    settings: MultistageConfig,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    judged(monkeypatch, scores)
    run = Multistage(single, blind, out, change(settings, skip=True), device="cpu", progress=False)
    run_multistage(run, score=None, evaluate=None)
    assert run.masks.name == masks and run.segmenter_folder.name == masks.replace("5_masks", "6_deeplabv3+")
    lines = (out / "stages.txt").read_text().splitlines()
    assert len(lines) == 3 and any(told.removeprefix("...") in line for line in lines)
    assert [line.endswith(": better") for line in lines] == [
        scores["4"] > scores["1"],
        scores["5"] > max(scores["1"], scores["4"] if "boundary" in masks else 0),
        scores["6"] > scores["5"],
    ]


def test_confident_labels_follow_the_seeds_own_threshold(
    single: Path, blind: Path, settings: MultistageConfig, finished: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    theta = high_threshold(seed_information(VocDataset(blind, "train"), finished / "1_seeds", progress=False))

    def thresholds(**stages: Any) -> tuple[float, float]:
        return Multistage(single, blind, out, change(settings, **stages), device="cpu", progress=False).label_thresholds

    assert thresholds() == (0.3, 0.05)
    share = min(1, theta / 0.40)
    wanted = round(theta + 0.15 * share, 3), round(theta - 0.10 * share, 3)
    assert thresholds(foreground=None, background=None) == wanted
    assert thresholds(foreground=None, margins=(0.2, 0.1)) == (round(theta + 0.2 * share, 3), 0.05)
    assert thresholds(foreground=None, background=None, margins=(0.99, 0.9))[1] == 0.0
    message = error_of(lambda: thresholds(foreground=None, background=0.99))
    assert message.startswith("background, foreground: expected background < foreground, got 0.99, ")


@pytest.mark.parametrize(
    ("theta", "labels"), [(0.02, (0.028, 0.015)), (0.20, (0.275, 0.15)), (0.40, (0.55, 0.30)), (0.90, (0.95, 0.80))]
)
def test_margins_of_a_small_threshold_are_smaller(
    theta: float,
    labels: tuple[float, float],
    single: Path,
    blind: Path,
    settings: MultistageConfig,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rsepm_edu.multistage.run.high_threshold", lambda criterion: theta)
    out = shutil.copytree(finished, tmp_path / "out")
    own = change(settings, foreground=None, background=None)
    assert Multistage(single, blind, out, own, device="cpu", progress=False).label_thresholds == labels


# what is refused


@pytest.mark.parametrize(
    ("stage", "changes", "told"),
    [
        ("1_seeds", {"scales": (1.0, 0.5)}, "seeds.scales = [1.0] as for the files there, got [1.0, 0.5] "),
        ("1_seeds", {"seed_map": "cam"}, "seeds.seed_map = 'decoder' as for the files there, got 'cam' "),
        ("2_labels", {"foreground": 0.4}, "labels.foreground = 0.3 as for the files there, got 0.4 "),
        ("4_walked_boundary", {"walk_steps": 8}, "walked.steps = 4 as for the files there, got 8 "),
    ],
)
def test_changed_settings_are_refused_before_anything_is_made(
    stage: str,
    changes: dict[str, Any],
    told: str,
    single: Path,
    blind: Path,
    settings: MultistageConfig,
    finished: Path,
    tmp_path: Path,
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    run = Multistage(single, blind, out, change(settings, **changes), device="cpu", progress=False)
    message = error_of(lambda: run_multistage(run, score=None, evaluate=None))
    wanted = f"{out / stage / 'stage.json'}: expected {told}(remove the folder, or choose another one for the run)"
    assert message == wanted
    assert files(out) == files(finished)


def test_other_settings_of_a_network_are_refused(
    single: Path, blind: Path, settings: MultistageConfig, finished: Path
) -> None:
    for part, name in (("walk", "3_walk_boundary"), ("segmentation", "6_deeplabv3+_boundary_0.25_crf")):
        config = replace(settings, **{part: replace(getattr(settings, part), learning_rate=0.5)})
        run = Multistage(single, blind, finished, config, device="cpu", progress=False)
        message = error_of(lambda run=run: run_multistage(run, score=None, evaluate=None))
        assert message.startswith(f"{finished / name / 'stage.json'}: expected {part}.learning_rate = ")


def test_another_network_or_other_pictures_are_refused(
    single: Path, blind: Path, settings: MultistageConfig, finished: Path, tmp_path: Path
) -> None:
    state = torch.load(single, weights_only=True)
    state["ema"]["classifier.weight"][0, 0] += 1e-3
    torch.save(state, tmp_path / "other.pt")
    run = Multistage(tmp_path / "other.pt", blind, finished, settings, device="cpu", progress=False)
    assert "expected seeds.network = " in error_of(lambda: run.masks)
    root = shutil.copytree(blind, tmp_path / "set")
    split = root / "ImageSets" / "Segmentation" / "train.txt"
    split.write_text("\n".join(split.read_text().split()[:-1]) + "\n")
    run = Multistage(single, root, finished, settings, device="cpu", progress=False)
    assert "expected seeds.data = 'train 8 " in error_of(lambda: run.masks)
    (root / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    for name in "abcde":
        lines = "".join(f"{picture} -1\n" for picture in split.read_text().split())
        (root / "ImageSets" / "Main" / f"{name}_train.txt").write_text(lines)
    message = error_of(lambda: Multistage(single, root, finished, settings, device="cpu", progress=False))
    assert message == f"{single}: expected the data's classes a, b, c, d, e, got zebbo, dotkin, ringlo, plusmo, tramlo"


def test_a_decoder_that_was_never_trained_gives_no_seeds(
    tiny: TrainConfig, creatures: Path, settings: MultistageConfig, tmp_path: Path
) -> None:
    train(
        replace(tiny, method="cam", mixing="none", epochs=1), creatures, tmp_path / "cam", device="cpu", progress=False
    )
    message = error_of(lambda: Multistage(tmp_path / "cam" / "last.pt", creatures, tmp_path, settings, device="cpu"))
    last = tmp_path / "cam" / "last.pt"
    assert message == f"seed_map: expected a head that {last} has trained (cam), got decoder"


# scores


def test_each_stage_has_its_rows_and_oracles_say_so(
    single: Path, creatures: Path, settings: MultistageConfig, finished: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    run = Multistage(single, creatures, out, settings, device="cpu", progress=False)
    rows = run_multistage(run, score="train", evaluate="val")
    assert [(row.method, row.oracle) for row in rows] == [
        ("decoder", False),
        ("decoder", True),
        ("decoder + IRN walk", False),
        ("decoder + IRN walk", True),
        ("decoder + IRN walk + CRF", False),
        ("decoder + IRN walk + CRF → DeepLabv3+ (val, no tags)", False),
        ("decoder + IRN walk + CRF → DeepLabv3+ + CRF (val, no tags)", False),
    ]
    assert [row.threshold == 0.25 for row in rows if not row.oracle] == [True, True, True, False, False]
    for fixed, best in (rows[:2], rows[2:4]):
        assert best.miou >= fixed.miou
    given = run.final_row("train", tags_given=True)
    assert given.method == "decoder + IRN walk + CRF → DeepLabv3+ (train, tags given)" and 0 <= given.miou <= 100
    message = error_of(lambda: run_multistage(run, score="val", evaluate=None))
    assert message.startswith("score: expected a split within train, got val with ")


def test_without_a_threshold_it_is_chosen_without_masks(
    single: Path, blind: Path, creatures: Path, settings: MultistageConfig, finished: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    run = Multistage(single, blind, out, change(settings, threshold=None), device="cpu", progress=False)
    chosen = choose_stored_threshold(run.dataset, finished / "4_walked_boundary", progress=False)
    assert run.threshold == chosen and run.masks.name == f"5_masks_boundary_{chosen:g}_crf"
    truth = VocDataset(creatures, "train", masks=True)
    rows = [*run.seed_rows(truth, classes=("zebbo",)), run.mask_row(truth)]
    assert [row.choice for row in rows] == ["colour, high", "oracle", "colour, high", "oracle", "colour, high"]
    seeds = choose_stored_threshold(run.dataset, finished / "1_seeds", progress=False)
    assert [rows[0].threshold, rows[2].threshold, rows[4].threshold] == [seeds, chosen, chosen]
