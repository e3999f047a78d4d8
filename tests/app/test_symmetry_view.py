"""The symmetry study's page says what was found, draws it on one scale, and pictures what is fixed pixel by pixel."""

from __future__ import annotations

import base64
import io
import math
import re
import sys
from itertools import combinations, cycle
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from conftest import Visit
from PIL import Image
from streamlit.testing.v1 import AppTest

from app import theme
from app.charts import changes, galleries, images, masks, orders
from jobs import offline, queries
from jobs.progress_line import ProgressLine
from jobs.service import Service
from jobs.studies import symmetry
from symcore.symmetry.automorphisms import Certificate
from symcore.symmetry.inspector import EPSILON

SMOKE = symmetry.PRESETS["smoke"].model_copy(update={"draws": 2})
ORDER = ["standard", "sigma", "w"]
SVG, XLINK = "{http://www.w3.org/2000/svg}", "http://www.w3.org/1999/xlink"


def measured() -> pd.DataFrame:
    """Three draws of every transformation of three treatments; a standard network's swaps change nothing at all."""
    rows = [
        {
            "treatment": key,
            "transformation": name,
            "draw": draw,
            "change": 0.0 if key == "standard" else 0.1 * (draw + 1),
        }
        for key in ORDER
        for name in changes.NAMES
        for draw in range(3)
    ]
    return pd.DataFrame(rows)


def test_every_draw_is_a_dot_in_the_lane_of_its_treatment() -> None:
    points = changes.placed(measured(), ORDER)
    lanes = points.groupby(["transformation", "treatment"], sort=False)["y"].agg(["min", "max"])
    assert (lanes["min"] == lanes["max"]).all()
    assert lanes["min"].is_unique
    for row, name in enumerate(changes.NAMES):
        assert (points.loc[points["transformation"] == name, "y"].round() == row).all()
    assert points["at"].between(changes.LOWEST, changes.WORDS).all()
    assert (points.loc[points["change"] == 0, "at"] == changes.LOWEST).all()


@pytest.mark.parametrize("left_out", [[], ["scale", "shift"]])
def test_the_chart_marks_rounding_and_names_each_lane_in_its_colour(left_out: list[str]) -> None:
    frame = measured()
    chart = changes.dots(frame[~frame["transformation"].isin(left_out)], ORDER).to_dict()
    rows = {name: pd.DataFrame(data) for name, data in chart["datasets"].items()}
    marks = {layer["mark"]["type"]: layer for layer in chart["layer"]}
    dots, words = (rows[marks[kind]["data"]["name"]] for kind in ("circle", "text"))
    number = len(changes.NAMES) - len(left_out)
    assert len(dots) == 3 * 3 * number
    assert len(words) == 3 * number
    assert set(words["words"]) <= set(theme.ROLES)
    assert any(
        frame.get("told", pd.Series()).tolist() == ["rounding of float64"] and frame["at"][0] == EPSILON
        for frame in rows.values()
    )
    scales = [layer["encoding"]["x"]["scale"] for layer in chart["layer"] if "x" in layer["encoding"]]
    assert all(scale["type"] == "log" for scale in scales)
    axis = marks["circle"]["encoding"]["y"]["axis"]
    assert axis["values"] == list(range(number))
    for layer in chart["layer"]:
        if "field" in layer["encoding"]["color"]:
            assert layer["encoding"]["color"]["scale"] == {"domain": list(theme.ROLES), "range": "category"}


def test_the_table_has_a_row_per_transformation_with_each_treatments_median_and_greatest() -> None:
    frame = measured()
    told = changes.table(frame[(frame["treatment"] == "w") | (frame["transformation"] != "sign")], ORDER)
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in told.split("<tr>")[2:]]
    plain = [[re.sub("<[^>]*>", "", cell) for cell in row] for row in rows]
    assert plain == [
        ["–", "–", "0.2, 0.3"] if name == "sign" else ["0, 0", "0.2, 0.3", "0.2, 0.3"]
        for name in changes.NAMES
    ]


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"flippable": 0, "sign_changes": 0}, ""),
        ({"flippable": math.nan, "sign_changes": math.nan}, ""),
        (
            {"flippable": 6, "sign_changes": 0, "signed_log10_most": 0.0},
            "No sign change of neurons is left either.",
        ),
        (
            {"flippable": 6, "sign_changes": 6, "signed_log10_most": 6 * math.log10(2)},
            "No permutation; 2<sup>6</sup> sign changes remain.",
        ),
        (
            {
                "flippable": 6,
                "sign_changes": 6,
                "log10_most": math.log10(720),
                "signed_log10_most": math.log10(46080),
            },
            "2<sup>6</sup> sign changes are left too: 46,080 signed permutations.",
        ),
        (
            {
                "flippable": 3,
                "sign_changes": 1,
                "signed_log10_least": math.log10(2),
                "signed_log10_most": math.log10(4),
            },
            "2<sup>1</sup> sign changes are left too: 2 to 4 signed permutations.",
        ),
    ],
)
def test_the_certificate_tells_what_signs_are_left(known: dict[str, float], said: str) -> None:
    row = {"log10_most": 0.0, "signed_log10_least": known.get("signed_log10_most")} | known
    assert re.sub("<sup[^>]*>", "<sup>", orders.signs(row)).strip() == said


def test_a_pixel_is_a_weight_coloured_by_its_sign() -> None:
    fixed = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.5]])
    trainable = torch.tensor([[False, True, False], [True, False, False]])
    picture = masks.picture("layer", fixed, trainable)
    zoom = masks.PIXELS // 3
    assert picture.pixels.shape == (2 * zoom, 3 * zoom, 4)
    one = picture.pixels[::zoom, ::zoom]
    np.testing.assert_array_equal(one.repeat(zoom, 0).repeat(zoom, 1), picture.pixels)
    assert tuple(one[0, 0, :3]) == tuple(one[1, 2, :3]) == masks.POSITIVE
    assert tuple(one[0, 2, :3]) == masks.NEGATIVE
    assert tuple(one[1, 1]) == (*masks.ZERO, 255)
    assert one[0, 1, 3] == one[1, 0, 3] < 255 * masks.FAINTEST
    assert one[0, 0, 3] > one[0, 2, 3] > one[1, 2, 3]
    assert picture.told == "2 × 3, 66.7% fixed"


@pytest.mark.parametrize(
    ("shape", "down", "across"), [((512, 784), 4, 7), ((10, 512), 1, 4), ((16, 16, 3, 3), 1, 2)]
)
def test_a_large_layer_is_sampled_and_says_how(shape: tuple[int, ...], down: int, across: int) -> None:
    fixed = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    picture = masks.picture("layer", fixed, torch.zeros(shape, dtype=torch.bool))
    values = fixed.flatten(1)[::down, ::across].numpy()
    zoom = picture.pixels.shape[1] // values.shape[1]
    assert max(picture.pixels.shape) <= masks.PIXELS
    positive = (picture.pixels[::zoom, ::zoom, :3] == masks.POSITIVE).all(axis=-1)
    np.testing.assert_array_equal(positive, values > 0)
    told = " and ".join(
        f"every {n}{'nd' if n == 2 else 'th'} {what}"
        for n, what in ((down, "row"), (across, "column"))
        if n > 1
    )
    assert picture.told.endswith(f"all fixed; shown: {told}")


def test_all_pictures_of_a_network_are_one_file_in_which_each_is_named_and_whole() -> None:
    random = torch.Generator().manual_seed(0)
    shapes = {"hidden.0": (64, 256), "hidden.1": (3, 300), "hidden.1.bias": (64,), "readout": (10, 64)}
    layers = {
        name: masks.picture(name, torch.randn(shape, generator=random), torch.zeros(shape, dtype=torch.bool))
        for name, shape in shapes.items()
    }
    figure = galleries.figure(list(layers.values()))
    svg = ET.fromstring(images.image(figure, "svg"))
    said = [element.text for element in svg.iter(f"{SVG}text")]
    assert {meaning for meaning, *_ in masks.KEY} | set(shapes) <= set(said)
    drawn = {element.get("aria-label"): element for element in svg.iter(f"{SVG}image")}
    assert len(drawn) == len(shapes)
    for name, layer in layers.items():
        content = drawn[f"Fixed weights of {name}, {layer.told}"].get(f"{{{XLINK}}}href", "")
        pixels = Image.open(io.BytesIO(base64.b64decode(content.partition(",")[2])))
        np.testing.assert_array_equal(np.asarray(pixels), layer.pixels)
    assert images.image(figure, "png").startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_pictures_and_their_words_do_not_overlap_and_fit_the_page(count: int) -> None:
    shapes = [(512, 784), (10, 512), (64,), (16, 16, 3, 3), (300, 7)]
    layers = [
        masks.picture(f"layer {n}", torch.ones(shape), torch.zeros(shape, dtype=torch.bool))
        for n, shape in zip(range(count), cycle(shapes), strict=False)
    ]
    placed = list(galleries.placed(layers))
    assert all(one.left + one.wide <= galleries.WIDTH for one in placed)
    size = re.search(r'height="([0-9.]+)"', images.image(galleries.figure(layers), "svg").decode())
    assert size is not None
    assert 10 <= galleries.height(layers) - float(size[1]) < 20  # a browser takes about ten more
    for one, other in combinations(placed, 2):
        beside = one.left + one.wide < other.left or other.left + other.wide < one.left
        assert beside or one.end < other.top


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke preset, carried out without a server."""
    out = tmp_path_factory.mktemp("out") / "symmetry"
    offline.prepare(SMOKE, out, resume=False)
    place = offline.Place(out, out / "data", "cpu")
    assert offline.study(SMOKE, place, offline.Stop(), ProgressLine(sys.stderr)).state == "done"
    return out


def words(page: AppTest) -> str:
    said = [*page.html, *page.subheader, *page.caption, *page.markdown]
    return "\n".join(str(element.value if hasattr(element, "value") else element.proto) for element in said)


def pictured(page: AppTest) -> list[str]:
    """What those are told of a page's pictures who hear it."""
    datasets = [one.data.data for chart in page.get("vega_lite_chart") for one in chart.proto.datasets]
    read = [pa.ipc.open_stream(dataset).read_all() for dataset in datasets]
    return [told for table in read if "url" in table.column_names for told in table["told"].to_pylist()]


def test_a_finished_study_shows_orders_changes_and_masks(
    lab: Service, visit: Visit, carried_out: Path
) -> None:
    lab.import_folder(carried_out)
    (study,) = queries.studies(lab.store)["study"].to_pylist()
    page = visit("study", id=study)
    said = words(page)
    assert pictured(page) == [
        "Fixed weights of hidden.0.linear, 64 × 64, 12.5% fixed",
        "Fixed weights of hidden.1.linear, 64 × 64, 12.5% fixed",
        "Fixed weights of readout, 10 × 64, 50.0% fixed",
    ]
    assert said.count('class="lab-card"') == 3
    assert ">178.2</sup>" in said
    assert said.count(">None<") == 2
    assert "What a norm allows" in said
    assert said.count("What a norm allows") == said.count("What an activation allows") == 1
    assert (
        said.count("No sign change of neurons is left either") == 1
    )  # FiGLU's, whose F it would have to change
    assert all(changes.DOES[name] in said for name in changes.NAMES)
    gates = pictured(visit("study", id=study, fixed="σ-Asymmetric"))
    assert [told.endswith("64 × 64, all fixed") for told in gates] == [True, True]
    for url in ("", "studies"):
        assert ">178.2</sup>" in words(visit(url))
    for run in queries.study(lab.store, study)["runs"]:
        shown = visit("run", id=run["run"])
        told = words(shown)
        assert told.count('class="lab-card"') == 1
        assert (changes.DOES["sign"] in told) is run["role"].startswith("sigma")
        assert ("every weight is trained" in told) is run["role"].startswith("standard")
        assert bool(pictured(shown)) is not run["role"].startswith("standard")


def test_every_way_of_knowing_an_order_has_words() -> None:
    assert set(orders.CERTIFICATES) == set(get_args(Certificate))


@pytest.mark.parametrize("preset", symmetry.PRESETS)
def test_launch_starts_exactly_the_preset_it_shows(lab: Service, visit: Visit, preset: str) -> None:
    page = visit("launch", study="symmetry", preset=preset)
    next(button for button in page.button if button.label == "Start").click().run()
    (study,) = queries.studies(lab.store).to_pylist()
    assert symmetry.Spec.model_validate_json(study["spec"]) == symmetry.PRESETS[preset]


def test_a_study_on_its_way_has_dashes(lab: Service, visit: Visit) -> None:
    study = lab.submit(SMOKE)
    said = words(visit("study", id=study))
    assert said.count("not inspected yet") == 3
    run = queries.study(lab.store, study)["roles"]["w/inspect/0"]
    visit("run", id=run)


def test_masks_that_are_gone_are_told_in_words(lab: Service, visit: Visit, carried_out: Path) -> None:
    lab.import_folder(carried_out)
    (study,) = queries.studies(lab.store)["study"].to_pylist()
    run: dict[str, Any] = next(
        r for r in queries.study(lab.store, study)["runs"] if r["role"] == "w/inspect/0"
    )
    (lab.run_folder(run["run"]) / "weights.safetensors").unlink()
    assert "gone from the run's folder" in words(visit("study", id=study))
