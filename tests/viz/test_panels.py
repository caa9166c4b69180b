import base64
import io
import json

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image

from rsepm_edu.data.palette import VOID, colourise, voc_palette
from rsepm_edu.viz import panels

PALETTE = np.array(voc_palette()).reshape(256, 3)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_overlay_of_one_map_mixes_image_and_heat_colour_pixel_by_pixel(image):
    values = torch.linspace(0, 1, 48).reshape(6, 8)
    result = panels.overlay(image, values, opacity=0.25)
    for y in range(6):
        for x in range(8):
            heat = panels.HEAT[round(float(values[y, x]) * 255)]
            wanted = [0.75 * float(image[c, y, x]) + 0.25 * float(heat[c]) for c in range(3)]
            assert np.abs(result[y, x] - np.array(wanted)).max() <= 0.5 + 1e-6
    assert result.dtype == np.uint8 and result.shape == (6, 8, 3)


def test_overlay_of_maps_shows_the_strongest_class_by_its_value(image):
    maps = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(1))
    result = panels.overlay(image, maps, opacity=0.9)
    for y in range(6):
        for x in range(8):
            k = max(range(3), key=lambda k: float(maps[k, y, x]))
            weight = 0.9 * float(maps[k, y, x])
            wanted = (1 - weight) * image[:, y, x].numpy() + weight * PALETTE[k + 1]
            assert np.abs(result[y, x] - wanted).max() <= 0.5 + 1e-6


def test_overlay_does_not_rescale_a_weak_map(image):
    weak = torch.full((1, 6, 8), 0.1)
    strong = torch.full((1, 6, 8), 1.0)
    assert (panels.overlay(image, 0 * weak) == image.permute(1, 2, 0).numpy()).all()
    assert (panels.overlay(image, strong, opacity=1.0) == PALETTE[1]).all()
    changed = np.abs(panels.overlay(image, weak).astype(int) - image.permute(1, 2, 0).numpy())
    assert changed.max() <= 0.06 * 255 + 1  # opacity 0.6 times 0.1, never more


def test_overlay_of_a_mask_leaves_background_and_hides_nothing_of_void(image):
    mask = torch.zeros(6, 8, dtype=torch.int64)
    mask[0], mask[1] = 2, VOID
    result = panels.overlay(image, mask, opacity=0.5)
    assert (result[2:] == image.permute(1, 2, 0)[2:].numpy()).all()
    assert (result[1] == PALETTE[VOID]).all()
    mixed = 0.5 * image[:, 0].T.numpy() + 0.5 * PALETTE[2]
    assert np.abs(result[0] - mixed).max() <= 0.5 + 1e-6


def test_overlay_leaves_its_inputs_alone(image):
    values = torch.rand(2, 6, 8)
    before = image.clone(), values.clone()
    panels.overlay(image, values)
    assert torch.equal(image, before[0]) and torch.equal(values, before[1])


@pytest.mark.parametrize("bad", [1.01, -0.1, float("nan")])
@pytest.mark.parametrize("shape", [(6, 8), (2, 6, 8)])
def test_overlay_rejects_maps_that_nobody_normalised(image, bad, shape):
    values = torch.full(shape, 0.5)
    values[..., 0, 0] = bad
    with pytest.raises(ValueError, match=r"expected a map in \[0, 1\].*normalise first"):
        panels.overlay(image, values)


def test_overlay_takes_rounding_errors(image):
    almost = torch.tensor([1 + 1e-6, -1e-6]).repeat(6, 4)
    assert (panels.overlay(image, almost) == panels.overlay(image, almost.clamp(0, 1))).all()


def test_overlay_rejects_wrong_sizes_and_dtypes(image):
    with pytest.raises(ValueError, match=r"size \(6, 8\), got shape \(3, 4\)"):
        panels.overlay(image, torch.zeros(3, 4))
    with pytest.raises(TypeError, match="expected a uint8 image, got float32"):
        panels.overlay(image.float(), torch.zeros(6, 8))
    with pytest.raises(ValueError, match="expected an image 3xHxW or HxWx3, got shape"):
        panels.picture(image[0])
    with pytest.raises(ValueError, match="expected a map HxW, got shape"):
        panels.heat(torch.zeros(1, 6, 8))


def test_picture_takes_both_orders(image):
    assert (panels.picture(image) == panels.picture(image.permute(1, 2, 0))).all()


def test_a_long_legend_names_only_the_colours_that_are_shown():
    names = [f"class {k}" for k in range(1, 21)]
    masks = [colourise(torch.tensor([[0, 3], [3, 0]])), colourise(torch.tensor([[0, 17], [255, 255]]))]
    photograph = np.array([[[128, 128, 128], [77, 77, 77]]], dtype=np.uint8)  # the grey of class 7 by chance
    for pictures, wanted in (
        ([photograph, masks[0]], ["background", "class 3"]),
        (masks, ["background", "class 3", "class 17", "void"]),
        ([np.full((4, 4, 3), 77, dtype=np.uint8)], ["background", *names, "void"]),  # blends: nothing to go by
    ):
        figure = panels.panel([pictures], [""] * len(pictures), legend=panels.class_colours(names))
        assert [text.get_text() for text in figure.legends[0].get_texts()] == wanted


def test_panel_is_a_table_with_headers_titles_and_legend(image):
    figure = panels.panel(
        [[image, None], [panels.heat(torch.zeros(6, 8)), image]],
        ["one", "two"],
        ["first", "second"],
        legend=panels.class_colours(["cat"]),
    )
    assert isinstance(figure, Figure)
    assert [ax.get_title() for ax in figure.axes] == ["one", "two", "", ""]
    assert [ax.get_ylabel() for ax in figure.axes] == ["first", "", "second", ""]
    assert [len(ax.images) for ax in figure.axes] == [1, 0, 1, 1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "background",
        "cat",
        "void",
    ]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_panel_rejects_a_table_with_holes(image):
    with pytest.raises(ValueError, match=r"expected rows of 2 pictures, got \[1\]"):
        panels.panel([[image]], ["a", "b"])
    with pytest.raises(ValueError, match="expected 1 titles, got 2"):
        panels.panel([[image]], ["a"], ["x", "y"])


def opened(figure) -> Image.Image:
    with Image.open(io.BytesIO(figure._repr_png_())) as png:
        return png.convert("RGB")


def test_a_long_row_goes_on_in_the_next_line_and_every_figure_fills_the_column(image):
    for count, lines in ((1, 1), (4, 1), (5, 2), (8, 2), (9, 3)):
        figure = panels.panel([[image] * count], [f"picture {n}" for n in range(count)])
        assert [ax.get_title() for ax in figure.axes] == [f"picture {n}" for n in range(count)]
        tops = {round(ax.get_position().y1, 6) for ax in figure.axes}
        assert len(tops) == lines
        sides = [side for ax in figure.axes for side in (ax.get_position().x0, ax.get_position().x1)]
        assert min(sides) >= 0 and max(sides) <= 1
        png = opened(figure)
        assert png.width == panels.WIDTH * panels.DENSITY
    table = panels.panel([[image] * 6, [image] * 6], list("abcdef"))  # a table keeps its rows
    assert len({round(ax.get_position().y1, 6) for ax in table.axes}) == 2


def test_colours_of_areas_come_through_the_palette_and_the_picture_stays_near():
    names = [f"class {k}" for k in range(1, 6)]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8, generator=generator)
    figure = panels.panel(
        [[noise, colourise(torch.arange(6).repeat_interleave(16).repeat(96, 1))]],
        ["a", "b"],
        legend=panels.class_colours(names),
    )
    png = opened(figure)
    colours = {colour for count, colour in png.getcolors(png.width * png.height) if count > 100}
    for wanted in panels.class_colours(names).values():
        assert tuple(bytes.fromhex(wanted[1:])) in colours, wanted


def test_digits_stand_out_from_their_squares():
    figure = panels.numbers({"w": torch.tensor([[-9.0, -1, 0, 1, 9]])})
    (ax,) = figure.axes
    shown = ax.images[0]
    for text, value in zip(ax.texts, (-9.0, -1, 0, 1, 9), strict=True):
        under = shown.cmap(shown.norm(value))
        light = [
            panels._brightness(colour) for colour in (under, (0, 0, 0) if text.get_color() == "black" else (1, 1, 1))
        ]
        assert abs(light[0] - light[1]) > 0.45, (value, light)


def test_tensors_that_do_not_fit_one_line_stand_below_one_another():
    figure = panels.numbers({"one": torch.zeros(3, 9), "two": torch.zeros(3, 9), "v": [1.0]})
    tops = [round(ax.get_position().y1, 6) for ax in figure.axes]
    assert tops[0] > tops[1] == tops[2]
    assert all(ax.get_position().x0 >= 0 and ax.get_position().x1 <= 1 for ax in figure.axes)


def test_class_colours_are_the_palette():
    assert panels.class_colours(["a", "b"]) == {
        "background": "#000000",
        "a": "#800000",
        "b": "#008000",
        "void": "#e0e0c0",
    }


def test_numbers_writes_every_entry():
    figure = panels.numbers({"F": torch.arange(8.0).reshape(2, 2, 2), "w": torch.tensor([[1, -1], [0, 2]]), "v": [0.5]})
    assert [ax.get_title() for ax in figure.axes] == ["F[0]", "F[1]", "w", "v"]
    texts = [[text.get_text() for text in ax.texts] for ax in figure.axes]
    assert texts == [["0", "1", "2", "3"], ["4", "5", "6", "7"], ["1", "-1", "0", "2"], ["0.5"]]
    assert figure.axes[3].images[0].get_array().shape == (1, 1)
    with pytest.raises(ValueError, match="expected CxHxW, HxW or W"):
        panels.numbers({"F": torch.zeros(1, 1, 1, 1)})


def test_curves_draws_every_value_up_to_its_limit():
    ax = panels.curves(
        [1, 2, 3], {"a": [0.5, 1.5, 0.2], "b": [float("nan"), 0.1, 0.2]}, xlabel="epoch", limit=1.6
    ).axes[0]
    assert ax.get_ylim() == (0, 1.6)
    assert [line.get_label() for line in ax.lines] == ["a", "b"]
    assert ax.lines[0].get_ydata().tolist() == [0.5, 1.5, 0.2]
    with pytest.raises(ValueError, match="a: expected 3 values, got 2"):
        panels.curves([1, 2, 3], {"a": [0.5, 1.5]}, xlabel="epoch")


def test_figures_leave_no_pyplot_state(image):
    import matplotlib.pyplot as plt

    panels.panel([[image]], ["a"])
    panels.numbers({"a": torch.zeros(2, 2)})
    assert plt.get_fignums() == []


def sample(image, **given):
    mask = torch.zeros(6, 8, dtype=torch.int64)
    mask[0], mask[1] = 2, VOID
    maps = torch.zeros(3, 6, 8)
    maps[2, 0, 0] = 1.0
    return panels.PanelSample(image=image, name="p1", cam=maps, rs_map=maps, pseudo_mask=mask, **given)


def test_training_panel_shows_the_masks_unchanged_and_names_the_drawn_classes(image):
    figure = panels.training_panel([sample(image)], ["cat", "dog", "cow"])
    assert [ax.get_title() for ax in figure.axes] == ["image", "cam", "M_rs, refined CAM", "pseudo mask"]
    shown = figure.axes[3].images[0].get_array()
    assert (np.asarray(shown) == colourise(sample(image).pseudo_mask)).all()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["background", "dog", "cow", "void"]


def test_save_panel_writes_the_columns_that_are_given(image, tmp_path):
    path = tmp_path / "panels" / "epoch_003.png"
    decoder = torch.ones(6, 8, dtype=torch.uint8)
    panels.save_panel(path, [sample(image, decoder=decoder), sample(image)], ["cat", "dog", "cow"])
    with Image.open(path) as png:
        assert png.format == "PNG" and png.width > 600
    assert [file.name for file in path.parent.iterdir()] == ["epoch_003.png"]


def test_training_panel_rejects_masks_of_another_size(image):
    small = panels.PanelSample(image=image, decoder=torch.zeros(3, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"expected decoder \(6, 8\), got shape \(3, 4\)"):
        panels.training_panel([small], ["cat"])


def test_judge_and_verdict_sort_every_pixel_that_is_not_void(image):
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(6, 8, generator=generator) < 0.5
    truth = torch.randint(0, 4, (6, 8), generator=generator)
    truth[2] = VOID
    shown = panels.verdict(image, mask, truth, 2)
    parts = panels.judge(mask, truth, 2)
    for y in range(6):
        for x in range(8):
            grey = float(image[:, y, x].float().mean())
            wanted = [0.6 * (0.35 * float(value) + 0.65 * grey) for value in image[:, y, x]]
            found, true = bool(mask[y, x]), int(truth[y, x])
            case = None if true == VOID else {(1, 1): 0, (1, 0): 1, (0, 1): 2}.get((found, true == 2))
            assert [bool(part[y, x]) for part in parts] == [case == i for i in range(3)]
            if case is not None:
                colour = (panels.RIGHT, panels.EXTRA, panels.MISSED)[case]
                wanted = [0.25 * value + 0.75 * c for value, c in zip(wanted, colour, strict=True)]
            assert np.abs(shown[y, x] - np.array(wanted)).max() <= 1


def test_judge_rejects_label_maps_and_other_sizes():
    with pytest.raises(TypeError, match="expected a bool mask, got int64"):
        panels.judge(torch.ones(2, 2, dtype=torch.int64), torch.ones(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expected truth \(2, 2\), got \(2, 3\)"):
        panels.judge(torch.ones(2, 2, dtype=torch.bool), torch.ones(2, 3, dtype=torch.int64))


def test_plane_draws_points_lines_arrows_and_one_legend_entry_a_name():
    figure = panels.plane(
        {"CAM": (0.4, 0.3), "RS": [(0.2, 0.1), (0.3, 0.2)]},
        lines={"CAM": [(0.7, 0.0), (0.4, 0.3), (0.1, 0.8)], "PAMR": torch.tensor([[0.5, 0.1], [0.2, 0.4]])},
        arrows=[((0.4, 0.3), (0.2, 0.1))],
        limit=0.8,
    )
    (ax,) = figure.axes
    assert ax.get_xlim() == ax.get_ylim() == (0, 0.8)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("FP", "FN")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["CAM", "RS", "PAMR"]
    drawn = [np.column_stack(line.get_data()).round(6).tolist() for line in ax.lines]
    assert [[0.0, 0.5], [0.5, 0.0]] in drawn  # the diagonal of IoU 0.5
    for wanted in ([[0.4, 0.3]], [[0.2, 0.1], [0.3, 0.2]], [[0.5, 0.1], [0.2, 0.4]]):
        assert wanted in drawn
    arrows = [text for text in ax.texts if isinstance(text, Annotation)]
    assert [(arrow.xy, arrow.xyann) for arrow in arrows] == [((0.2, 0.1), (0.4, 0.3))]
    colours = {line.get_color() for line in ax.lines if len(line.get_xdata()) in (1, 3)}
    assert len(colours) == 1  # the curve and the point of one name
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((0.6, 0.5), r"a: expected FP, FN >= 0 and FP \+ FN <= 1, got \[\[0.6, 0.5\]\]"),
        ((-0.1, 0.5), r"expected FP, FN >= 0"),
        ((float("nan"), 0.5), r"expected FP, FN >= 0"),
        ([[0.1, 0.2, 0.3]], r"a: expected \(FP, FN\) or Nx2, got shape \(1, 3\)"),
    ],
)
def test_plane_rejects_what_no_mask_can_have(value, said):
    with pytest.raises(ValueError, match=said):
        panels.plane({"a": value})
    with pytest.raises(ValueError, match=said):
        panels.plane({}, lines={"a": value})
    with pytest.raises(ValueError, match=said.replace("a: ", "arrow: ")):
        panels.plane({}, arrows=[((0, 0), value)])


def test_ranges_draws_every_value_its_range_and_the_mark():
    figure = panels.ranges(
        {"CAM": [40.0, 43.0, 41.0], "RS": [], "EPM": [50.0]},
        xlabel="mIoU",
        marks={"RS": 45.0},
        mark_name="theirs",
        zero=True,
    )
    (ax,) = figure.axes
    drawn = [np.column_stack(line.get_data()).tolist() for line in ax.lines]
    assert [[40.0, 0.0], [43.0, 0.0]] in drawn  # the range
    assert [[124 / 3, 0.0]] in drawn  # the mean
    assert [[40.0, 0.0], [43.0, 0.0], [41.0, 0.0]] in drawn
    assert [[45.0, 1.0]] in drawn  # the mark of the row without values
    assert [text.get_text() for text in ax.get_yticklabels()] == ["CAM", "RS", "EPM"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours, a dot a seed", "theirs"]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_ranges_rejects_marks_of_no_row_and_what_is_no_number():
    with pytest.raises(ValueError, match=r"expected rows, and marks among them, got \['a'\] and \['b'\]"):
        panels.ranges({"a": [1.0]}, xlabel="x", marks={"b": 1.0})
    with pytest.raises(ValueError, match="expected rows"):
        panels.ranges({}, xlabel="x")
    with pytest.raises(ValueError, match="expected finite values"):
        panels.ranges({"a": [float("nan")]}, xlabel="x")


def test_a_figure_says_where_its_tiles_lie():
    colours = [np.full((10, 10, 3), value, dtype=np.uint8) for value in (40, 90, 140, 190)]
    for figure in (
        panels.panel([colours[:2], colours[2:]], ["left", "right"], ["above", "below"]),
        panels.panel([colours], ["a", "b", "c", "d"], size=3.0),  # goes on in the next line
    ):
        data, metadata = figure._repr_mimebundle_()
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB"))
        tiles = metadata["image/png"]["parts"]["tiles"]
        for tile, colour in zip(tiles, colours, strict=True):
            x, y, w, h = tile["box"]
            inside = image[y + 3 : y + h - 3, x + 3 : x + w - 3]
            assert w > 300 and (inside == colour[0, 0]).all(), tile
        assert tiles[3]["name"] == ("right" if tiles[3]["row"] else "d")
    assert tiles[0]["row"] == "" and json.dumps(metadata)
    shown = panels.numbers({"x": np.eye(2), "y": np.eye(3)})._repr_mimebundle_()[1]["image/png"]["parts"]
    assert shown["kind"] == "numbers" and [tile["name"] for tile in shown["tiles"]] == ["x", "y"]
