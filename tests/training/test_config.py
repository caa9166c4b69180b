import json
from dataclasses import FrozenInstanceError, asdict, fields, replace
from math import inf, nan
from typing import Any

import pytest

from rsepm_edu.errors import UserError
from rsepm_edu.training.config import PRESETS, TrainConfig, method_name, preset


def test_the_defaults_are_the_published_numbers() -> None:
    config = TrainConfig()
    assert (config.backbone, config.output_stride, config.decoder_rates) == ("resnet50", 16, (6, 12, 18))
    assert (config.epochs, config.rs_start, config.mix_start) == (30, 5, 15)
    assert (config.certain, config.uncertain) == (0.55, 0.10)
    assert (config.crop, config.size, config.scale) == ("pad", 512, (320 / 512, 640 / 512))
    weights = {name: value for name, value in asdict(config).items() if name.endswith("_weight")}
    assert weights.pop("mix_tag_weight") == 0
    assert len(weights) == 4 and set(weights.values()) == {1.0}
    assert (config.method, config.mixing, config.puzzle_alpha) == ("rs", "epm", 4.0)


BEFORE = {"seed_start": 3, "mix_start": 4, "scale": [0.5, 1.0], "momentum": 0.9}
"""Settings as they were written before ``rs_start`` and ``crop``."""


@pytest.mark.parametrize(
    ("method", "mixing", "now"),
    [
        ("rs+epm", "edgepredictmix", ("rs", "epm")),
        ("rs+epm", "cutmix", ("rs", "cutmix")),
        ("rs", "edgepredictmix", ("rs", "none")),
        ("cam", "edgepredictmix", ("cam", "none")),
        ("puzzle", "classmix", ("puzzle", "none")),
    ],
)
def test_settings_of_before_are_understood(method: str, mixing: str, now: tuple[str, str]) -> None:
    config = TrainConfig.from_dict(BEFORE | {"method": method, "mixing": mixing})
    assert (config.method, config.mixing) == now
    assert (config.rs_start, config.mix_start, config.crop, config.scale) == (3, 4, "zoom", (0.5, 1.0))


def test_settings_of_before_there_were_other_mixings_mean_edgepredictmix() -> None:
    config = TrainConfig.from_dict(BEFORE | {"method": "rs+epm"})
    assert (config.method, config.mixing) == ("rs", "epm")


def test_a_method_is_named_with_its_mixing() -> None:
    assert [method_name("rs", mixing) for mixing in ("none", "epm", "saliency-grafting")] == [
        "rs", "rs+epm", "rs+saliency-grafting"
    ]  # fmt: skip
    assert [method_name(method, "none") for method in ("cam", "puzzle")] == ["cam", "puzzle"]


@pytest.mark.parametrize("method", ["cam", "puzzle"])
def test_what_cannot_mix_does_not(method: Any) -> None:
    with pytest.raises(UserError, match=f"^mixing: expected none with method {method}, got 'epm'$"):
        TrainConfig(method=method)
    assert preset("voc-gpu", method=method).mixing == "none"
    with pytest.raises(UserError, match="^mixing: expected none"):
        preset("voc-gpu", method=method, mixing="cutmix")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_had_and_changed(name: str) -> None:
    assert preset(name) == PRESETS[name]
    changed = preset(name, seed=7, epochs=1)
    assert (changed.seed, changed.epochs) == (7, 1)
    assert replace(changed, seed=0, epochs=PRESETS[name].epochs) == PRESETS[name]


def test_the_presets_of_the_course_are_there() -> None:
    assert {"creatures-cpu", "voc-sample-cpu", "voc-gpu"} <= set(PRESETS)


@pytest.mark.parametrize("name", ["voc-t4", "voc-gpu", "voc-multi-gpu"])
def test_the_machine_decides_on_memory_and_readers_alone(name: str) -> None:
    config = PRESETS[name]
    assert replace(config, accumulate=1, workers=8) == TrainConfig()
    assert config.batch_size == 16  # in whatever parts


# Pictures of the splits that the presets name.
PICTURES = {
    "creatures-cpu": 1_000, "voc-sample-cpu": 2_604, "voc-sample-gpu": 2_604, "voc-t4": 10_582, "voc-gpu": 10_582,
    "voc-multi-gpu": 10_582, "coco-gpu": 82_081,
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_the_average_is_as_slow_as_it_is_set_before_the_mixing(name: str) -> None:
    config = PRESETS[name]
    step = PICTURES[name] // config.batch_size * config.mix_start
    assert (1 + step) / (10 + step) >= config.ema_decay  # its fast start, see MovingAverage


@pytest.mark.parametrize("name", PRESETS)
def test_settings_survive_json(name: str) -> None:
    config = PRESETS[name]
    assert TrainConfig.from_dict(json.loads(config.to_json())) == config
    assert TrainConfig.from_dict({}) == TrainConfig()


def test_settings_do_not_change_during_a_run() -> None:
    with pytest.raises(FrozenInstanceError):
        TrainConfig().seed = 1  # type: ignore[misc]


WRONG: list[tuple[str, Any]] = [
    ("method", "rs+"),
    ("mixing", "mixup"),
    ("puzzle_alpha", -0.1),
    ("puzzle_alpha", nan),
    ("optimizer", "adam"),
    ("precision", "int8"),
    ("backbone", "vgg16"),
    *[(name, 0) for name in ("epochs", "batch_size", "accumulate", "size", "decoder_channels", "pamr_stride")],
    *[(name, -1) for name in ("rs_start", "mix_start", "workers", "panel_every", "freeze_stages")],
    ("freeze_stages", 5),
    ("checkpoint_every", 0),
    *[(field.name, -0.1) for field in fields(TrainConfig) if field.name.endswith(("_weight", "_factor"))],
    *[(name, -0.1) for name in ("weight_decay", "poly_power", "jitter")],
    *[(name, value) for name in ("learning_rate", "clip_norm") for value in (0.0, -1.0, nan, inf)],
    *[(name, value) for name in ("momentum", "ema_decay") for value in (-0.1, 1.0, nan)],
    ("cam_weight", nan),
    *[("scg_threshold", value) for value in (-0.1, 1.1, nan)],
    ("crop", "whole"),
    *[("scale", value) for value in ((0.0, 1.0), (0.8, 0.4), (0.5, 4.1), (nan, 1.0), (), (0.5,), (0.2, 0.5, 1.0))],
    *[("decoder_rates", value) for value in (("a",), (0,), (1.5,), (), 6)],
    *[(name, value) for name in ("jitter", "poly_power", "certain") for value in (inf, nan)],
    *[("learning_rate", value) for value in (1e99, 10**99, "0.1")],
    ("decoder_channels", 9_999_999_999),
    ("size", 10**9),
    *[("epochs", value) for value in (10**30, 2.5, True, "3")],
    ("separable", 1),
    ("split", 3),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_value_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^{name}: expected .*, got ") as info:
        TrainConfig(**{name: value})
    assert str(info.value).endswith(f"got {value!r}")


def test_what_must_go_together() -> None:
    with pytest.raises(UserError, match="^accumulate: expected a divisor of batch_size 16, got 3$"):
        TrainConfig(accumulate=3)
    with pytest.raises(UserError, match="^scale: expected 0 < smallest <= greatest <= 1, got "):
        TrainConfig(crop="zoom")
    with pytest.raises(UserError, match="^accumulate: expected at least 2 pictures at a time .*, got 1"):
        TrainConfig(accumulate=16)
    for certain, uncertain in ((0.1, 0.5), (0.5, 0.5), (1.1, 0.1), (0.5, -0.1)):
        with pytest.raises(UserError, match="^certain, uncertain: expected 0 <= uncertain < certain <= 1, got "):
            TrainConfig(certain=certain, uncertain=uncertain)


def test_unknown_presets_and_settings_are_named() -> None:
    with pytest.raises(UserError, match="^preset: expected one of creatures-cpu, .*, got 'coco'$"):
        preset("coco")
    for call in (lambda: preset("voc-gpu", rate=1), lambda: TrainConfig.from_dict({"rate": 1})):
        with pytest.raises(UserError, match="^config: expected settings of TrainConfig, got rate$"):
            call()
