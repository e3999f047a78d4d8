"""What pages hand out: every chart, every table and every grid, in each format that it can have."""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Visit
from pyarrow import parquet
from test_surface_charts import SPEC, finish

import app
from app import exports, views
from app.exports import Files
from jobs import queries, registry
from jobs.service import Service

DRAWN = {
    "altair_chart",
    "vega_lite_chart",
    "plotly_chart",
    "pyplot",
    "bokeh_chart",
    "graphviz_chart",
    "pydeck_chart",
    "map",
    "image",
    "line_chart",
    "bar_chart",
    "area_chart",
    "scatter_chart",
}
"""What Streamlit draws charts and pictures with."""
GRIDS = {"landscape": "surfaces", "matrix": "pairs", "speed": "grid"}
"""Studies that measure over a grid, and the name of its file."""


def drawings() -> Iterator[tuple[str, str]]:
    """Each place where something is drawn: the file, and with what."""
    for file in Path(app.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "st" and node.attr in DRAWN:
                yield file.stem, node.attr


def test_all_charts_are_drawn_where_they_get_their_files() -> None:
    assert sorted(drawings()) == [("home", "image"), ("parts", "altair_chart")]  # home tells the idea


def read(files: Files) -> dict[str, bytes]:
    """The content of each file by what follows the id in its name."""
    return {name.partition("-")[2] or name: make() for name, (_, make) in files.items()}


@pytest.mark.parametrize("kind", registry.studies())
def test_every_table_of_a_study_is_handed_out_with_a_name_for_people(lab: Service, kind: str) -> None:
    study = lab.submit(registry.studies()[kind].PRESETS["smoke"])
    view, results = views.view(kind), lab.results(study)
    assert view is not None
    assert set(view.TABLES) == set(results)
    files = read(exports.of_study(queries.study(lab.store, study), results, view))
    for name, table in results.items():
        file = name.replace("_", "-")
        assert parquet.read_table(io.BytesIO(files[f"{file}.parquet"])).equals(table)
        assert list(pd.read_csv(io.BytesIO(files[f"{file}.csv"]))) == table.column_names
    assert {name for name in files if name.endswith("npz")} == (
        {f"{GRIDS[kind]}.npz"} if kind in GRIDS else set()
    )


@pytest.mark.parametrize("kind", registry.kinds())
def test_every_table_that_a_run_records_has_a_name_for_people(kind: str) -> None:
    view = views.view(kind)
    assert view is not None
    assert set(view.TABLES) >= set(registry.kinds()[kind].TABLES)


@pytest.mark.parametrize("count", [None, 60])
def test_a_surface_run_hands_out_what_is_known_of_its_grid(
    lab: Service, visit: Visit, count: int | None
) -> None:
    study = lab.submit(SPEC)
    finish(lab, study, count)
    run = queries.run(lab.store, queries.study(lab.store, study)["roles"]["w/through/0"])
    offered = [button.label for button in visit("run", id=run["run"]).download_button]
    assert {"All cells (CSV)", "All cells (Parquet)", "The surface as arrays (NPZ)"} <= set(offered)
    files = read(exports.of_run(lab, run, views.view("surface")))
    table = queries.records(lab.store, "surface_cell", [run["run"]])
    cells = table.to_pandas()
    assert parquet.read_table(io.BytesIO(files["surface-cell.parquet"])).equals(table)
    pd.testing.assert_frame_equal(
        pd.read_csv(io.BytesIO(files["surface-cell.csv"])), cells, check_dtype=False, check_exact=True
    )
    with np.load(io.BytesIO(files["grid.npz"])) as arrays:
        for quantity in ("loss", "accuracy"):
            np.testing.assert_array_equal(arrays[quantity][cells["row"], cells["column"]], cells[quantity])
            assert np.isfinite(arrays[quantity]).sum() == len(cells) == (count or SPEC.cells**2)
        np.testing.assert_allclose(arrays["x"][cells["column"]], cells["x"])
        np.testing.assert_allclose(arrays["y"][cells["row"]], cells["y"])
    assert json.loads(files[f"{run['run']}.json"]) == run["spec"]
