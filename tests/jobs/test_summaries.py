"""What is said first of a run and of a study: means with spreads, in lines that fit a terminal."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.headline import WIDTH, Headline, spread
from jobs.summaries import each_once, of_networks, with_spread


def test_means_and_spreads_of_networks_are_found_together_again() -> None:
    told = of_networks("test", "of the networks", np.array([0.1, 0.3]), np.array([0.9, 0.7]))
    found = with_spread(told | {"flat share": 0.5})
    assert list(found) == ["test/loss of the networks", "test/accuracy of the networks", "flat share"]
    assert found["test/loss of the networks"] == pytest.approx((0.2, 0.1 * 2**0.5))
    assert found["test/accuracy of the networks"] == pytest.approx((0.8, 0.1 * 2**0.5))
    assert found["flat share"] == (0.5, None)


def test_a_single_network_has_no_spread() -> None:
    told = of_networks("train", "in the middle", np.array([0.1]), np.array([0.9]))
    assert told == {"train/loss in the middle": 0.1, "train/accuracy in the middle": 0.9}


def test_a_network_of_many_pairs_counts_once() -> None:
    """Of all pairs of three networks, so that each stands at two ends."""
    members = [0, 1, 0, 2, 1, 2]
    values = np.array([5.0, 3.0, 5.0, 1.0, 3.0, 1.0])
    np.testing.assert_array_equal(each_once(members, values), [5, 3, 1])


def test_spreads_go_below_their_means_only_where_a_line_is_too_short() -> None:
    cell = spread(0.5, 0.25)
    few, many = (
        Headline(("treatment", *"abcdefg"[:n]), (("Git Re-Basin", *[cell] * n),), "") for n in (3, 7)
    )
    assert few.fitted() is few
    (row,) = many.fitted().rows
    assert row == ("Git Re-Basin", *["0.500\n± 0.250"] * 7)
    assert sum(len(line) for line in (row[0], *["± 0.250"] * 7)) + 2 * len(row) <= WIDTH
