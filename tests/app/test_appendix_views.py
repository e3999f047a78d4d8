"""The pages of the appendix's studies say what was measured, what is missing, and draw every pair."""

from __future__ import annotations

import io
import math
from itertools import product
from types import ModuleType

import made_up
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import Visit
from pyarrow import parquet as pq
from streamlit.testing.v1 import AppTest

from app import exports
from app.charts import distances as distance_charts
from app.charts import grids, sweeps
from app.charts.sweeps import Place
from app.views import speed as speed_view
from jobs import queries
from jobs.service import Service
from jobs.studies import biases, distances, speed, speed_results, warmup

STUDIES = {distances: 4, warmup: 8, biases: 6}
"""Cards on each page with the preset "smoke"."""


def words(page: AppTest) -> str:
    said = [*page.html, *page.subheader, *page.caption, *page.markdown]
    return "\n".join(str(element.value if hasattr(element, "value") else element.proto) for element in said)


@pytest.mark.parametrize("module", STUDIES, ids=lambda module: module.Spec.title)
def test_a_finished_study_shows_a_card_for_each_of_its_numbers(
    lab: Service, visit: Visit, module: ModuleType
) -> None:
    study = lab.submit(module.PRESETS["smoke"])
    said = words(visit("study", id=study))
    assert said.count("0 of 2 pairs") == said.count('class="lab-card"') == STUDIES[module]
    made_up.finish(lab, study)
    said = words(visit("study", id=study))
    assert said.count("n = 2") == said.count('class="lab-card"') == STUDIES[module]
    assert said.count("accuracy") >= STUDIES[module]
    for url in ("", "studies"):
        assert module.Spec.title in words(visit(url)) or "lab-" in words(visit(url))
    for run in queries.study(lab.store, study)["runs"][:3]:
        visit("run", id=run["run"])


@pytest.mark.parametrize(
    "choice", [{"distance": "per parameter"}, {"distance": "relative", "weights": "all"}]
)
def test_distances_can_be_told_in_every_measure(lab: Service, visit: Visit, choice: dict[str, str]) -> None:
    study = lab.submit(distances.PRESETS["smoke"])
    made_up.finish(lab, study)
    value = {"per parameter": math.sqrt(27) / 36 * 1e3, "relative": math.sqrt(27 / (3 * (4 + 6.25) / 2))}
    said = words(visit("study", id=study, **choice))
    assert said.count(f"{value[choice['distance']]:.3f}") >= 8


def test_a_speed_study_on_its_way_has_dashes_and_its_runs_pages(lab: Service, visit: Visit) -> None:
    study = lab.submit(speed.PRESETS["smoke"])
    assert words(visit("study", id=study)).count("not trained yet") == 3
    visit("studies")


@pytest.mark.parametrize("module", [*STUDIES, speed], ids=lambda module: module.Spec.title)
@pytest.mark.parametrize("preset", ["smoke", "laptop", "paper"])
def test_launch_starts_exactly_the_preset_it_shows(
    lab: Service, visit: Visit, module: ModuleType, preset: str
) -> None:
    kind = module.Spec.model_fields["kind"].default
    page = visit("launch", study=kind, preset=preset)
    next(button for button in page.button if button.label == "Start").click().run()
    (study,) = queries.studies(lab.store).to_pylist()
    assert module.Spec.model_validate_json(study["spec"]) == module.PRESETS[preset]


def test_the_grid_of_speeds_comes_back_as_arrays() -> None:
    spec = speed.PRESETS["smoke"]
    rows = [
        {
            "treatment": "w",
            "n_fix_factor": cell[0],
            "kappa_factor": cell[1],
            "epochs_median": 10 * cell[0] + cell[1],
            "reached": 3,
            "final_test_loss": 0.1,
            "final_test_accuracy": 0.9,
        }
        for cell in product(spec.n_fix_factors, spec.kappa_factors)
    ]
    results = {
        "summary": pa.Table.from_pylist([{"treatment": "standard"}, *rows[1:]], schema=speed_results.SUMMARY),
        "networks": pa.table({"epochs": [1]}),
    }
    files = exports.of_study({"study": "s", "spec": spec.model_dump()}, results, speed_view)
    _, content = files["s-grid.npz"]
    with np.load(io.BytesIO(content())) as found:
        epochs = found["epochs_median"]
        assert epochs.shape == (len(spec.kappa_factors), len(spec.n_fix_factors))
        assert epochs[1, 1] == 10 * found["n_fix_factors"][1] + found["kappa_factors"][1]
        assert np.isnan(epochs[0, 0]), "a cell that is not done"
    _, parquet = files["s-summary.parquet"]
    assert pq.read_table(io.BytesIO(parquet())) == results["summary"]


def test_a_cell_without_a_median_is_framed_and_says_so() -> None:
    cells = pd.DataFrame(
        {
            "n_fix_factor": [0.5, 1.0],
            "kappa_factor": [1.0, 1.0],
            "value": [8.0, math.nan],
            "text": ["8", "> 15"],
        }
    )
    chart = grids.heat_map(cells, [0.5, 1], [1, 4], title=["epochs"], log=True, digits="d", told=[]).to_dict()
    frames = {name: pd.DataFrame(rows) for name, rows in chart["datasets"].items()}
    squares, dashed = (
        next(layer for layer in chart["layer"] if layer["mark"].get("filled", True) is filled)
        for filled in (True, False)
    )
    assert frames[squares["data"]["name"]]["text"].tolist() == ["8"]
    assert frames[dashed["data"]["name"]]["text"].tolist() == ["> 15"]
    assert squares["encoding"]["y"]["scale"]["domain"] == ["×4", "×1"]


def test_settings_stand_apart_and_every_pair_is_a_dot_near_its_place() -> None:
    places = [Place(None, "w", ""), Place(1.0, "fixed_biases", "k = 1"), Place(3.0, "fixed_biases", "k = 3")]
    at = sweeps.positions(places)
    assert at == sorted(at)
    pairs = pd.DataFrame(
        {
            "value": [math.nan, 1.0, 1.0, 3.0],
            "treatment": ["w", "fixed_biases", "fixed_biases", "fixed_biases"],
            "pair": [0, 0, 1, 0],
            "barrier": [0.1, 2.0, 2.0, math.nan],
        }
    )
    paper = {places[1]: (5.81, 3.67)}
    chart = sweeps.barriers(pairs, places, "barrier (nats)", 3, paper).to_dict()
    layers = {layer["mark"]["type"]: layer for layer in chart["layer"]}
    dots = pd.DataFrame(chart["datasets"][layers["circle"]["data"]["name"]])
    assert len(dots) == 3
    assert dots["x"].is_unique
    assert (dots["x"] - dots["heading"].map({"": at[0], "k = 1": at[1]})).abs().max() < 0.5
    low, high = layers["circle"]["encoding"]["y"]["scale"]["domain"]
    assert low < 0
    assert high > 5.81 + 3.67
    assert layers["point"]["mark"]["shape"] == "diamond"


def test_pairs_without_a_barrier_are_left_out_beside_distances() -> None:
    pairs = pd.DataFrame(
        {"treatment": ["standard", "sigma"], "pair": 0, "value": [16.8, 16.9], "barrier": [0.5, math.nan]}
    )
    chart = distance_charts.against_barriers(pairs, "L2 distance").to_dict()
    dots = next(layer for layer in chart["layer"] if layer["mark"]["type"] == "circle")
    assert [row["label"] for row in chart["datasets"][dots["data"]["name"]]] == ["Standard"]
