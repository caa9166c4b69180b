"""Each run of data_scripts/recurseed_parts.py misses the part that it names, and no other."""

import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rsepm_edu.methods import recurseed
from rsepm_edu.methods.cam import normalize_cam

SCRIPTS = Path(__file__).parents[2] / "data_scripts"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))  # it imports its neighbours
        yield runpy.run_path(str(SCRIPTS / "recurseed_parts.py"))


@pytest.fixture
def refined(script):
    generator = torch.Generator().manual_seed(0)
    images, cam = torch.rand(1, 3, 16, 16, generator=generator), torch.randn(1, 2, 8, 8, generator=generator)
    features, tags = torch.rand(1, 6, 8, 8, generator=generator), torch.ones(1, 2)

    def refined(name):
        with script["without"](script["PARTS"][name]):
            return recurseed.recur_seed(images, features, cam, tags)

    refined.cam = normalize_cam(cam)
    return refined


def test_as_drawn_both_parts_are_at_work(refined):
    drawn = refined("as drawn")
    assert not torch.allclose(drawn.scg_map, refined.cam)
    assert not torch.allclose(drawn.rs_map, enlarged(drawn.scg_map))


def test_without_scg_pamr_works_on_the_cam(refined):
    found = refined("without SCG")
    assert torch.equal(found.scg_map, refined.cam)
    assert not torch.allclose(found.rs_map, enlarged(refined.cam))


def test_without_pamr_the_target_is_scgs_map(refined):
    found = refined("without PAMR")
    assert torch.equal(found.scg_map, refined("as drawn").scg_map)
    torch.testing.assert_close(found.rs_map, enlarged(found.scg_map))


def test_without_the_average_the_teacher_is_the_student(script):
    assert script["PARTS"]["without the average"].settings == {"ema_decay": 0.0}
    assert not script["PARTS"]["without the average"].functions


def test_nothing_stays_changed(script, refined):
    before = recurseed.scg, recurseed.pamr
    for name in script["PARTS"]:
        refined(name)
    assert (recurseed.scg, recurseed.pamr) == before


def enlarged(maps):
    return normalize_cam(F.interpolate(maps, size=(16, 16), mode="bilinear", align_corners=False))
