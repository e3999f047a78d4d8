"""Direct labels stay beside their lines and off each other."""

from __future__ import annotations

from itertools import combinations, pairwise

import made_up
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from app import theme
from app.charts import labels, paths
from app.charts.quantities import LOSS


@given(some.lists(some.floats(0, 100), min_size=1, max_size=7), some.floats(0.1, 10))
def test_spread_labels_never_overlap_and_keep_their_order(wanted: list[float], gap: float) -> None:
    placed = labels.spread(wanted, gap, -1000, 1000)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    for below, above in pairwise(order):
        assert placed[above] - placed[below] >= gap * (1 - 1e-9)


@given(some.lists(some.floats(0, 100), min_size=1, max_size=7), some.floats(0.1, 10))
def test_spread_moves_a_block_of_labels_evenly_up_and_down(wanted: list[float], gap: float) -> None:
    """The least sum of squares leaves the mean where it was."""
    assert np.mean(labels.spread(wanted, gap, -1e6, 1e6)) == pytest.approx(np.mean(wanted), abs=1e-6)


@given(some.lists(some.floats(0, 100), min_size=1, max_size=5))
def test_spread_stays_inside_while_there_is_room(wanted: list[float]) -> None:
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in labels.spread(wanted, 20, 0, 100))


def test_labels_far_apart_stay_where_they_are() -> None:
    assert labels.spread([50.0, 10.0, 90.0], 5, 0, 100) == [50.0, 10.0, 90.0]


@pytest.mark.parametrize(
    "heights",
    [
        made_up.HEIGHTS,
        {"standard": 0.62, "rebasin": 0.6, "sigma": 0.61, "w": 0.63},
        {"standard": 0.01, "rebasin": 0.011, "sigma": 0.009, "w": 0.012},
        {"standard": 0.188, "rebasin": -0.006, "sigma": 0.117, "w": -0.012},
        {"w": 0.1},
    ],
    ids=["digits", "all high", "all flat", "the paper's", "one"],
)
@pytest.mark.parametrize("seed", range(5))
def test_labels_of_close_lines_do_not_collide(heights: dict[str, float], seed: int) -> None:
    points = made_up.points(heights, seed=seed)
    low, high = paths.domain(points, LOSS)
    means = paths.summary(points)
    lines = {key: part["mean"].to_numpy() for key, part in means.groupby("treatment", sort=False)}
    plot = labels.Plot(low, high, paths.WIDTH, paths.HEIGHT - paths.AXIS)
    boxes = labels.place(lines, dict.fromkeys(lines, "σ-Asymmetric"), plot)
    assert not any(one.meets(other) for one, other in combinations(boxes.values(), 2))
    for key, box in boxes.items():
        assert 0 < box.middle < paths.HEIGHT - paths.AXIS
        touched = labels.middle(lines[key]) if box.anchor is None else plot.value(box.anchor)
        assert touched == pytest.approx(labels.middle(lines[key]))


def test_names_of_many_lines_stand_in_a_list_right_of_them() -> None:
    means = paths.summary(made_up.points(dict.fromkeys(list(theme.TREATMENTS)[:-1], 0.1)))
    low, high = 0.0, 0.5
    placed = paths.label_places(means, low, high)
    assert len(placed) == len(theme.TREATMENTS) - 1
    assert (placed["alpha"] > 1).all()
    assert placed["alpha"].max() < paths.LISTED
    assert placed["y"].between(low, high).all()
    pixels = (
        placed["y"].sort_values().diff().dropna() / (high - low) * (paths.height(len(placed)) - paths.AXIS)
    )
    assert pixels.min() >= labels.GAP
    assert placed.sort_values("y", ascending=False)["mean"].is_monotonic_decreasing


def test_leaders_do_not_cross() -> None:
    for seed in range(20):
        points = made_up.points({"standard": 0.01, "rebasin": 0.011, "sigma": 0.009, "w": 0.012}, seed=seed)
        placed = paths.label_places(paths.summary(points), *paths.domain(points, LOSS))
        led = placed[placed["beside"].astype(bool)].sort_values("mean")
        assert led["y"].is_monotonic_increasing


def test_no_line_runs_through_the_labels_of_a_usual_study() -> None:
    points = made_up.points()
    low, high = paths.domain(points, LOSS)
    plot = labels.Plot(low, high, paths.WIDTH, paths.HEIGHT - paths.AXIS)
    lines = {
        key: part["mean"].to_numpy() for key, part in paths.summary(points).groupby("treatment", sort=False)
    }
    boxes = labels.place(lines, dict.fromkeys(lines, "σ-Asymmetric"), plot)
    xs = np.linspace(0, 1, 500)
    for box in boxes.values():
        for line in lines.values():
            ys = np.array([plot.pixels(y) for y in np.interp(xs, made_up.ALPHAS, line)])
            assert box.crossings(xs * paths.WIDTH, ys) == 0
