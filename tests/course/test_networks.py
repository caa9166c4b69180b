import json
from importlib.resources import files

import pytest
import torch

from rsepm_edu.course import networks
from rsepm_edu.course.networks import CREATURES_CAM, load_lesson_network, save_lesson_network
from rsepm_edu.data.creatures import CREATURES, draw_picture
from rsepm_edu.data.transforms import normalise
from rsepm_edu.errors import UserError
from rsepm_edu.models.network import build_network


def test_saving_is_what_loading_reads(tmp_path):
    torch.manual_seed(0)
    network = build_network("creatures", ("cat", "dog"), decoder_channels=8, separable=True)
    save_lesson_network(tmp_path / "net.pt", network, backbone="creatures")
    loaded = networks._read(tmp_path / "net.pt")
    images = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        cams = [n.eval()(images, decode=False).cam for n in (network, loaded)]
    torch.testing.assert_close(cams[0], cams[1], rtol=1e-2, atol=1e-3)  # float16 in the file
    assert loaded.classes == ("cat", "dog")


def test_the_decoder_is_left_out_and_a_foreign_network_rejected(tmp_path):
    network = build_network("creatures", ("cat", "dog"), decoder_channels=8, separable=True)
    path = tmp_path / "net.pt"
    save_lesson_network(path, network, backbone="creatures")
    saved = torch.load(path, weights_only=True)
    assert not [name for name in saved["state"] if name.startswith("decoder")]
    saved["state"]["classifier.bias"] = saved["state"].pop("classifier.weight")
    torch.save(saved, path)
    with pytest.raises(RuntimeError, match="classifier.weight.*classifier.bias"):
        networks._read(path)


def test_the_same_network_gives_the_same_bytes(tmp_path):
    network = build_network("creatures", ("cat", "dog"), decoder_channels=8, separable=True)
    for name in ("a.pt", "b.pt"):
        save_lesson_network(tmp_path / name, network, backbone="creatures")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_the_shipped_file_is_small_and_says_how_it_was_made():
    folder = files("rsepm_edu.course") / "checkpoints"
    assert len((folder / f"{CREATURES_CAM}.pt").read_bytes()) <= 0.7e6
    record = json.loads((folder / f"{CREATURES_CAM}.json").read_text())
    assert record["config"]["method"] == "cam" and record["config"]["seed"] == 0
    assert len(record["loss_by_epoch"]) == record["config"]["epochs"]
    with pytest.raises(UserError, match="expected a network that comes with the lessons"):
        load_lesson_network("nothing")


def test_the_shipped_network_knows_the_tags_of_pictures_it_has_not_seen():
    drawn = [draw_picture(seed=0, split="val", index=index) for index in range(40)]
    images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _, _ in drawn])
    tags = torch.stack([torch.from_numpy(tags) for _, _, tags in drawn])
    network = load_lesson_network()
    assert network.classes == CREATURES
    with torch.inference_mode():
        found = network(normalise(images), decode=False).tag_logits > 0
    assert (found == tags.bool()).float().mean() > 0.95
