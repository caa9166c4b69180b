import io

import pytest
import torch
from PIL import Image

from rsepm_edu.methods.cda import context_decoupling
from rsepm_edu.methods.classmix import class_mix
from rsepm_edu.methods.cutmix import cut_mix
from rsepm_edu.methods.mixing import Mixed, paste_region
from rsepm_edu.viz.explorers import mixing_explorer
from rsepm_edu.viz.explorers.explorer import GAP, TILE

NAMES = ["cat", "dog"]
METHODS = {"ClassMix": class_mix, "CutMix": cut_mix, "CDA": context_decoupling}


def sample(name, tag, seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(20, 30, dtype=torch.uint8)
    mask[5:15, 4:14] = tag
    mask[5] = 255
    tags = torch.zeros(2)
    tags[tag - 1] = 1
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8, generator=generator)
    return {"name": name, "image": image, "tags": tags, "mask": mask}


@pytest.fixture
def inputs():
    samples = {"a": sample("a", 1, 0), "b": sample("b", 2, 1)}
    maps = {}
    for name, s in samples.items():
        found = torch.zeros(2, 20, 30)
        found[int(s["tags"].argmax()), 3:15, 4:12] = 0.9  # two rows too high, two columns short
        maps[name] = torch.cat([1 - found.sum(0, keepdim=True), found])
    return samples, maps


def test_the_picture_is_put_together_as_the_mask_of_the_paste_says(inputs):
    samples, maps = inputs
    explorer = mixing_explorer(samples, maps, METHODS, NAMES)
    shown = explorer.mixed()
    assert shown.pasted[3:15, 4:12].all() and shown.pasted.sum() == 12 * 8
    for y in range(20):
        for x in range(30):
            source = samples["a" if shown.pasted[y, x] else "b"]
            assert shown.image[y, x].tolist() == source["image"][:, y, x].tolist()
            assert int(shown.truth[y, x]) == int(source["mask"][y, x])
    assert repr(explorer) == "MixingExplorer(ClassMix, a on b, seed 0)"


def test_captions_count_tags_and_true_labels_by_hand(inputs):
    samples, maps = inputs
    explorer = mixing_explorer(samples, maps, METHODS, NAMES)
    # Pasted: rows 3 … 14, columns 4 … 11; row 5 is void in the truth, rows 3 and 4 are ground.
    assert explorer.render().captions[2:] == [
        "tags: cat",
        "16% pasted, its labels 82% true",
    ]  # 9 · 8 of 11 · 8; the dog is hidden
    explorer.below.value = "a"
    assert explorer.render().captions[:2] == ["paste from a", "on a"]
    explorer.above.value, explorer.below.value, explorer.method.value = "b", "a", "CutMix"
    share = float(explorer.mixed().pasted.mean())
    assert explorer.render().captions[2] == f"tags: cat {1 - share:.2f}, dog {share:.2f}"


def test_a_paste_without_an_animal_says_so(inputs):
    def corner(images, tags, maps, *, generator):
        region = torch.zeros(images.shape[0], *images.shape[2:], dtype=torch.bool)
        region[:, -1, -6:] = True
        batch = Mixed.unmixed(images, 0 * tags, torch.zeros_like(region, dtype=torch.int64))
        return paste_region(batch, batch.rows(torch.tensor([1, 0])), region, torch.zeros(2))

    explorer = mixing_explorer(*inputs, {"corner": corner}, NAMES)
    assert explorer.render().captions[2:] == ["tags: none", "1% pasted, no animal in it"]


def test_every_control_changes_the_picture_and_going_back_restores_it(live, inputs):
    samples, maps = inputs
    samples["c"], maps["c"] = sample("c", 1, 2), maps["a"]
    explorer = mixing_explorer(samples, maps, METHODS, NAMES)
    first = live(explorer)
    seen = {first}
    for control, value in (
        (explorer.above, "c"),
        (explorer.below, "a"),
        (explorer.method, "CutMix"),
        (explorer.seed, 3),
    ):
        control.value = value
        seen.add(live(explorer))
    assert len(seen) == 5
    explorer.above.value, explorer.below.value, explorer.method.value, explorer.seed.value = "a", "b", "ClassMix", 0
    assert live(explorer) == first
    with Image.open(io.BytesIO(explorer.png())) as png:
        assert png.format == "PNG" and png.width == 4 * TILE + 3 * GAP


def test_bad_arguments_are_rejected_before_a_control_moves(inputs):
    samples, maps = inputs
    with pytest.raises(ValueError, match="^samples: expected at least two of one size, got 1 of "):
        mixing_explorer({"a": samples["a"]}, maps, METHODS, NAMES)
    small = samples["b"] | {"image": samples["b"]["image"][:, :10]}
    with pytest.raises(ValueError, match=r"got 2 of \[\(3, 10, 30\), \(3, 20, 30\)\]"):
        mixing_explorer(samples | {"b": small}, maps, METHODS, NAMES)
    with pytest.raises(ValueError, match=r"^maps: expected \(3, 20, 30\) for each of a, b, got "):
        mixing_explorer(samples, {"a": maps["a"]}, METHODS, NAMES)
    with pytest.raises(ValueError, match="^methods: expected at least one, got none$"):
        mixing_explorer(samples, maps, {}, NAMES)
