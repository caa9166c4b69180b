from pathlib import Path
from typing import Any

import pytest

from rsepm_edu.data.loading import batches_of
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.crf import LABEL_SIGMAS
from rsepm_edu.multistage.config import STAGE_PRESETS, MultistageConfig, StageConfig
from rsepm_edu.multistage.segmentation import SEGMENTATION_PRESETS
from rsepm_edu.multistage.walk import WALK_PRESETS, WalkConfig
from rsepm_edu.training.config import preset


def error_of(call: Any) -> str:
    with pytest.raises(UserError) as info:
        call()
    assert "\n" not in str(info.value)
    return str(info.value)


def test_every_preset_has_its_three_parts() -> None:
    assert STAGE_PRESETS.keys() == WALK_PRESETS.keys() == SEGMENTATION_PRESETS.keys()
    for name in STAGE_PRESETS:
        config = MultistageConfig.preset(name, seed=3, head="deeplabv2", walk="affinity", threshold=0.4)
        assert config.stages.threshold == 0.4 and config.walk.radius == 5
        assert config.walk.seed == config.segmentation.seed == 3 and config.segmentation.head == "deeplabv2"
    assert MultistageConfig.preset("voc-gpu").walk == WalkConfig()
    assert MultistageConfig.preset("voc-gpu", walk="affinity").walk == WalkConfig(radius=5)
    steps = [MultistageConfig.preset("creatures-cpu", walk=walk).stages.walk_steps for walk in ("boundary", "affinity")]
    assert steps == [32, 8]
    assert MultistageConfig.preset("creatures-cpu", walk="affinity", walk_steps=5).stages.walk_steps == 5
    message = error_of(lambda: MultistageConfig.preset("voc"))
    assert message == "preset: expected one of creatures-cpu, voc-sample-cpu, voc-gpu, got 'voc'"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed_map": "both"}, "seed_map: expected one of cam, decoder, got 'both'"),
        ({"walk": "far"}, "walk: expected one of boundary, affinity, none, got 'far'"),
        ({"threshold": 1.0}, "threshold: expected 0 or more and less than 1, got 1.0"),
        ({"threshold": float("nan")}, "threshold: expected 0 or more and less than 1, got nan"),
        (
            {"foreground": 0.05, "background": 0.05},
            "background, foreground: expected 0 <= background < foreground < 1, got 0.05, 0.05",
        ),
        ({"background": -0.1}, "background: expected 0 or more and less than 1, got -0.1"),
        ({"margins": (0.1, 0.0)}, "margins: expected two numbers above 0 and below 1, got (0.1, 0.0)"),
        ({"scales": ()}, "scales: expected numbers like (1.0, 0.5, 1.5, 2.0), got ()"),
        ({"final_sigmas": (1.0, 0.0, 3.0)}, "final_sigmas: expected three numbers above 0, got (1.0, 0.0, 3.0)"),
        ({"seed_stride": 0}, "seed_stride: expected at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    assert error_of(lambda: StageConfig(**changes)) == message


def test_without_a_preset_the_run_and_its_pictures_say_what_suits(creatures: Path) -> None:
    dataset = VocDataset(creatures, "train")
    side = min(dataset.sample(0, masks=False)["image"].shape[1:])  # as all others
    run = preset("voc-sample-cpu", size=160, batch_size=8)
    config = MultistageConfig.of_run(run, dataset, seed=2, walk="affinity")
    assert config.stages.split == "train" and config.stages.walk == "affinity"
    smooth, appearance, colour = LABEL_SIGMAS
    assert config.stages.label_sigmas == (1.0, round(appearance * side / 375, 1), colour)
    for training in (config.walk, config.segmentation):
        assert (training.backbone, training.weights, training.size) == ("mobilenet_v2", "none", 160)
        assert (training.batch_size, training.seed) == (8, 2)
    assert 100 <= config.walk.epochs * batches_of(len(dataset), 8) < 110
    other = MultistageConfig.of_run(preset("voc-gpu", backbone="resnet18"), dataset)
    assert other.segmentation.backbone == "resnet18" and other.stages.walk_steps == 64
