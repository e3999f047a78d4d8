"""Charts as data: what is drawn, in which colour, on which scale and under which title."""

from __future__ import annotations

import math
from typing import Any

import made_up
import numpy as np
import pandas as pd
import pytest

from app import queries, theme
from app.charts import curves, images, paths
from app.charts.quantities import ACCURACY, LOSS


def marks(chart: Any, kind: str) -> list[dict[str, Any]]:
    """The layers with one kind of mark, with their rows under "rows"."""
    spec = chart.to_dict()
    found = []
    for layer in spec["layer"]:
        if layer["mark"]["type"] == kind:
            name = layer.get("data", spec.get("data", {})).get("name")
            found.append(layer | {"rows": pd.DataFrame(spec["datasets"].get(name, []))})
    return found


def test_a_path_chart_draws_mean_band_hairlines_and_endpoints() -> None:
    points = made_up.points(pairs=5)
    chart = paths.interpolation(points, LOSS, "test")
    hairlines, mean = marks(chart, "line")
    (band,) = marks(chart, "area")
    expected = points.groupby(["treatment", "alpha"])["value"].agg(["mean", "std"])
    drawn = mean["rows"].set_index(["treatment", "alpha"])
    np.testing.assert_allclose(drawn["mean"].loc[expected.index], expected["mean"])
    np.testing.assert_allclose((drawn["high"] - drawn["low"]).loc[expected.index], 2 * expected["std"])
    assert band["encoding"]["y"]["field"], band["encoding"]["y2"]["field"] == ("low", "high")
    assert len(hairlines["rows"]) == 4 * 5 * 25
    assert hairlines["mark"]["strokeWidth"] < mean["mark"]["strokeWidth"]
    ends = [layer for layer in marks(chart, "circle") if layer.get("transform")]
    assert "datum.alpha === 0" in str(ends[0]["transform"])


def test_every_coloured_layer_reads_the_one_scale() -> None:
    chart = paths.interpolation(made_up.points(), LOSS, "test")
    for layer in chart.to_dict()["layer"]:
        colour = layer["encoding"].get("color", {})
        if "field" in colour:
            assert colour["scale"] == {"domain": list(theme.ROLES), "range": "category"}
            assert colour["legend"] is None
    hairlines = marks(chart, "line")[0]["rows"]
    assert (hairlines["role"] == hairlines["treatment"]).all()


@pytest.mark.parametrize(("quantity", "split"), [(LOSS, "test"), (ACCURACY, "train")])
def test_axis_titles_say_what_is_measured_and_in_which_unit(quantity: Any, split: str) -> None:
    chart = paths.interpolation(made_up.points(), quantity, split)
    titles = {
        layer["encoding"]["y"]["title"] for layer in marks(chart, "line") if "title" in layer["encoding"]["y"]
    }
    assert titles == {f"{split} {quantity.key} ({quantity.unit})"}
    assert marks(chart, "line")[0]["encoding"]["x"]["title"] == "α (0 = network A, 1 = network B)"


def test_all_treatments_share_one_vertical_scale_that_holds_every_point() -> None:
    points = made_up.points()
    low, high = paths.domain(points, LOSS)
    assert low == 0
    assert points["value"].between(low, high).all()
    scales = [
        layer["encoding"]["y"]["scale"]
        for layer in marks(paths.interpolation(points, LOSS, "test"), "line")
        if "scale" in layer["encoding"]["y"]
    ]
    assert [scale["domain"] for scale in scales] == [[low, high]]


def test_a_pair_that_diverged_leaves_no_mean() -> None:
    points = made_up.points(pairs=2)
    points.loc[(points["treatment"] == "w") & (points["pair"] == 0) & (points["alpha"] == 0.5), "value"] = (
        math.nan
    )
    means = paths.summary(points).set_index(["treatment", "alpha"])["mean"]
    assert math.isnan(means["w", 0.5])
    assert not means["standard"].isna().any()
    paths.interpolation(points, LOSS, "test").to_dict()


def test_one_pair_has_a_mean_and_no_band() -> None:
    means = paths.summary(made_up.points(pairs=1))
    assert (means["low"] == means["high"]).all()


def test_many_pairs_are_averaged_whole_and_drawn_in_part() -> None:
    points = made_up.points(pairs=130)
    shown = paths.hairlines(points)
    assert (shown.groupby("treatment")["pair"].nunique() == paths.HAIRLINES).all()
    assert shown["pair"].min() < 5
    assert shown["pair"].max() > 125
    chart = paths.interpolation(points, LOSS, "test")
    drawn = marks(chart, "line")[1]["rows"].set_index(["treatment", "alpha"])["mean"]
    assert drawn["w", 0.5] == pytest.approx(points.query("treatment == 'w' and alpha == 0.5")["value"].mean())


def test_long_training_of_many_networks_is_drawn_in_part() -> None:
    shown = curves.hairlines(training(500, members=50))
    assert shown["member"].nunique() <= curves.HAIRLINES
    assert set(shown["step"]) >= {1, 500}
    assert shown["step"].nunique() == curves.STEPS


def test_barriers_show_a_dot_per_pair_and_the_mean_as_a_bar() -> None:
    values = queries.barriers(made_up.results(), LOSS, "test", "midpoint")
    chart = paths.barriers(values, list(made_up.HEIGHTS), "test loss barrier, midpoint (nats)", 3)
    (dots,) = marks(chart, "circle")
    assert len(dots["rows"]) == 4 * 5
    assert dots["encoding"]["x"]["title"] == "test loss barrier, midpoint (nats)"
    bars = marks(chart, "rule")[-1]["rows"].set_index("role")
    for treatment, mean in values.groupby("treatment")["value"].mean().items():
        assert bars["mean"][treatment] == pytest.approx(mean)
    assert dots["encoding"]["y"]["axis"]["labelExpr"].startswith(
        '["Standard", "Git Re-Basin", "σ-Asymmetric"'.replace("σ", "\\u03c3")
    )


def test_dots_in_a_lane_do_not_touch() -> None:
    values = np.random.default_rng(0).normal(size=40).tolist()
    lanes = paths.swarm(values, 0.1)
    for lane in set(lanes):
        inside = sorted(value for value, own in zip(values, lanes, strict=True) if own == lane)
        assert (np.diff(inside) >= 0.1).all()
    assert paths.swarm([1.0, 2.0, 3.0], 0.1) == [0, 0, 0]


def training(epochs: int, members: int = 4) -> pd.DataFrame:
    steps = np.arange(1, epochs + 1)
    rows = []
    for split, floor in (("train", 0.01), ("test", 0.08)):
        for member in range(members):
            for step in steps:
                value = floor + (2 + 0.1 * member) / step
                rows.append({"split": split, "member": member, "step": step, "value": value})
    return pd.DataFrame(rows)


def test_the_axis_of_barriers_holds_every_spread() -> None:
    values = pd.DataFrame({"treatment": ["w", "w", "w"], "pair": [0, 1, 2], "value": [0.1, 0.1, 1.0]})
    chart = paths.barriers(values, ["w"], "barrier (nats)", 3)
    low, high = marks(chart, "circle")[0]["encoding"]["x"]["scale"]["domain"]
    assert low < 0.4 - values["value"].std()
    assert high > 0.4 + values["value"].std()


def test_every_row_of_many_is_named() -> None:
    order = list(theme.TREATMENTS)
    values = pd.DataFrame({"treatment": order, "pair": 0, "value": 0.1})
    chart = paths.barriers(values, order, "barrier (nats)", 3)
    svg = images.image(chart, "svg").decode()
    assert all(f">{theme.treatment(key).label}</text>" in svg for key in order)


@pytest.mark.parametrize("log", [False, True])
def test_training_curves_keep_their_axis_while_a_run_goes_on(log: bool) -> None:
    early = curves.training(training(3), LOSS, 60, "w", log=log)
    late = curves.training(training(60), LOSS, 60, "w", log=log)
    horizontal = [marks(chart, "line")[1]["encoding"]["x"]["scale"]["domain"] for chart in (early, late)]
    assert horizontal[0] == horizontal[1]
    assert marks(late, "line")[1]["encoding"]["y"]["title"] == "loss (nats)"
    assert marks(late, "line")[1]["encoding"]["y"]["scale"]["type"] == ("log" if log else "linear")


@pytest.mark.parametrize("log", [False, True])
def test_labels_of_curves_that_end_together_do_not_collide(log: bool) -> None:
    frame = training(60).assign(value=0.5)
    domain = (0.01, 3.0)
    placed = curves.ends(curves.summary(frame), domain, "w", log=log).set_index("split")["y"]
    scale = np.log if log else np.array
    low, high = scale(domain)
    placed = np.array(placed)
    pixels = (scale(placed) - low) / (high - low) * curves.PLOT
    assert abs(pixels[0] - pixels[1]) >= 16.9


@pytest.mark.parametrize("values", [[math.nan, math.nan], [0.0, math.nan], [0.0, 0.0]])
def test_losses_without_a_logarithm_are_told_in_words(values: list[float]) -> None:
    points = pd.DataFrame({"split": "train", "member": 0, "step": [1, 2], "value": values})
    (words,) = marks(curves.training(points, LOSS, 2, "w", log=True), "text")
    assert words["rows"]["told"].tolist() == ["no loss above zero"]


def test_a_run_whose_losses_are_no_numbers_says_so() -> None:
    points = pd.DataFrame({"split": "train", "member": 0, "step": [1, 2], "value": math.nan})
    (words,) = marks(curves.training(points, LOSS, 2, "w"), "text")
    assert words["rows"]["told"].tolist() == ["no loss that is a number"]
