"""The page of a study of Bayesian networks says what is known so far, and draws all treatments on one scale."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import made_up
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import Visit
from pydantic import TypeAdapter
from streamlit.testing.v1 import AppTest

from app.charts import courses, entropies, images, reliability
from app.charts.quantities import ACCURACY, LOSS
from app.charts.tables import Column
from app.views import bnn as bnn_view
from jobs import queries
from jobs.registry import tables
from jobs.service import Service
from jobs.studies import bnn, bnn_results
from symcore.posteriors import methods
from symcore.posteriors.methods import Method

SMOKE = bnn.PRESETS["smoke"]
OUTSIDE = SMOKE.model_copy(update={"outside": "mnist"})
ORDER = ["standard", "w"]


def words(page: AppTest) -> str:
    said = [*page.html, *page.subheader, *page.caption, *page.markdown]
    return "\n".join(str(element.value if hasattr(element, "value") else element.proto) for element in said)


def charts(page: AppTest) -> int:
    return len(page.get("vega_lite_chart"))


def test_a_study_on_its_way_has_dashes_then_curves_then_numbers(lab: Service, visit: Visit) -> None:
    study = lab.submit(OUTSIDE)
    page = visit("study", id=study)
    assert words(page).count("0 of 3 networks") == words(page).count('class="lab-card"') == 2
    assert charts(page) == 0
    assert not page.number_input

    runs = {run["role"]: run["run"] for run in queries.study(lab.store, study)["runs"]}
    made_up.start(lab, runs["w/bayes/0"])
    rows = pa.RecordBatch.from_pylist(made_up.learning("w", 4), schema=tables()["metric"])
    lab.store.ingest(runs["w/bayes/0"], 0, [("metric", rows)]).result()
    page = visit("study", id=study)
    assert words(page).count("0 of 3 networks") == 2
    assert charts(page) == 2, "curves are there while predictions are not"

    made_up.finish(lab, study, lambda role: role.startswith("standard"))
    page = visit("study", id=study)
    assert words(page).count("n = 3") == words(page).count("0 of 3 networks") == 1
    assert charts(page) == 4


def test_cards_of_a_finished_study_have_its_numbers_and_mark_what_differs(lab: Service, visit: Visit) -> None:
    study = lab.submit(SMOKE)
    made_up.finish(lab, study)
    page = visit("study", id=study)
    assert charts(page) == 3, "without other images there are no entropies"
    assert "other images" not in words(page)
    standard, w = re.findall(r'<section class="lab-card">.*?</section>', words(page))
    assert '81.0 <span class="spread">± 1.0</span> <span class="spread">%</span></p>' in standard
    assert '91.0 <span class="spread">± 1.0</span> <span class="spread">%</span><abbr' in w
    assert 'test loss 0.190 <span class="spread">± 0.010</span> nats<br>' in standard
    assert 'ECE 0.445 <span class="spread">± 0.005</span><abbr' in w
    assert 'accuracy halfway 40.5 <span class="spread">± 0.5</span> %</p>' in standard
    assert "n = 3" in standard
    assert "abbr" not in standard
    assert "differs from Standard, p = " in w


def test_other_images_are_told_by_their_entropy(lab: Service, visit: Visit) -> None:
    study = lab.submit(OUTSIDE)
    made_up.finish(lab, study)
    page = visit("study", id=study)
    assert charts(page) == 4
    assert "Filled: test images of Digits; line: those of MNIST" in words(page)
    for url in ("", "studies"):
        assert "81.0" in words(visit(url))
    for run in queries.study(lab.store, study)["runs"]:
        assert charts(visit("run", id=run["run"])) == 4


@pytest.mark.parametrize(("goal", "standard", "w"), [("40", "5", "5"), ("90", "&gt; 10", "10")])
def test_epochs_to_an_accuracy_are_those_of_the_mean(
    lab: Service, visit: Visit, goal: str, standard: str, w: str
) -> None:
    study = lab.submit(SMOKE)
    made_up.finish(lab, study)
    said = words(visit("study", id=study, goal=goal))
    (strip,) = re.findall(r'<div class="lab-strip">.*?</div>', said)
    assert re.findall(r"<b>(.*?)</b>", strip) == [standard, w]


@pytest.mark.parametrize("preset", list(bnn.PRESETS))
def test_launch_starts_exactly_the_preset_it_shows(lab: Service, visit: Visit, preset: str) -> None:
    page = visit("launch", study="bnn", preset=preset)
    next(button for button in page.button if button.label == "Start").click().run()
    (study,) = queries.studies(lab.store).to_pylist()
    assert bnn.Spec.model_validate_json(study["spec"]) == bnn.PRESETS[preset]


@pytest.mark.parametrize("kind", list(methods._MODULES))
def test_every_method_is_said_in_words(kind: str) -> None:
    method = TypeAdapter(Method).validate_python({"kind": kind})
    spec = SMOKE.model_copy(update={"method": method}).model_dump(mode="json")
    said = bnn_view._of_cards(spec)
    assert method.label.lower() in said.lower()
    assert "{" not in said
    assert bnn_view.METHODS[kind][1]


def test_elrg_is_said_with_its_variance_and_directions() -> None:
    spec = SMOKE.model_dump(mode="json")
    assert "one variance for all weights and 4 directions" in bnn_view._of_cards(spec)
    spec["method"] |= {"diagonal": "learned", "rank": 1}
    assert "a variance for each weight and 1 direction along" in bnn_view._of_cards(spec)


def summary(*, paper: bool) -> pd.DataFrame:
    """Two networks of each treatment, with numbers of every quantity that the paper states."""
    rows = [
        {"treatment": key, "label": key, "network": number, **dict.fromkeys(bnn_results.FINAL, 0.5 + value)}
        | {"train_loss": 0.3 + value, "half_accuracy": 0.4 + value}
        for key, shift in (("standard", 0.0), ("w", 0.1))
        for number, value in enumerate((shift, shift + 1e-6))
    ]
    each = pa.Table.from_pylist(rows, schema=bnn_results.NETWORKS)
    found: pd.DataFrame = bnn_results.summary(each, bnn.PAPER["paper"] if paper else {}).to_pandas()
    return found


def test_the_table_has_the_papers_numbers_only_where_they_compare() -> None:
    titles = [column.title for column in bnn_view.columns(ORDER, summary(paper=False))]
    assert "Paper" not in titles
    told = bnn_view.columns(ORDER, summary(paper=True))
    assert [column.title for column in told[:3]] == ["Test accuracy", "Paper", "p"]
    measured, paper, p = told[:3]
    assert measured.told(1).startswith("60.00")
    assert paper.told(1) == '57.08 <span class="spread">± 0.50</span>'
    assert p.told(0) == "–"
    assert p.told(1) == "&lt; 0.001"
    assert p.latex(1) == "$< 0.001$"
    assert len(told) == 3 * len(bnn_view.STATED) + 1
    further = {column.title for column in bnn_view.further_columns(ORDER, summary(paper=True))}
    assert further == {"Adaptive ECE", "Brier score", "Test entropy", "AUROC", "p"}


def test_a_small_number_is_told_as_less_than_the_least_and_others_as_they_are() -> None:
    column = Column("p", "", [(0.0004, np.nan), (0.001, np.nan), (np.nan, np.nan)], 3, 3, least=0.001)
    assert [column.told(place) for place in range(3)] == ["&lt; 0.001", "0.001", "–"]


def bins() -> pd.DataFrame:
    """Diagrams of two treatments: one has all images in the last bin, the other half of them in the one before."""
    full = [{"treatment": "standard", "bin": 14, "images": 80, "confidence": 0.97, "accuracy": 0.9}]
    full += [
        {"treatment": "w", "bin": place, "images": 40, "confidence": at, "accuracy": at}
        for place, at in ((13, 0.9), (14, 0.98))
    ]
    empty = [
        {"treatment": key, "bin": place, "images": 0, "confidence": np.nan, "accuracy": np.nan}
        for key in ORDER
        for place in range(13)
    ]
    return pd.DataFrame(empty + full).assign(accuracy_std=0.05)


def diagrams() -> list[list[dict[str, Any]]]:
    """Rows of charts with their layers, and each layer's rows of data under "rows"."""
    spec = reliability.figure(bins(), dict.fromkeys(ORDER, "ECE")).to_dict()
    levels = [level["hconcat"] for level in spec["vconcat"][0]["vconcat"]]
    for chart in (chart for level in levels for chart in level):
        for layer in chart["layer"]:
            name = layer.get("data", chart.get("data", spec.get("data", {}))).get("name")
            layer["rows"] = pd.DataFrame(spec["datasets"][name])
    return levels


def test_reliability_diagrams_share_both_scales_and_have_the_diagonal() -> None:
    upper, lower = diagrams()
    assert [chart["title"]["text"] for chart in upper] == ["Standard", "W-Asymmetric"]
    for chart in upper:
        assert chart["width"] == chart["height"], "one point of % is as long on both axes"
        diagonal, *rest = chart["layer"]
        assert diagonal["mark"]["strokeDash"]
        assert diagonal["rows"].to_numpy().tolist() == [[0, 0], [100, 100]]
        scales = [
            layer["encoding"][axis]["scale"]["domain"]
            for layer in [diagonal, rest[-1]]
            for axis in ("x", "y")
        ]
        assert scales == [[0, 100]] * 4
    tops = {chart["layer"][0]["encoding"]["y"]["scale"]["domain"][1] for chart in lower}
    assert tops == {100}, "the fullest bin of all treatments sets the scale of each"


def test_a_dot_is_a_bin_with_images_and_a_bar_is_its_share() -> None:
    upper, lower = diagrams()
    dots = [next(layer for layer in chart["layer"] if layer["mark"]["type"] == "circle") for chart in upper]
    assert [layer["rows"]["confidence"].round(6).tolist() for layer in dots] == [[97], [90, 98]]
    spread = dots[1]["rows"]
    np.testing.assert_allclose(spread["high"], [95, 100], err_msg="a share ends at 100 %")
    np.testing.assert_allclose(spread["low"], [85, 93])
    bars = [chart["layer"][0]["rows"].set_index("images")["share"] for chart in lower]
    assert bars[0].loc[80] == 100
    assert bars[1].loc[40].tolist() == [50, 50]
    assert (pd.concat(bars).loc[0] == 0).all()


def test_an_outline_of_a_histogram_follows_its_bins_down_to_zero_at_both_ends() -> None:
    found = entropies.outline(pd.DataFrame({"lower": [0.0, 1.0], "upper": [1.0, 2.0], "share": [3.0, 7.0]}))
    assert found.to_numpy().tolist() == [[0, 0], [0, 3], [1, 7], [2, 0]]


def histograms() -> pd.DataFrame:
    """Two bins of two treatments, test images and others."""
    return pd.DataFrame(
        [
            {"treatment": key, "split": split, "lower": low, "upper": low + 1, "share": share}
            for key, full in (("standard", 0.5), ("w", 0.9))
            for split, share in (("test", full), ("outside", 1 - full))
            for low in (0.0, 1.0)
        ]
    )


def test_histograms_of_entropies_share_both_scales() -> None:
    (row,) = entropies.figure(histograms(), dict.fromkeys(ORDER, "")).to_dict()["vconcat"]
    panels = row["hconcat"]
    scales = [
        (layer["encoding"]["x"]["scale"]["domain"], layer["encoding"]["y"]["scale"]["domain"])
        for panel in panels
        for layer in panel["layer"]
    ]
    assert len(scales) == 4
    assert all(scale == scales[0] for scale in scales)
    across, (floor, top) = scales[0]
    assert across == [0, 2]
    assert floor == 0
    assert 90 <= top <= 100


def curve(means: dict[str, list[float]], name: str = "test/accuracy") -> pd.DataFrame:
    rows = [
        {"treatment": key, "name": name, "epoch": epoch, "mean": mean, "mean_std": 0.01}
        for key, values in means.items()
        for epoch, mean in enumerate(values, 1)
    ]
    return pd.DataFrame(rows)


def test_courses_of_all_treatments_share_a_scale_that_holds_their_bands() -> None:
    table = pd.concat(
        [
            curve({"standard": [2.0, 1.0], "w": [1.5, 0.5]}, "test/loss"),
            curve({"standard": [2.5, 1.2], "w": [np.inf, 0.6]}, "train/loss"),
        ]
    )
    means = courses.points(table, LOSS)
    assert len(means) == 7, "what is no number has no point"
    low, high = courses.domain(means, LOSS)
    assert 0 <= low < 0.49
    assert 2.51 < high < 3
    chart = courses.figure(means, LOSS, 2).to_dict()
    line = next(layer for layer in chart["layer"] if layer["mark"]["type"] == "line")
    assert line["encoding"]["y"]["scale"]["domain"] == [low, high]
    assert line["encoding"]["y"]["title"] == "test loss (nats), train images dashed"
    assert images.image(courses.figure(means, LOSS, 2), "svg", ORDER).count(b"W-Asymmetric") >= 1


def test_the_goal_is_a_rule_where_it_lies_on_the_scale() -> None:
    means = courses.points(curve({"standard": [0.5, 0.7], "w": [0.6, 0.9]}), ACCURACY)
    assert courses.reached(means, 70.0) == {"standard": 2, "w": 2}
    assert courses.reached(means, 80.0) == {"standard": None, "w": 2}
    kinds = [
        [layer["mark"]["type"] for layer in courses.figure(means, ACCURACY, 2, goal).to_dict()["layer"]]
        for goal in (80.0, 20.0)
    ]
    assert [marks.count("rule") for marks in kinds] == [1, 0]


@pytest.mark.parametrize("module", [reliability, entropies], ids=["reliability", "entropies"])
@pytest.mark.parametrize("treatments", [1, 2, 4])
def test_a_figure_fits_the_place_that_is_kept_for_it(module: ModuleType, treatments: int) -> None:
    names = ["standard", "w", "sigma", "syre"][:treatments]
    frame = bins() if module is reliability else histograms()
    svg = images.image(module.figure(frame, dict.fromkeys(names, "ECE")), "svg").decode()
    size = re.search(r'height="([\d.]+)"', svg)
    assert size is not None
    assert 0.9 * module.height(treatments) < float(size[1]) <= module.height(treatments)
