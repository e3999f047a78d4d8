"""The matrix chart shows each pair twice, on one scale for all treatments, and fits the page."""

from __future__ import annotations

from itertools import combinations

import pandas as pd
import pytest

from app.charts import matrices
from app.charts.quantities import LOSS


def frame(networks: int, rise: float) -> pd.DataFrame:
    return pd.DataFrame(
        [{"a": a, "b": b, "value": rise * (a + b)} for a, b in combinations(range(networks), 2)]
    )


@pytest.fixture
def spec() -> dict:
    both = {"standard": frame(4, 0.1), "w": frame(4, -0.01)}
    return matrices.figure(both, 4, LOSS, "midpoint test loss barrier (nats)").to_dict()


def panels(spec: dict) -> list[dict]:
    return spec["vconcat"][0]["hconcat"]


def test_all_matrices_share_one_scale_that_holds_zero(spec: dict) -> None:
    squares = [panel["layer"][0] for panel in panels(spec)]
    for square in squares:
        assert square["encoding"]["fill"]["scale"]["domain"] == pytest.approx([-0.05, 0.5])


def test_both_halves_are_filled_and_networks_count_from_zero_as_everywhere(spec: dict) -> None:
    for panel in panels(spec):
        rows = spec["datasets"][panel["layer"][0]["data"]["name"]]
        value = {(row["a"], row["b"]): row["value"] for row in rows}
        assert set(value) == {(a, b) for a in range(4) for b in range(4) if a != b}
        assert all(value[a, b] == value[b, a] for a, b in value)


def test_numbers_stand_in_squares_that_have_room_for_them() -> None:
    def layers(networks: int) -> int:
        drawn = matrices.figure(
            {"w": frame(networks, 0.1)}, networks, LOSS, "midpoint test loss barrier (nats)"
        ).to_dict()
        return len(panels(drawn)[0]["layer"])

    assert layers(4) > layers(30)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_matrices_fit_the_page(count: int) -> None:
    taken = matrices.AXIS + matrices.LEGEND + count * matrices.side(count) + (count - 1) * matrices.GAP
    assert taken <= matrices.WIDTH


def test_no_barrier_anywhere_still_has_a_scale() -> None:
    low, high = matrices.domain(pd.Series([0.0, 0.0]))
    assert low < high
