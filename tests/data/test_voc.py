import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rsepm_edu.data.palette import read_mask, write_mask
from rsepm_edu.data.voc import VOC_CLASSES, VocDataset, find_devkit, read_classes, read_image, read_split
from rsepm_edu.errors import UserError
from rsepm_edu.labels import VOID

SIZE = (10, 12)  # height, width
OBJECTS = {  # name -> (class, difficult) of its objects
    "2007_000001": [("cat", 0), ("person", 0), ("cat", 0)],
    "2007_000002": [("dog", 1)],
    "2007_000003": [("sheep", 0), ("dog", 1)],
}


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """Three pictures as VOC2012 has them: XML and lists, masks, the splits train and odd (the second picture)."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, objects in OBJECTS.items():
        pixels = generator.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        write_annotation(root, name, objects)
        mask = torch.full(SIZE, VOID)
        mask[2:] = 0
        for row, (kind, _) in enumerate(objects):
            mask[2 + row] = VOC_CLASSES.index(kind) + 1
        write_mask(root / "SegmentationClass" / f"{name}.png", mask)
    (root / "ImageSets/Segmentation/train.txt").write_text("".join(f"{name}\n" for name in OBJECTS))
    (root / "ImageSets/Segmentation/odd.txt").write_text("2007_000002\n")
    for kind in VOC_CLASSES:
        lines = []
        for name, objects in OBJECTS.items():
            levels = [difficult for other, difficult in objects if other == kind]
            value = -1 if not levels else 0 if all(levels) else 1
            lines.append(f"{name} {value:2d}\n")
        (root / "ImageSets/Main" / f"{kind}_train.txt").write_text("".join(lines))
    return root


def write_annotation(root: Path, name: str, objects: list[tuple[str, int]]) -> None:
    items = "".join(
        f"<object><name>{kind}</name><difficult>{difficult}</difficult>"
        "<part><name>head</name></part></object>"  # parts of people have names too; they are no classes
        for kind, difficult in objects
    )
    (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{items}</annotation>")


def wanted_tags() -> torch.Tensor:
    rows = [[float(any(kind == k for k, _ in objects)) for kind in VOC_CLASSES] for objects in OBJECTS.values()]
    return torch.tensor(rows)


def fails(path: Path, expected: str, got: str, call: Callable[[], object]) -> None:
    """The call must raise one line: this path, expected this, got that (both as regular expressions)."""
    with pytest.raises(UserError) as info:
        call()
    message = str(info.value)
    assert re.fullmatch(rf"{re.escape(str(path))}.*: expected {expected}, got:? {got}", message), message
    assert "\n" not in message


# what comes in


def test_there_are_the_twenty_classes_in_the_order_of_the_palette() -> None:
    assert len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)


@pytest.mark.parametrize("source", ["auto", "xml", "lists"])
def test_tags_are_the_classes_of_the_objects_difficult_or_not(devkit: Path, source: str) -> None:
    dataset = VocDataset(devkit, "train", tags_from=source)  # type: ignore[arg-type]
    assert dataset.names == list(OBJECTS)
    assert dataset.classes == VOC_CLASSES
    assert dataset.tags.dtype == torch.float32
    assert torch.equal(dataset.tags, wanted_tags())


def test_auto_takes_xml_where_there_is_any_and_lists_otherwise(devkit: Path) -> None:
    write_annotation(devkit, "2007_000001", [("cow", 0)])  # the lists say cat and person
    tags = VocDataset(devkit, "train").tags
    assert tags[0].nonzero().flatten().tolist() == [VOC_CLASSES.index("cow")]
    shutil.rmtree(devkit / "Annotations")
    assert torch.equal(VocDataset(devkit, "train").tags, wanted_tags())


def test_lists_of_trainval_serve_a_split_without_its_own(devkit: Path) -> None:
    for path in (devkit / "ImageSets/Main").iterdir():
        path.rename(path.with_name(path.name.replace("_train.", "_trainval.")))
    tags = VocDataset(devkit, "odd", tags_from="lists").tags
    assert torch.equal(tags, wanted_tags()[1:2])


def test_a_sample_is_the_picture_its_tags_and_its_mask_only_if_wanted(devkit: Path) -> None:
    plain, masked = VocDataset(devkit, "train"), VocDataset(devkit, "train", masks=True)
    assert len(plain) == 3
    for index, name in enumerate(OBJECTS):
        sample = plain[index]
        assert set(sample) == {"name", "image", "tags"} and sample["name"] == name
        with Image.open(devkit / "JPEGImages" / f"{name}.jpg") as picture:
            pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        assert sample["image"].dtype == torch.uint8
        assert torch.equal(sample["image"].as_subclass(torch.Tensor), pixels)
        assert torch.equal(sample["tags"], plain.tags[index])
        mask = masked[index]["mask"]
        assert mask.dtype == torch.uint8 and tuple(mask.shape) == SIZE
        assert torch.equal(mask.as_subclass(torch.Tensor), read_mask(masked.mask_path(name)))


def test_changing_a_sample_leaves_the_data_set_alone(devkit: Path) -> None:
    dataset = VocDataset(devkit, "train")
    dataset[0]["tags"].zero_()
    assert torch.equal(dataset.tags, wanted_tags())


def test_a_transform_gets_the_sample_and_its_result_comes_out(devkit: Path) -> None:
    dataset = VocDataset(devkit, "train", transform=lambda sample: sample["name"].upper())
    assert [dataset[i] for i in range(3)] == list(OBJECTS)


def test_without_masks_none_is_touched(devkit: Path) -> None:
    shutil.rmtree(devkit / "SegmentationClass")
    assert [sample["name"] for sample in map(VocDataset(devkit, "train").__getitem__, range(3))] == list(OBJECTS)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_devkit_is_found_from_each_folder_above(devkit: Path, depth: int) -> None:
    above = [devkit, devkit.parent, devkit.parent.parent][depth]
    assert find_devkit(above) == devkit


def test_classes_come_from_a_file_where_there_is_one(devkit: Path) -> None:
    assert read_classes(devkit) == VOC_CLASSES
    (devkit / "classes.txt").write_text("sheep\n\ndog \n")
    assert read_classes(devkit) == ("sheep", "dog")
    tags = VocDataset(devkit, "odd").tags
    assert tags.tolist() == [[0.0, 1.0]]


def test_the_shipped_trainaug_serves_where_the_devkit_has_none(devkit: Path) -> None:
    names = read_split(devkit, "trainaug")
    assert len(names) == len(set(names)) == 10_582
    assert names == sorted(names)
    assert all(re.fullmatch(r"20\d\d_\d{6}", name) for name in names)
    (devkit / "ImageSets/Segmentation/trainaug.txt").write_text("2007_000003\n\n2007_000001\n")
    assert read_split(devkit, "trainaug") == ["2007_000003", "2007_000001"]


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_pictures_of_any_colours_are_read_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (12, 10), (90, 90, 90)).convert(mode).save(path, quality=95)
    image = read_image(path)
    assert image.shape == (3, *SIZE) and image.dtype == torch.uint8
    assert (image.int() - 90).abs().max() <= 3


def test_png_pictures_and_exif_orientation(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (10, 12, 3), dtype=torch.uint8)
    picture = Image.fromarray(pixels.numpy())
    exif = Image.Exif()
    exif[0x0112] = 6  # hold it a quarter turn clockwise
    picture.save(tmp_path / "a.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "a.png"), pixels.rot90(-1, (0, 1)).permute(2, 0, 1))


# what must not come in


def test_wrong_root(tmp_path: Path) -> None:
    fails(
        tmp_path, "a VOC devkit with a folder JPEGImages", "a folder without it", lambda: VocDataset(tmp_path, "train")
    )
    gone = tmp_path / "gone"
    fails(gone, "a VOC devkit with a folder JPEGImages", "no such folder", lambda: VocDataset(gone, "train"))


def test_missing_split_names_those_there_are(devkit: Path) -> None:
    path = devkit / "ImageSets/Segmentation/val.txt"
    fails(path, r"a split \(odd, train, trainaug\)", "no such file", lambda: VocDataset(devkit, "val"))


def test_empty_split_and_split_in_another_encoding(devkit: Path) -> None:
    path = devkit / "ImageSets/Segmentation/val.txt"
    path.write_text("\n")
    fails(path, "a name on each line", "an empty file", lambda: VocDataset(devkit, "val"))
    path.write_text("2007_000001\n", "utf-16")
    fails(path, "text in UTF-8", ".*can't decode.*", lambda: VocDataset(devkit, "val"))


@pytest.mark.parametrize("text", ["", "cat\ndog\ncat\n"])
def test_no_classes_and_a_class_twice(devkit: Path, text: str) -> None:
    (devkit / "classes.txt").write_text(text)
    fails(devkit / "classes.txt", "different class names, one a line", r"\(.*\)", lambda: read_classes(devkit))


def test_a_picture_of_the_split_is_missing(devkit: Path) -> None:
    path = devkit / "JPEGImages/2007_000002.jpg"
    path.unlink()
    fails(path, "a picture of split train", "no such file", lambda: VocDataset(devkit, "train"))
    fails(path, "a picture", "no such file", lambda: read_image(path))


def test_unknown_tag_source(devkit: Path) -> None:
    with pytest.raises(UserError, match="^tags_from: expected auto, xml or lists, got 'json'$"):
        VocDataset(devkit, "train", tags_from="json")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected", "got"),
    [
        (None, "an annotation", "no such file"),
        ("<annotation><object>", "a VOC annotation in XML", ".*line 1.*"),
        ("<html>404</html>", "a VOC annotation", "<html>"),
        ("<annotation><object><name>unicorn</name></object></annotation>", "one of .*cat.*", "class 'unicorn'"),
        ("<annotation><object></object></annotation>", "one of .*cat.*", "class ''"),
    ],
)
def test_annotations_that_say_nothing(devkit: Path, text: str | None, expected: str, got: str) -> None:
    path = devkit / "Annotations/2007_000002.xml"
    path.unlink()
    if text is not None:
        path.write_text(text)
    fails(path, expected, got, lambda: VocDataset(devkit, "train"))
    shutil.copy(devkit / "Annotations/2007_000001.xml", path)
    VocDataset(devkit, "train")


def test_a_list_of_tags_is_missing(devkit: Path) -> None:
    path = devkit / "ImageSets/Main/sheep_train.txt"
    path.unlink()
    fails(path, "a list of tags", "no such file", lambda: VocDataset(devkit, "train", tags_from="lists"))


@pytest.mark.parametrize("line", ["2007_000002", "2007_000002 2", "2007_000002 1 1"])
def test_a_list_of_tags_with_a_line_that_is_none(devkit: Path, line: str) -> None:
    path = devkit / "ImageSets/Main/cow_train.txt"
    path.write_text(f"2007_000001 -1\n{line}\n2007_000003 -1\n")
    fails(path, "a name and 1, 0 or -1", f"'{line}'", lambda: VocDataset(devkit, "train", tags_from="lists"))


def test_a_list_of_tags_without_a_picture_of_the_split(devkit: Path) -> None:
    path = devkit / "ImageSets/Main/cow_train.txt"
    path.write_text("2007_000001 -1\n2007_000003 -1\n")
    call = lambda: VocDataset(devkit, "train", tags_from="lists")  # noqa: E731
    fails(path, "every picture of split train", "none of 2007_000002", call)


def test_a_mask_is_missing(devkit: Path) -> None:
    path = devkit / "SegmentationClass/2007_000001.png"
    path.unlink()
    fails(path, ".*", "no such file", lambda: VocDataset(devkit, "train", masks=True)[0])


def test_a_mask_of_another_size(devkit: Path) -> None:
    path = devkit / "SegmentationClass/2007_000001.png"
    write_mask(path, torch.zeros(12, 10, dtype=torch.uint8))
    fails(path, r".*\(10, 12\) \(height, width\)", r"\(12, 10\)", lambda: VocDataset(devkit, "train", masks=True)[0])


@pytest.mark.parametrize("label", [21, 254])
def test_a_mask_with_a_label_out_of_range(devkit: Path, label: int) -> None:
    path = devkit / "SegmentationClass/2007_000001.png"
    mask = torch.zeros(SIZE, dtype=torch.uint8)
    mask[9, 11] = label
    write_mask(path, mask)
    fails(path, "labels 0 to 20 or 255", str(label), lambda: VocDataset(devkit, "train", masks=True)[0])


def encodings() -> dict[str, dict[str, object]]:
    return {
        "baseline.jpg": {"quality": 75},
        "fine.jpg": {"quality": 95, "subsampling": 0},
        "progressive.jpg": {"quality": 75, "progressive": True},
        "whole.png": {},
    }


@pytest.mark.parametrize("name", encodings())
def test_truncation_at_any_length_is_noticed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **encodings()[name])  # type: ignore[arg-type]
    data = path.read_bytes()
    end = len(data) - (20 if name.endswith("png") else 0)  # a PNG ends with two checksums and an empty chunk
    for length in sorted({0, 1, 2, 3, 4, *range(5, end, end // 60), *range(end - 40, end)}):
        path.write_bytes(data[:length])
        fails(path, ".*", ".*", lambda: read_image(path))
    path.write_bytes(data + b"trailing bytes")
    assert read_image(path).shape == (3, 40, 56)


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_jpeg_whose_rest_is_zeros_is_noticed(tmp_path: Path, share: float) -> None:
    """What a download leaves that reserves its space first and breaks off."""
    path = tmp_path / "a.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))].ljust(len(data), b"\0"))
    fails(path, ".*", ".*", lambda: read_image(path))


def test_what_is_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("<html>404 not found</html>")
    fails(path, "a readable picture", "a file of no kind that Pillow knows", lambda: read_image(path))
    fails(tmp_path, "a picture", "what cannot be read: .*", lambda: read_image(tmp_path))


def test_a_broken_picture_raises_when_it_is_asked_for_and_is_never_skipped(devkit: Path) -> None:
    path = devkit / "JPEGImages/2007_000002.jpg"
    path.write_bytes(path.read_bytes()[:-30])
    dataset = VocDataset(devkit, "train")
    assert len(dataset) == 3
    fails(path, ".*", ".*", lambda: dataset[1])


# photographs that EXIF turns

ORIENTATION = 0x0112


def turned(devkit: Path, orientation: int, size: tuple[int, int]) -> tuple[Path, np.ndarray]:
    """The first picture, stored turned; the path of its mask, and labels of that size."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(devkit / "JPEGImages/2007_000001.jpg", exif=exif)
    labels = np.random.default_rng(1).integers(0, 21, size)
    path = devkit / "SegmentationClass/2007_000001.png"
    write_mask(path, labels)
    return path, labels


def test_a_mask_of_the_stored_pixels_is_turned_like_the_photograph(devkit: Path) -> None:
    for orientation, upright in (
        (3, lambda labels: labels[::-1, ::-1]),
        (4, lambda labels: labels[::-1]),
        (6, lambda labels: np.rot90(labels, -1)),
        (8, np.rot90),
    ):
        _, labels = turned(devkit, orientation, SIZE)
        sample = VocDataset(devkit, "train", masks=True)[0]
        assert sample["image"].shape[1:] == sample["mask"].shape
        assert np.array_equal(sample["mask"].numpy(), upright(labels)), orientation


def test_a_mask_whose_size_only_the_upright_photograph_has_stays(devkit: Path) -> None:
    _, labels = turned(devkit, 6, SIZE[::-1])
    assert np.array_equal(VocDataset(devkit, "train", masks=True)[0]["mask"].numpy(), labels)


def test_a_mask_that_fits_neither_is_refused_in_words_that_say_exif(devkit: Path) -> None:
    path, _ = turned(devkit, 6, (5, 5))
    expected = r"the picture's size \(12, 10\) \(height, width\) as EXIF turns it, or as it is stored"
    fails(path, expected, r"\(5, 5\)", lambda: VocDataset(devkit, "train", masks=True)[0])


# lists, classes and annotations of other programs


def test_names_with_spaces(devkit: Path) -> None:
    for folder, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png"), ("Annotations", ".xml")):
        (devkit / folder / f"2007_000001{suffix}").rename(devkit / folder / f"img (1){suffix}")
        (devkit / folder / f"2007_000002{suffix}").rename(devkit / folder / f"img 1{suffix}")
    for path in (devkit / "ImageSets").rglob("*.txt"):
        path.write_text(path.read_text().replace("2007_000001", "img (1)").replace("2007_000002", "img 1"))
    for source in ("xml", "lists"):
        dataset = VocDataset(devkit, "train", tags_from=source)  # type: ignore[arg-type]
        assert dataset.names == ["img (1)", "img 1", "2007_000003"]
        assert torch.equal(dataset.tags, wanted_tags())
    for path in (devkit / "ImageSets/Main").iterdir():
        path.rename(path.with_name(path.name.replace("_train.", "_trainval.")))
    (devkit / "ImageSets/Segmentation/odd.txt").write_text("2007_000003\n")  # the lists know others with spaces
    assert torch.equal(VocDataset(devkit, "odd", tags_from="lists").tags, wanted_tags()[2:])


@pytest.mark.parametrize(
    ("line", "got"),
    [
        ("2007_000001 -1", r"a name and -1 \(lists of ImageSets/Main hold tags\): '2007_000001 -1'"),
        ("2007_000001  1", r"a name and 1 \(lists of .*"),
        ("2007_000001 2007_000003", "2 names on it"),
        ("2007_000001 2007_000009", "'2007_000001 2007_000009'"),
        ("JPEGImages/2007_000001.jpg", "'JPEGImages/2007_000001.jpg'"),
        ("/data/2007_000001.jpg /data/2007_000001.png", "'/data/2007_000001.jpg /data/2007_000001.png'"),
        (r"C:\voc\2007_000001", r"'C:.*2007_000001'"),
        ("2007_000001.JPG", "'2007_000001.JPG'"),
        ("x" * 5000 + " y", "'x+"),
    ],
)
def test_lines_of_a_split_that_are_no_names(devkit: Path, line: str, got: str) -> None:
    path = devkit / "ImageSets/Segmentation/train.txt"
    path.write_text(f"2007_000002\n{line}\n")
    with pytest.raises(UserError) as info:
        VocDataset(devkit, "train")
    wanted = f"{re.escape(str(path))}, line 2: expected the name of a picture, without folder and ending, got {got}"
    assert re.fullmatch(wanted, str(info.value)), str(info.value)


def test_names_twice_and_tags_that_contradict_each_other(devkit: Path) -> None:
    path = devkit / "ImageSets/Segmentation/train.txt"
    path.write_text("2007_000001\n2007_000002\n2007_000001\n")
    fails(path, "every name once", "'2007_000001' of line 1 again", lambda: VocDataset(devkit, "train"))
    path.write_text("2007_000001\n")
    path = devkit / "ImageSets/Main/cow_train.txt"
    path.write_text("2007_000001 1\n2007_000001 -1\n")
    fails(path, "every name once", "'2007_000001' again", lambda: VocDataset(devkit, "train", tags_from="lists"))


def test_marks_of_byte_order_are_no_part_of_names(devkit: Path) -> None:
    mark = b"\xef\xbb\xbf"
    (devkit / "classes.txt").write_text("\n".join(VOC_CLASSES))
    for path in (*devkit.rglob("*.txt"), *devkit.rglob("*.xml")):
        path.write_bytes(mark + path.read_bytes())
    for source in ("xml", "lists"):
        dataset = VocDataset(devkit, "train", tags_from=source)  # type: ignore[arg-type]
        assert dataset.names == list(OBJECTS) and dataset.classes == VOC_CLASSES
        assert torch.equal(dataset.tags, wanted_tags())


def test_own_data_with_the_split_of_a_preset(devkit: Path) -> None:
    path = devkit / "JPEGImages/2007_000032.jpg"
    note = r"no such file \(that split is the package's, for VOC; --set split=… takes one of the data: odd, train\)"
    fails(path, "a picture of split trainaug", note, lambda: VocDataset(devkit, "trainaug"))


@pytest.mark.parametrize("name", ["background", "_background_", "__background__", "Background", "__ignore__", "void"])
def test_a_list_of_classes_with_the_background_is_refused(devkit: Path, name: str) -> None:
    for text in (f"{name}\ncat\ndog\n", f"cat\n{name}\n"):
        (devkit / "classes.txt").write_text(text)
        expected = r"the classes without background \(label 0\) and void"
        fails(devkit / "classes.txt", expected, f"'{name}'", lambda: read_classes(devkit))


def test_classes_that_no_file_or_mask_can_have(devkit: Path) -> None:
    (devkit / "classes.txt").write_text("cat\na/b\n")
    fails(devkit / "classes.txt", r"names that files can have .*", "'a/b'", lambda: read_classes(devkit))
    (devkit / "classes.txt").write_text("".join(f"class{n}\n" for n in range(255)))
    fails(devkit / "classes.txt", "at most 254 classes", "255", lambda: read_classes(devkit))


@pytest.mark.parametrize("encoding", ["gb2312", "shift_jis", "iso-8859-1", "utf-16", "utf-8-sig"])
def test_annotations_in_other_encodings_are_read(devkit: Path, encoding: str) -> None:
    folder = "" if encoding == "iso-8859-1" else "写真"
    text = f"<folder>{folder}</folder><object><name>cat</name></object>"
    declared = encoding.removesuffix("-sig")
    content = f'<?xml version="1.0" encoding="{declared}"?>\n<annotation>{text}</annotation>'.encode(
        encoding, "replace"
    )
    (devkit / "Annotations/2007_000002.xml").write_bytes(content)
    assert VocDataset(devkit, "train").tags[1].nonzero().flatten().tolist() == [VOC_CLASSES.index("cat")]


@pytest.mark.parametrize(
    ("text", "expected", "got"),
    [
        ("<objects><object><name>cat</name></object></objects>", "every object as <object> .*", ".*<object>.*"),
        ("<Object><name>cat</name></Object>", "every object as <object> .*", ".*"),
        ('<object xmlns="http://x"><name>cat</name></object>', "every object as <object> .*", ".*"),
        ("<item><name>cat</name><bndbox/></item>", "every object as <object> .*", ".*<bndbox>.*"),
        ("<object><NAME>cat</NAME></object>", "one of .*", "class ''"),
        ("<object><name>Cat</name></object>", "one of .*", "class 'Cat'"),
        ("<object><name>\x1b[31m</name></object>", "a VOC annotation in XML", ".*"),
    ],
)
def test_objects_that_would_read_as_none(devkit: Path, text: str, expected: str, got: str) -> None:
    path = devkit / "Annotations/2007_000002.xml"
    path.write_text(f"<annotation>{text}</annotation>")
    fails(path, expected, got, lambda: VocDataset(devkit, "train"))


@pytest.mark.parametrize("encoding", ["nonsense", "rot13", "gb2312"])
def test_annotations_that_no_encoding_makes_readable(devkit: Path, encoding: str) -> None:
    path = devkit / "Annotations/2007_000002.xml"
    path.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?><annotation>'.encode() + b"\xff\xff</annotation>")
    fails(path, "a VOC annotation in XML", ".*", lambda: VocDataset(devkit, "train"))


# the two data sets of the course


def test_creatures_are_read_with_their_own_classes(creatures: Path) -> None:
    dataset = VocDataset(creatures, "trainaug", masks=True)
    assert len(dataset) == 8
    assert dataset.classes == ("zebbo", "dotkin", "ringlo", "plusmo", "tramlo")
    for index in range(len(dataset)):
        sample = dataset[index]
        labels = set(sample["mask"].unique().tolist()) - {0, VOID}
        assert labels == {k + 1 for k in range(5) if sample["tags"][k]}


def test_the_photographs_can_be_read(voc_sample: Path) -> None:
    dataset = VocDataset(voc_sample, "trainaug")
    assert len(dataset) == 2604
    assert dataset.classes == VOC_CLASSES
    counts = dict(zip(VOC_CLASSES, dataset.tags.sum(0).int().tolist(), strict=True))
    assert (counts["dog"], counts["cat"], counts["person"], counts["horse"]) == (928, 726, 674, 444)
    for index in range(0, len(dataset), 500):
        assert min(dataset[index]["image"].shape[1:]) == 224


def test_tags_of_the_photographs_go_with_their_masks(voc_sample: Path) -> None:
    dataset = VocDataset(voc_sample, "train", masks=True)
    assert len(dataset) == 437
    for index, name in enumerate(dataset.names):
        mask = read_mask(dataset.mask_path(name))
        seen = set(mask.unique().tolist()) - {0, VOID}
        assert seen <= {k + 1 for k in range(20) if dataset.tags[index, k]}, name
    assert dataset[0]["mask"].shape == dataset[0]["image"].shape[1:]
