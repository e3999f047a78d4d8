"""Surfaces on the page: drawn while they are computed, on one scale, with their numbers, and taken away as files."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from typing import Any

import made_up
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import Visit
from hypothesis import given
from hypothesis import strategies as st
from test_pages import labels, words

from app import exports, queries, theme
from app.charts import flatness, surfaces
from app.charts.quantities import ACCURACY, LOSS
from app.charts.surfaces import Look, Surface, Window
from app.views import landscape as view
from app.views import surface as surface_view
from jobs import queries as reads
from jobs.kinds.surface import TABLES
from jobs.ledger import Move
from jobs.service import Service
from jobs.states import State
from jobs.studies import landscape
from symcore.landscape.surfaces import rounds

POINTS = 21
SPEC = landscape.PRESETS["smoke"]
MARKS = {"a": (0, 0), "b": (1, 0), "c": (0.5, 0.9), "ab": (0.5, 0), "bc": (0.75, 0.45), "ac": (0.25, 0.45)}


def cells(window: Window, steepness: float = 1.0, count: int | None = None) -> pd.DataFrame:
    """The first cells of a bowl, in the order in which they are evaluated."""
    row, column = np.concatenate(rounds(window.points, window.points))[:count].T
    x, y = window.at(column), window.at(row)
    loss = 0.05 + steepness * (x**2 + y**2)
    return pd.DataFrame(
        {"row": row, "column": column, "x": x, "y": y, "loss": loss, "accuracy": 100 - 10 * loss}
    )


def marks(plane: str) -> pd.DataFrame:
    names = MARKS if plane == "through" else ["a"]
    rows = [
        {"name": name, "x": MARKS[name][0], "y": MARKS[name][1], "loss": 0.1, "accuracy": 98.0}
        for name in names
    ]
    return pd.DataFrame(rows)


def surface(treatment: str, plane: str, steepness: float = 1.0, count: int | None = None) -> Surface:
    window = surfaces.window(plane, 1.0 if plane == "random" else 0.25, POINTS)
    return Surface(treatment, plane, window, cells(window, steepness, count), marks(plane))


def figure(
    steepness: tuple[float, ...] = (1.0, 4.0), quantity: Any = LOSS, *, log: bool = False
) -> dict[str, Any]:
    rows = {
        plane: [surface(name, plane, s) for name, s in zip(("standard", "w"), steepness, strict=True)]
        for plane in ("random", "through")
    }
    values = pd.concat([one.cells[quantity.key] for row in rows.values() for one in row])
    scale = surfaces.colours(values, quantity, 10, log=log)
    drawn: dict[str, Any] = surfaces.figure(rows, Look(quantity, "test", scale, surfaces.side(2))).to_dict()
    return drawn


def panels(drawn: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for row in drawn["vconcat"] for panel in row["hconcat"]]


def rect(panel: dict[str, Any]) -> dict[str, Any]:
    (found,) = (layer for layer in panel["layer"] if layer["mark"]["type"] == "rect")
    return found


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("quantity", [LOSS, ACCURACY], ids=["loss", "accuracy"])
def test_all_surfaces_share_colours_and_one_legend(quantity: Any, log: bool) -> None:
    drawn = figure(quantity=quantity, log=log)
    scales = [rect(panel)["encoding"]["fill"]["scale"] for panel in panels(drawn)]
    assert len(scales) == 4
    assert all(scale == scales[0] for scale in scales)
    assert drawn["resolve"]["scale"]["fill"] == "shared"
    legend = rect(panels(drawn)[0])["encoding"]["fill"]["legend"]
    assert legend["title"][:2] == [f"test {quantity.key}", f"({quantity.unit})"]


def test_what_is_good_is_dark_whichever_quantity_is_drawn() -> None:
    scales = [
        rect(panels(figure(quantity=quantity))[0])["encoding"]["fill"]["scale"]
        for quantity in (LOSS, ACCURACY)
    ]
    assert [scale["scheme"] for scale in scales] == ["viridis"] * 2  # from dark to bright
    assert [scale["reverse"] for scale in scales] == [False, True]


def test_surfaces_of_a_kind_of_plane_share_their_span_and_are_square() -> None:
    for row in figure()["vconcat"]:
        domains = [
            rect(panel)["encoding"][axis]["scale"]["domain"] for panel in row["hconcat"] for axis in "xy"
        ]
        assert all(domain == domains[0] for domain in domains)
        assert {(panel["width"], panel["height"]) for panel in row["hconcat"]} == {(300, 300)}


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_a_figure_fits_beside_the_side_bar(columns: int) -> None:
    width = surfaces.AXIS + columns * surfaces.side(columns) + (columns - 1) * surfaces.GAP + surfaces.LEGEND
    assert width <= surfaces.WIDTH


def test_more_treatments_than_fit_beside_each_other_stand_on_another_line() -> None:
    assert surfaces.side(7) == surfaces.side(surfaces.ACROSS) > 150
    assert surfaces.height(2, 7) == 2 * surfaces.height(2, surfaces.ACROSS)


def test_axes_say_what_they_are_and_in_which_unit() -> None:
    titles = [[rect(panel)["encoding"][axis] for axis in "xy"] for panel in panels(figure())]
    assert titles[0][0]["axis"]["title"] == "first direction (filter norms)"
    assert titles[2][1]["axis"]["title"] == "towards c (distances a–b)"
    assert titles[1][1]["axis"] is titles[3][1]["axis"] is None  # beside the first


def test_colours_end_at_twice_the_loss_of_guessing_and_the_legend_says_so() -> None:
    top = 2 * math.log(10)
    low, high = (figure((1.0, steepness)) for steepness in (1.2, 40.0))
    legends = [rect(panels(drawn)[0])["encoding"]["fill"]["legend"] for drawn in (low, high)]
    assert len(legends[0]["title"]) == 2
    assert legends[1]["title"][2] == f"clipped at {top:.2g}"
    scale = rect(panels(high)[0])["encoding"]["fill"]["scale"]
    assert scale["domain"] == [0, pytest.approx(top)]
    assert scale["clamp"]


def test_a_surface_without_a_number_is_drawn_without_it() -> None:
    one = surface("standard", "random")
    one.cells.loc[3, "loss"] = math.nan
    scale = surfaces.colours(one.cells["loss"], LOSS, 10, log=True)
    assert math.isfinite(scale.low)
    assert math.isfinite(scale.high)
    surfaces.figure({"": [one]}, Look(LOSS, "test", scale, 200)).to_dict()


@given(st.sampled_from([5, 9, 21, 51, 75]), st.floats(0, 1))
def test_what_is_known_covers_the_surface_and_every_cell_lies_in_its_own_rectangle(
    points: int, share: float
) -> None:
    window = Window(-1.0, 1.0, points)
    first = len(rounds(points, points)[0])
    known = cells(window, count=first + round(share * (points**2 - first)))
    drawn = surfaces.extents(known, window)
    assert len(drawn) <= len(known)
    assert drawn["x"].between(drawn["left"], drawn["right"]).all()
    assert drawn["y"].between(drawn["bottom"], drawn["top"]).all()
    fine = window.at(np.arange(points))
    x, y = np.meshgrid(fine, fine)
    covered = np.zeros(x.shape, dtype=bool)
    for cell in drawn.itertuples():
        covered |= (x >= cell.left) & (x <= cell.right) & (y >= cell.bottom) & (y <= cell.top)
    assert covered.all()


def test_a_whole_surface_is_drawn_cell_by_cell_and_a_coarse_one_in_large_cells() -> None:
    window = Window(-1.0, 1.0, POINTS)
    step = 2 / (POINTS - 1)
    whole = surfaces.extents(cells(window), window)
    assert len(whole) == POINTS**2
    np.testing.assert_allclose(whole["right"] - whole["left"], step)
    coarse = surfaces.extents(cells(window, count=len(rounds(POINTS, POINTS)[0])), window)
    inner = coarse[(coarse["left"] > -1) & (coarse["right"] < 1)]
    np.testing.assert_allclose(inner["right"] - inner["left"], 4 * step)


def test_a_fine_surface_is_drawn_in_part() -> None:
    window = Window(-1.0, 1.0, 201)
    drawn = surfaces.extents(cells(window), window)
    assert drawn["row"].nunique() <= surfaces.DRAWN
    assert (drawn["right"].max() - drawn["left"].min()) == pytest.approx(2 + 2 / 200)


def test_a_contour_of_a_bowl_is_a_circle() -> None:
    axis = np.linspace(-1, 1, 101)
    x, y = np.meshgrid(axis, axis)
    segments = surfaces.contour(axis, axis, x**2 + y**2, 0.25)
    radii = np.linalg.norm(segments.reshape(-1, 2), axis=1)
    np.testing.assert_allclose(radii, 0.5, atol=1e-3)
    length = np.linalg.norm(segments[:, 0] - segments[:, 1], axis=1).sum()
    assert length == pytest.approx(np.pi, rel=1e-3)


def test_a_contour_of_a_slope_is_where_the_slope_has_its_height() -> None:
    xs, ys = np.linspace(0, 3, 7), np.linspace(-1, 1, 5)
    segments = surfaces.contour(xs, ys, np.broadcast_to(2 * xs, (5, 7)), 2.5)
    np.testing.assert_allclose(segments[..., 0], 1.25)
    assert np.abs(segments[:, 0, 1] - segments[:, 1, 1]).sum() == pytest.approx(2)
    assert surfaces.contour(xs, ys, np.zeros((5, 7)), 1.0).shape == (0, 2, 2)


def test_the_three_networks_and_their_midpoints_tell_their_numbers() -> None:
    drawn = figure()
    datasets = drawn["datasets"]
    around, through = panels(drawn)[0], panels(drawn)[2]

    def told(panel: dict[str, Any], kind: str) -> list[str]:
        (layer,) = (layer for layer in panel["layer"] if layer["mark"]["type"] == kind)
        assert [tip["field"] for tip in layer["encoding"]["tooltip"]] == ["told", "loss", "accuracy"]
        return [row["told"] for row in datasets[layer["data"]["name"]]]

    assert told(through, "circle") == ["network a", "network b", "network c"]
    assert told(through, "point") == ["midway a–b", "midway b–c", "midway a–c"]
    assert told(around, "circle") == ["network a"]


def test_networks_have_their_treatments_colour_in_both_themes() -> None:
    for panel, treatment in zip(panels(figure()), ("standard", "w") * 2, strict=True):
        (dots,) = (layer for layer in panel["layer"] if layer["mark"]["type"] == "circle")
        assert dots["encoding"]["color"]["scale"] == {"domain": list(theme.ROLES), "range": "category"}
        assert theme.words(treatment) in panel["title"]["color"]["expr"]


def finish(lab: Service, study: str, count: int | None = None) -> None:
    """Take a study's runs to their end with made-up bowls, or, with `count`, into their midst."""
    for member in reads.study(lab.store, study)["runs"]:
        if member["state"] == "done":
            continue
        run, (treatment, part, _) = member["run"], member["role"].split("/")
        made_up.start(lab, run)
        batches = [] if part == "train" else _records(treatment, part, count)
        lab.store.ingest(run, 0, batches).result()
        if count is None:
            lab.ledger.move([Move(run, State.DONE, {"batches": len(batches)}, {"test/lowest loss": 0.05})])


def _records(treatment: str, plane: str, count: int | None) -> list[tuple[str, pa.RecordBatch]]:
    one = surface(treatment, plane, {"standard": 4.0, "sigma": 2.0, "w": 0.5}[treatment], count)
    frames = {"surface_mark": one.marks, "surface_cell": one.cells}
    return [
        (
            name,
            pa.RecordBatch.from_pandas(
                frame.assign(accuracy=frame["accuracy"] / 100), schema=TABLES[name], preserve_index=False
            ),
        )
        for name, frame in frames.items()
    ]


@pytest.mark.parametrize("quantity", ["loss", "accuracy"])
def test_a_finished_study_shows_its_surfaces_and_says_on_what_they_were_measured(
    lab: Service, visit: Visit, quantity: str
) -> None:
    study = lab.submit(SPEC)
    finish(lab, study)
    page = visit("study", id=study, quantity=quantity)
    said = words(page)
    assert said.count('class="lab-card"') == 3
    assert "all 497 test images" in said
    assert "Li et al. 2018" in said
    assert len(page.get("vega_lite_chart")) == 1
    assert [button.label for button in page.download_button][-2:] == ["CSV", "LaTeX"]


def test_images_that_were_drawn_are_told_with_their_number_and_seed(lab: Service, visit: Visit) -> None:
    study = lab.submit(SPEC.model_copy(update={"images": 100, "subset_seed": 7}))
    finish(lab, study)
    assert "the same 100 of 497 test images (drawn by seed 7)" in words(visit("study", id=study))


def test_a_study_on_its_way_shows_coarse_surfaces(lab: Service, visit: Visit) -> None:
    study = lab.submit(SPEC)
    assert not visit("study", id=study).get("vega_lite_chart")
    finish(lab, study, count=60)
    page = visit("study", id=study)
    assert len(page.get("vega_lite_chart")) == 1
    assert words(page).count("0 of 1 planes") == 3
    assert "Cancel" in labels(page)


@pytest.mark.parametrize("role", ["w/random/0", "sigma/through/0"])
def test_a_surface_run_shows_both_quantities(lab: Service, visit: Visit, role: str) -> None:
    study = lab.submit(SPEC)
    run = reads.study(lab.store, study)["roles"][role]
    assert not visit("run", id=run).get("vega_lite_chart")
    finish(lab, study, count=60)
    assert len(visit("run", id=run).get("vega_lite_chart")) == 2


def test_two_studies_stand_on_one_page_and_what_keeps_them_from_comparing_is_said(
    lab: Service, visit: Visit
) -> None:
    alike = SPEC.model_copy(update={"seed": 1})
    apart = SPEC.model_copy(update={"images": 50, "subset_seed": 3, "span": 2.0})
    first, *others = [lab.submit(spec) for spec in (SPEC, alike, apart)]
    for study in (first, *others):
        finish(lab, study)
    page = visit("study", id=first)
    (choice,) = page.selectbox
    for other, said in zip(others, (False, True), strict=True):
        choice.set_value(other).run()
        assert not page.exception
        assert bool(page.warning) is said
    assert (
        "Not the same images: digits, 497 of 497 test images / digits, 50 of 497 test images, seed 3."
        in words(page)
    )
    assert "Not the same span of the random planes: 1 / 2." in words(page)


def role(lab: Service, study: str, name: str) -> str:
    """The run that plays a role in a study."""
    return str(reads.study(lab.store, study)["roles"][name])


def test_surfaces_of_runs_of_any_studies_stand_beside_one(lab: Service, visit: Visit) -> None:
    studies = [
        lab.submit(spec) for spec in (SPEC, SPEC.model_copy(update={"images": 50, "span": 2.0, "seed": 1}))
    ]
    for study in studies:
        finish(lab, study)
    one, alike, apart = (
        role(lab, study, name)
        for study, name in (
            (studies[0], "w/random/0"),
            (studies[0], "sigma/random/0"),
            (studies[1], "w/random/0"),
        )
    )
    page = visit("run", id=one)
    (choice,) = page.multiselect
    assert len(choice.options) == 2 * 3 * 3 - 1
    choice.set_value([alike]).run()
    assert not page.exception
    assert not page.warning
    page = visit("run", id=one, beside=[alike, apart])
    assert page.multiselect[0].value == [alike, apart]
    said = words(page)
    assert "Not the same span of random planes: 1 / 1 / 2." in said
    assert "Not the same images" in said
    for chart in page.get("vega_lite_chart"):
        drawn = json.loads(chart.proto.spec)
        assert [panel["title"]["text"] for panel in panels(drawn)] == [
            f"W-Asymmetric ({one})",
            f"σ-Asymmetric ({alike})",
            f"W-Asymmetric ({apart})",
        ]


def run_spec(plane: dict[str, Any], **settings: Any) -> dict[str, Any]:
    common = {"data": "digits", "data_checksum": "1" * 64, "split": "test", "images": 0, "subset_seed": 0}
    return common | {"precision": "float32", "plane": plane} | settings


AROUND = {"kind": "random", "member": 0, "seed": 0, "span": 1.0}
THROUGH = {"kind": "through", "members": [0, 1, 2], "margin": 0.25}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (run_spec(AROUND | {"member": 3}), []),
        (run_spec(AROUND, cells=101), []),
        (run_spec(AROUND | {"span": 0.5}), ["Not the same span of random planes: 1 / 0.5."]),
        (run_spec(AROUND | {"seed": 2}), ["Not the same directions of random planes: seed 0 / seed 2."]),
        (run_spec(THROUGH), ["Not the same kind of plane: random / through."]),
        (
            run_spec(AROUND, images=100, subset_seed=5),
            ["Not the same images: digits, 497 of 497 test images / digits, 100 of 497 test images, seed 5."],
        ),
        (
            run_spec(AROUND, data_checksum="2" * 64),
            ["Not the same contents of digits: checksum 11111111 / checksum 22222222."],
        ),
        (run_spec(AROUND, precision="bfloat16"), ["Not the same arithmetic: float32 / bfloat16."]),
    ],
)
def test_what_keeps_two_surfaces_from_comparing_is_named(other: dict[str, Any], said: list[str]) -> None:
    assert view.differences([surface_view.shared(run_spec(AROUND)), surface_view.shared(other)]) == said


def test_surfaces_beside_each_other_share_the_axes_of_the_widest() -> None:
    wide = surface("w", "random")
    narrow = replace(wide, window=replace(wide.window, low=-0.5, high=0.5))
    shared = surfaces.on_one_span([narrow, wide])
    assert {one.ends for one in shared} == {wide.window.ends} == {(-1.05, 1.05)}
    look = Look(LOSS, "test", surfaces.colours(wide.cells["loss"], LOSS, 10, log=True), 200)
    for panel in panels(surfaces.figure({"": shared}, look).to_dict()):
        encoding = panel["layer"][0]["encoding"]
        assert encoding["x"]["scale"]["domain"] == encoding["y"]["scale"]["domain"] == [-1.05, 1.05]


def test_studies_are_listed_with_their_flat_shares(lab: Service, visit: Visit) -> None:
    finish(lab, lab.submit(SPEC))
    said = words(visit("studies"))
    assert said.count('class="lab-strip"') == 1
    assert "Flat share" in said
    assert 'class="lab-card"' in words(visit())


def test_the_arrays_of_a_study_are_its_surfaces(lab: Service) -> None:
    study = lab.submit(SPEC)
    finish(lab, study)
    results = queries.results(study, "done")
    _, content = exports.of_study(reads.study(lab.store, study), results, view)[f"{study}-surfaces.npz"]
    whole = results["surfaces"].to_pandas()
    with np.load(io.BytesIO(content())) as arrays:
        own = whole[(whole["treatment"] == "w") & (whole["plane"] == "through")]
        np.testing.assert_array_equal(arrays["w/through/0/loss"][own["row"], own["column"]], own["loss"])
        np.testing.assert_allclose(arrays["w/through/0/x"][own["column"]], own["x"])


def test_the_table_tells_shares_in_percent_and_dashes_for_what_is_not_there() -> None:
    summary = pd.DataFrame(
        [{"treatment": "w", "flat_share": 0.25, "flat_share_std": 0.1, "surfaces": 2}],
        columns=landscape.landscape_results.SUMMARY.names,
    )
    told = {column.title: column.cells for column in flatness.columns(["standard", "w"], summary)}
    assert told["Flat share"][1] == (25.0, 10.0)
    assert all(math.isnan(value) for value in told["Flat share"][0])
    assert "<b>25.0</b> <i>± 10.0</i>" in flatness.strip(["w"], summary)
