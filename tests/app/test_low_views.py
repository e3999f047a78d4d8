"""Pages of low paths and of valleys, and charts as files."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import Visit
from streamlit.testing.v1 import AppTest

from app import queries as app_queries
from app import theme
from app.charts import along, images, lanes, paths, slices, tables, ticks
from app.charts.quantities import LOSS
from app.views import valleys as valleys_view
from jobs import offline, queries, registry
from jobs.progress_line import ProgressLine
from jobs.service import Service
from jobs.studies import curves, valleys, valleys_results
from symcore.networks.mlp import MLPSpec
from symcore.training import TrainingSpec

SMALL: dict[str, Any] = {"network": MLPSpec(width=16, depth=1), "training": TrainingSpec(epochs=3)}
SPECS = {
    "curves": curves.Spec(**SMALL, bend=TrainingSpec(epochs=2), pairs=2, points=5),
    "valleys": valleys.Spec(**SMALL, networks=2, draws=1, points=9, images=100, steps=6, probes=4),
}
HEADINGS = {
    "curves": ["On the straight line", "On the Bezier curve", "Layer by layer", "Table", "Runs"],
    "valleys": ["Slices through networks", "How lopsided valleys are", "Curvature", "Table", "Runs"],
}


FOUND = {
    "interpolate": {"Loss on the straight paths", "Accuracy on the straight paths"},
    "curve": {"Loss on the Bezier curves", "Accuracy on the Bezier curves"},
    "layerwise": {"Layer by layer"},
    "valley": {"Slices through networks", "How lopsided valleys are"},
    "curvature": {"Curvature"},
    "align": {"Agreement of each pair"},
}
"""Headings of the charts on the pages of single runs."""


LEGENDS = {"layerwise", "valley", "curvature"}
"""Runs whose charts have a legend beside them."""


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small study of each kind, carried out without a server."""
    found = {}
    for name, spec in SPECS.items():
        out = tmp_path_factory.mktemp("out") / name
        offline.prepare(spec, out, resume=False)
        place = offline.Place(out, out / "data", "cpu")
        assert offline.study(spec, place, offline.Stop(), ProgressLine(sys.stderr)).state == "done"
        found[name] = out
    return found


def words(page: AppTest) -> str:
    said = [*page.html, *page.subheader, *page.caption, *page.markdown]
    return "\n".join(str(element.value if hasattr(element, "value") else element.proto) for element in said)


@pytest.mark.parametrize("name", SPECS)
def test_a_finished_study_shows_its_cards_charts_and_files(
    lab: Service, visit: Visit, carried_out: dict[str, Path], name: str
) -> None:
    lab.import_folder(carried_out[name])
    (study,) = queries.studies(lab.store)["study"].to_pylist()
    page = visit("study", id=study)
    assert [heading.value for heading in page.subheader] == HEADINGS[name]
    cards = {"curves": 4, "valleys": 3}[name]
    assert words(page).count('class="lab-card"') == cards
    assert "n = 2" in words(page)
    assert words(page).count('class="lab-table"') == {"curves": 1, "valleys": 2}[name]
    for url in ("", "studies"):
        assert "lab-" in words(visit(url))
    for run in queries.study(lab.store, study)["runs"]:
        shown = visit("run", id=run["run"])
        assert {heading.value for heading in shown.subheader} >= FOUND.get(run["kind"], set())
        if run["kind"] in LEGENDS:
            assert theme.treatment(run["role"].partition("/")[0]).label in words(shown)


@pytest.mark.parametrize("name", SPECS)
def test_a_study_on_its_way_keeps_places(lab: Service, visit: Visit, name: str) -> None:
    study = lab.submit(SPECS[name])
    assert "0 of 2" in words(visit("study", id=study))


def test_choices_of_a_study_of_curves_are_in_the_address(
    lab: Service, visit: Visit, carried_out: dict[str, Path]
) -> None:
    lab.import_folder(carried_out["curves"])
    (study,) = queries.studies(lab.store)["study"].to_pylist()
    said = words(visit("study", id=study, moved="exchanged", split="train", quantity="accuracy"))
    assert "those of the second network" in said
    assert "percentage points on the train images" in said


ORDER = ["standard", "w"]


def measured() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"row": row, "treatment": key, "value": value, "name": row}
            for row in ("top", "bottom")
            for key in ORDER
            for value in (0.5, 2.0, np.nan)
        ]
    )


def test_lanes_of_a_row_lie_beside_each_other_and_between_its_neighbours() -> None:
    placed = lanes.placed(measured(), ["top", "bottom"], ORDER)
    assert len(placed) == 2 * 2 * 2  # what is no number has no dot
    at = placed.groupby(["row", "treatment"])["y"].agg(["min", "max"])
    assert (at["min"] == at["max"]).all()
    assert at["min"].is_unique
    for row, name in enumerate(("top", "bottom")):
        assert (placed.loc[placed["row"] == name, "y"].round() == row).all()


def test_panels_of_lanes_share_one_scale_with_the_rule_on_it() -> None:
    axis = lanes.Axis("ratio", 2, log=True, rule=1.0, middle="median")
    frame = measured()
    drawing = lanes.figure(
        {"a": frame, "b": frame.assign(value=10 * frame["value"])},
        {"top": "Top", "bottom": "Bottom"},
        ORDER,
        axis,
        [],
    )
    assert drawing is not None
    panels = drawing.to_dict()["vconcat"][0]["hconcat"]
    domains = [
        layer["encoding"]["x"]["scale"]["domain"]
        for panel in panels
        for layer in panel["layer"]
        if "scale" in layer["encoding"].get("x", {})
    ]
    assert all(domain == domains[0] for domain in domains)
    low, high = domains[0]
    assert low < 0.5 < 20 < high
    assert lanes.figure({"a": frame.assign(value=-1.0)}, {"top": "Top"}, ORDER, axis, []) is None


@pytest.mark.parametrize(
    ("onward", "said"),
    [(False, "the end of training. "), (True, "the end of training, which then went on from it. ")],
)
def test_the_note_on_slices_says_what_the_average_led_to(onward: bool, said: str) -> None:
    spec = valleys.Spec().model_dump(mode="json")
    told = valleys_view.explained(spec, 4, "the last 4 of 12 snapshots", ("test",), onward=onward)
    assert f"The weight average is over the last 4 of 12 snapshots and {said}" in told


def test_all_slices_share_one_vertical_scale() -> None:
    at = np.linspace(-1, 1, 5)
    points = pd.DataFrame(
        [
            {"treatment": key, "direction": way, "member": 0, "draw": 0, "position": p, "value": 0.1 + p * p}
            for key in ORDER
            for way in ("sign", "noise")
            for p in at
        ]
    )
    panels = {"sign": ("Sign", "lengths"), "noise": ("Noise", "lengths")}
    for log in (True, False):
        chart = slices.figure(points, panels, LOSS, "train", log=log).to_dict()
        found = [
            layer["encoding"]["y"]["scale"]["domain"]
            for panel in chart["vconcat"][0]["hconcat"]
            for layer in panel["layer"]
            if "y" in layer["encoding"]
        ]
        assert all(domain == found[0] for domain in found)
        assert found[0][0] < 0.1 if log else found[0][0] == 0
        assert found[0][1] > 1.1


def test_a_chart_is_a_file_in_the_colours_of_the_light_theme() -> None:
    drawing = paths.interpolation(made_up.points(), LOSS, "test")
    before = drawing.to_dict()
    svg = images.image(drawing, "svg").decode()
    assert svg.startswith("<svg")
    assert theme.TREATMENTS["w"].colour.lower() in svg.lower()
    assert "test loss (nats)" in svg
    assert images.image(drawing, "png").startswith(b"\x89PNG")
    assert drawing.to_dict() == before


@pytest.mark.parametrize("heading", ["", "Heading"])
def test_the_place_of_lanes_holds_them_and_little_more(heading: str) -> None:
    rows = {"top": "top", "bottom": "bottom"}
    drawing = lanes.figure({heading: measured()}, rows, ORDER, lanes.Axis("x (nats)", 2), [])
    assert drawing is not None
    size = re.search(r'height="([0-9.]+)"', images.image(drawing, "svg").decode())
    assert size is not None
    place = lanes.height(len(rows), len(ORDER), headed=bool(heading))
    assert 10 <= place - float(size[1]) < 20  # a browser takes about ten more


def test_a_chart_that_is_named_beside_itself_has_the_names_in_its_file() -> None:
    drawing = lanes.figure(
        {"": measured()}, {"top": "top", "bottom": "bottom"}, ORDER, lanes.Axis("x", 2), []
    )
    assert drawing is not None
    alone, named = (images.image(drawing, "svg", legend).decode() for legend in ((), ORDER))
    for key in ORDER:
        name = f">{theme.treatment(key).label}</text>"
        assert name in named
        assert name not in alone
    assert named.count("<path") > alone.count("<path")


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (0.004, 300, [0.01, 0.1, 1, 10, 100]),
        (0.04, 3, [0.05, 0.1, 0.2, 0.5, 1, 2]),
        (1.1, 1.9, [1.1, 1.9]),
    ],
)
def test_a_logarithmic_axis_has_round_numbers_between_its_ends(
    low: float, high: float, told: list[float]
) -> None:
    assert ticks.decades(low, high) == pytest.approx(told)


def test_arrays_come_back_from_their_archive(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    file.write_bytes(tables.npz({"w/loss": np.eye(2)}))
    with np.load(file) as found:
        np.testing.assert_array_equal(found["w/loss"], np.eye(2))


def curved(alphas: list[float | None]) -> pd.DataFrame:
    """Networks 0 to 2, and positions on the ways from 0 to 1 and from 1 to 2, with a trace that says where each is."""
    networks = [("network", n, n, n, 0.0, 10.0 + n) for n in range(3)]
    ways = [(a, b, alpha) for a, b in ((0, 1), (1, 2)) for alpha in alphas]
    between = [("path", n, a, b, alpha, 100.0 * a + (alpha or 0.1)) for n, (a, b, alpha) in enumerate(ways)]
    names = ["place", "number", "a", "b", "alpha", "trace"]
    rows = [dict(zip(names, values, strict=True)) for values in (*networks, *between)]
    of_run: dict[str, Any] = {"run": "r"}
    traces = [of_run | {**row, "error": 0.1, "parameters": 7} for row in rows]
    points = [of_run | row for row in rows if row["alpha"] is not None]
    found = valleys_results.curvature(
        recorded("curvature_eigenvalue", []),
        recorded("curvature_trace", traces),
        recorded("curvature_point", points),
        {"standard/curvature/0": "r"},
    )
    return app_queries.curvature(found)


def recorded(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of a record table with a `run` column; what it has no column for is left out."""
    own = registry.tables()[name]
    return pa.Table.from_pylist(rows, schema=own.insert(0, pa.field("run", pa.string())))


def test_curvature_between_networks_stands_at_its_own_position_beside_those_of_its_ends() -> None:
    found = curved([0.75, 0.25])
    assert "α = 0.75 from network 1 to 2" in set(found["told"])
    ways = app_queries.curvature_along(found).sort_values(["pair", "alpha"])
    assert ways["alpha"].tolist() == [0, 0.25, 0.75, 1] * 2
    assert ways["value"].tolist() == [10, 0.25, 0.75, 11, 11, 100.25, 100.75, 12]
    assert ways["shape"].tolist() == ["circle", "diamond", "diamond", "circle"] * 2
    drawn = along.figure(ways, "standard", "trace").to_dict()
    means = next(layer for layer in drawn["layer"] if layer["mark"].get("strokeWidth") == 2.75)
    values = {row["alpha"]: row["value"] for row in drawn["datasets"][means["data"]["name"]]}
    assert values == {0: 10.5, 0.25: 50.25, 0.75: 50.75, 1: 11.5}


def test_points_whose_positions_were_not_recorded_are_drawn_nowhere_between_networks() -> None:
    found = curved([None])
    assert {"path 0", "path 1"} <= set(found["told"])
    assert app_queries.curvature_along(found).empty
