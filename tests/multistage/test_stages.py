import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsepm_edu.course.networks import load_lesson_network
from rsepm_edu.data.palette import read_mask
from rsepm_edu.data.seeds import read_seed, write_seed
from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.inference import multi_scale_maps, restrict_to_tags, segmenter_probabilities
from rsepm_edu.models.network import SingleStageNetwork, build_network
from rsepm_edu.models.segmenters import build_segmenter
from rsepm_edu.multistage.reach import scaled_walk
from rsepm_edu.multistage.stages import (
    write_predictions,
    write_pseudo_masks,
    write_seeds,
    write_walk_labels,
    write_walked_seeds,
)
from rsepm_edu.multistage.walk import Kind, WalkConfig, build_walk_network, walk_labels

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(creatures: Path, tmp_path_factory: pytest.TempPathFactory) -> VocDataset:
    """Three pictures, whose masks are gone: no stage may look for them."""
    root = shutil.copytree(creatures, tmp_path_factory.mktemp("stages") / "set")
    shutil.rmtree(root / "SegmentationClass")
    return VocDataset(root, "val")


@pytest.fixture(scope="module")
def network(dataset: VocDataset) -> SingleStageNetwork:
    """Backbone and classifier of the lessons, the decoder random."""
    torch.manual_seed(0)
    network = build_network("creatures", dataset.classes, decoder_channels=16, decoder_rates=(1, 2)).eval()
    network.backbone.load_state_dict(load_lesson_network().backbone.state_dict())
    network.classifier.load_state_dict(load_lesson_network().classifier.state_dict())
    return network


@pytest.fixture(scope="module")
def seeds(network: SingleStageNetwork, dataset: VocDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    write_seeds(network, dataset, folder, scales=(1.0,), progress=False)
    return folder


def pictures(dataset: VocDataset) -> list[tuple[str, Tensor, Tensor]]:
    samples = [dataset.sample(index, masks=False) for index in range(len(dataset))]
    return [(s["name"], s["image"].as_subclass(Tensor)[None], s["tags"][None]) for s in samples]


def test_seeds_are_the_networks_maps_with_tags_given(
    network: SingleStageNetwork, dataset: VocDataset, seeds: Path, tmp_path: Path
) -> None:
    write_seeds(network, dataset, tmp_path, seed_map="decoder", scales=(1.0, 0.5), progress=False)
    for name, image, tags in pictures(dataset):
        cam = multi_scale_maps(network, image, tags, scales=(1.0,), decode=False).cam[0]
        torch.testing.assert_close(read_seed(seeds / f"{name}.npz"), cam, atol=1e-3, rtol=0)
        maps = multi_scale_maps(network, image, scales=(1.0, 0.5))
        wanted = restrict_to_tags(maps.probabilities, tags)[0, 1:]
        torch.testing.assert_close(read_seed(tmp_path / f"{name}.npz"), wanted, atol=1e-3, rtol=0)


def test_a_stage_goes_on_with_what_is_not_there(
    network: SingleStageNetwork, dataset: VocDataset, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(seeds, tmp_path / "seeds")
    lost = folder / f"{dataset.names[1]}.npz"
    whole = lost.read_bytes()
    lost.unlink()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    calls = []
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda *a, **k: (calls.append(1), forward(*a, **k))[1])
    write_seeds(network, dataset, folder, scales=(1.0,), progress=False)
    assert len(calls) == 1 and lost.read_bytes() == whole
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_labels_are_written_once_from_the_seeds(dataset: VocDataset, seeds: Path, tmp_path: Path) -> None:
    calls = []

    def refine(images: Tensor, labels: Tensor) -> Tensor:
        calls.append((images.shape, labels.dtype))
        return labels.flip(-1)

    def write() -> None:
        write_walk_labels(dataset, seeds, tmp_path, refine, foreground=0.4, device=CPU, progress=False)

    write()
    assert calls == [(torch.Size([1, 3, 64, 64]), torch.int64)] * 6
    for name, image, _ in pictures(dataset):
        seed = read_seed(seeds / f"{name}.npz")[None]
        wanted = walk_labels(image, seed, lambda _, labels: labels.flip(-1), foreground=0.4)[0]
        assert torch.equal(read_mask(tmp_path / f"{name}.png").long(), wanted)
        assert set(wanted.unique().tolist()) >= {0, 255}
    calls.clear()
    (tmp_path / f"{dataset.names[1]}.png").unlink()
    write()
    assert len(calls) == 2


@pytest.mark.parametrize("kind", ["boundary", "affinity"])
def test_seeds_walk_as_the_network_lets_them(kind: Any, dataset: VocDataset, seeds: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_walk_network(WalkConfig(backbone="creatures", weights="none"), kind).eval()
    write_walked_seeds(network, dataset, seeds, tmp_path, radius=3, steps=4, progress=False)
    for name, image, _ in pictures(dataset):
        seed = read_seed(seeds / f"{name}.npz")[None]
        walked = network.walk(normalise(image), seed, radius=3, steps=4)[0]
        stored = read_seed(tmp_path / f"{name}.npz")
        torch.testing.assert_close(stored, walked / walked.amax() * seed.amax(), atol=1e-3, rtol=0)
        assert torch.equal(stored.flatten(1).any(1), seed[0].flatten(1).any(1))


def test_a_seed_without_a_step_is_the_seed(dataset: VocDataset, tmp_path: Path) -> None:
    """The lower its greatest value, the more a division by it would change."""
    generator = torch.Generator().manual_seed(1)
    for name in dataset.names:
        seed = 0.6 * torch.rand(len(dataset.classes), 64, 64, generator=generator)
        write_seed(tmp_path / "seeds" / f"{name}.npz", seed)
    for kind in get_args(Kind):
        network = build_walk_network(WalkConfig(backbone="creatures", weights="none"), kind).eval()
        write_walked_seeds(network, dataset, tmp_path / "seeds", tmp_path / kind, steps=0, scaled=True, progress=False)
        for name in dataset.names:
            assert torch.equal(
                read_seed(tmp_path / kind / f"{name}.npz"), read_seed(tmp_path / "seeds" / f"{name}.npz")
            )


def test_a_scaled_walk_is_one_over_the_same_share_of_the_picture(
    dataset: VocDataset, seeds: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = build_walk_network(WalkConfig(backbone="creatures", weights="none"), "boundary").eval()
    write_walked_seeds(
        network, dataset, seeds, tmp_path, radius=2, steps=4, scaled=True, clear_edges=False, progress=False
    )
    radius, steps = scaled_walk(2, 4, 2.0)  # at stride 2 the published picture has twice the positions
    for name, image, _ in pictures(dataset):
        seed = read_seed(seeds / f"{name}.npz")[None]
        view = F.interpolate(normalise(image), size=(375, 375), mode="bilinear")
        walked = network.walk(view, seed, size=image.shape[2:], radius=radius, steps=steps, clear_edges=False)[0]
        wanted = walked / walked.amax() * seed.amax()
        torch.testing.assert_close(read_seed(tmp_path / f"{name}.npz"), wanted, atol=2e-3, rtol=0)
    assert (radius, steps) == (4, 3)


def test_a_picture_without_classes_walks_nowhere_and_is_background(dataset: VocDataset, tmp_path: Path) -> None:
    for name in dataset.names:
        write_seed(tmp_path / "seeds" / f"{name}.npz", torch.zeros(len(dataset.classes), 64, 64))
    network = build_walk_network(WalkConfig(backbone="creatures", weights="none"), "boundary").eval()
    write_walked_seeds(network, dataset, tmp_path / "seeds", tmp_path / "walked", steps=2, progress=False)
    write_pseudo_masks(
        dataset, tmp_path / "walked", tmp_path / "masks", threshold=0.0, refine=None, device=CPU, progress=False
    )
    assert not any(bool(read_mask(path).any()) for path in (tmp_path / "masks").iterdir())


def test_pseudo_masks_are_the_arg_max_beside_the_background_score(
    dataset: VocDataset, seeds: Path, tmp_path: Path
) -> None:
    def write(folder: str, refine: Any) -> None:
        write_pseudo_masks(dataset, seeds, tmp_path / folder, threshold=0.35, refine=refine, device=CPU, progress=False)

    write("plain", None)
    write("refined", lambda images, labels: labels.flip(-1))
    for name in dataset.names:
        seed = read_seed(seeds / f"{name}.npz")
        wanted = torch.cat([torch.full((1, 64, 64), 0.35), seed]).argmax(0)
        assert torch.equal(read_mask(tmp_path / "plain" / f"{name}.png").long(), wanted)
        assert torch.equal(read_mask(tmp_path / "refined" / f"{name}.png").long(), wanted.flip(-1))


def test_predictions_use_tags_only_where_they_are_given(dataset: VocDataset, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = build_segmenter("deeplabv3+", "creatures", dataset.classes, channels=16, rates=(1, 2)).eval()
    last = network.head.refine[-1]
    assert isinstance(last, nn.Conv2d)
    nn.init.normal_(last.weight)  # so that the arg-max is not one label all over
    for folder, tags_given in (("free", False), ("given", True)):
        write_predictions(network, dataset, tmp_path / folder, scales=(1.0, 0.5), tags_given=tags_given, progress=False)
    write_predictions(
        network, dataset, tmp_path / "refined", scales=(1.0,), refine=lambda _, p: p.flip(1), progress=False
    )
    absent = 0
    for name, image, tags in pictures(dataset):
        probabilities = segmenter_probabilities(network, image, scales=(1.0, 0.5))[0]
        free, given, refined = (read_mask(tmp_path / f / f"{name}.png").long() for f in ("free", "given", "refined"))
        assert torch.equal(free, probabilities.argmax(0))
        probabilities[1:][tags[0] == 0] = -1
        assert torch.equal(given, probabilities.argmax(0))
        absent += int((free != given).sum())
        assert torch.equal(refined, segmenter_probabilities(network, image, scales=(1.0,))[0].flip(0).argmax(0))
    assert absent > 0


def test_seeds_of_other_pictures_are_refused(dataset: VocDataset, seeds: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(seeds, tmp_path / "seeds")
    path = folder / f"{dataset.names[0]}.npz"
    write_seed(path, torch.zeros(len(dataset.classes), 64, 60))
    message = rf"{path}: expected a seed KxHxW = \(5, 64, 64\) of this picture, got \(5, 64, 60\)"
    for folder_out, call in (("a", write_pseudo_masks), ("b", write_walk_labels)):
        settings: Any = {"threshold": 0.2, "refine": None} if call is write_pseudo_masks else {"refine": None}
        with pytest.raises(UserError, match=f"^{message}$"):
            call(dataset, folder, tmp_path / folder_out, device=CPU, progress=False, **settings)
    path.unlink()
    with pytest.raises(UserError, match="expected a seed, got no such file"):
        write_pseudo_masks(dataset, folder, tmp_path / "c", threshold=0.2, refine=None, device=CPU, progress=False)
