import pytest
import torch

from rsepm_edu.course import film as module
from rsepm_edu.course.film import Film, Frame, load_film, save_film, take_frame
from rsepm_edu.errors import UserError
from rsepm_edu.labels import VOID
from rsepm_edu.methods.cam import normalize_cam
from rsepm_edu.models.network import build_network
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.targets import Batch, refine

TAGS = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
CONFIG = TrainConfig(pamr_stride=2, certain=0.55, uncertain=0.35)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_network("creatures", ("a", "b", "c"), decoder_channels=8, decoder_rates=(1,), separable=True)


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(1))


def test_a_frame_is_what_the_network_says_and_what_recurseed_makes_of_it(network, images):
    frame = take_frame(CONFIG, network, images, TAGS)
    assert network.training  # its mode is given back
    network.eval()
    with torch.no_grad():
        outputs = network(images)
    refined = refine(CONFIG, Batch(images, TAGS, torch.ones(2, 1, 32, 40)), outputs)
    torch.testing.assert_close(frame.cam, normalize_cam(outputs.cam, TAGS))
    torch.testing.assert_close(frame.scg_map, refined.scg_map)
    torch.testing.assert_close(frame.rs_map, refined.rs_map)
    assert torch.equal(frame.pseudo_mask, refined.pseudo_mask) and frame.pseudo_mask.shape == (2, 16, 20)
    # The decoder's soft-max over background and the present classes alone.
    logits = torch.nn.functional.interpolate(outputs.seg_logits, (16, 20), mode="bilinear")
    absent = torch.cat([torch.zeros(2, 1), 1 - TAGS], dim=1)[:, :, None, None] > 0
    wanted = logits.masked_fill(absent, float("-inf")).softmax(dim=1)
    torch.testing.assert_close(frame.probabilities, wanted)


def test_a_film_is_read_as_it_was_written_up_to_rounding(tmp_path, network, images):
    frames = [take_frame(CONFIG, network, images, TAGS)]
    with torch.no_grad():
        network.classifier.weight.mul_(-1)
    frames.append(take_frame(CONFIG, network, images, TAGS))
    frames[1].pseudo_mask[0, :3] = VOID
    for name in ("a.npz", "b.npz"):
        save_film(tmp_path / name, [3, 4], TAGS, frames)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    film = module._read(tmp_path / "a.npz")
    assert film.epochs == (3, 4) and torch.equal(film.tags, TAGS)
    for index, frame in enumerate(frames):
        read = film.frame(index)
        assert torch.equal(read.pseudo_mask, frame.pseudo_mask)
        tolerances = {"cam": 0.5 / 255, "scg_map": 0.5 / 255, "rs_map": 0.5 / 51, "probabilities": 1.01 / 51}
        for name, tolerance in tolerances.items():
            torch.testing.assert_close(getattr(read, name), getattr(frame, name), rtol=0, atol=tolerance + 1e-6)
        torch.testing.assert_close(read.probabilities.sum(1), torch.ones(2, 16, 20), rtol=0, atol=1.01 / 51)
        assert (read.probabilities >= 0).all()


def test_the_shipped_film_fits_together():
    film = load_film()
    frames, pictures = len(film.epochs), len(film.tags)
    assert (frames, pictures) == (5, 6) and film.tags.sum(0).min() >= 1  # each class is in it
    assert film.cam.shape == film.scg_map.shape == (frames, *film.tags.shape, 24, 24)
    assert film.pseudo_mask.shape == (frames, pictures, 48, 48)
    assert film.rs_map.shape == (frames, *film.tags.shape, 48, 48)
    assert film.probabilities.shape == (frames, pictures, film.tags.shape[1] + 1, 48, 48)
    shown = set(film.pseudo_mask.unique().tolist())
    assert {0, VOID} < shown <= {*range(film.tags.shape[1] + 1), VOID}


def test_an_unknown_film_is_one_clear_line():
    with pytest.raises(UserError, match="expected a film that comes with the lessons, got 'nothing'"):
        load_film("nothing")


def test_a_film_has_the_fields_of_its_frames():
    assert Film._fields == ("epochs", "tags", *Frame._fields)
