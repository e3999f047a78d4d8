"""Loss and accuracy of networks in a run's summary: a mean, and beside it how far the networks lie apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from symcore.metrics import Array

SPREAD = ", spread"
"""Ends the name of a sample standard deviation, which stands after its mean."""


def of_networks(split: str, where: str, loss: Array, accuracy: Array) -> dict[str, float]:
    """What a run's summary says of its networks: means, and sample standard deviations of two or more.

    Args:
        split: the images, say "test".
        where: which networks they are, say "of the networks".
        loss: of each network, nats, [network].
        accuracy: likewise, 0 to 1.

    Returns:
        Say {"test/loss of the networks": 0.07, "test/loss of the networks, spread": 0.01} and so on.
    """
    found: dict[str, float] = {}
    for name, values in (("loss", loss), ("accuracy", accuracy)):
        found[f"{split}/{name} {where}"] = float(values.mean())
        if len(values) > 1:
            found[f"{split}/{name} {where}{SPREAD}"] = float(values.std(ddof=1))
    return found


def each_once(members: Sequence[int], values: Array) -> Array:
    """One value of each network, [network], of values where a network may stand several times, [place].

    Args:
        members: the network at each place.
        values: what was measured there.
    """
    _, first = np.unique(members, return_index=True)
    once: Array = values[first]
    return once


def with_spread(summary: Mapping[str, float | None]) -> dict[str, tuple[float | None, float | None]]:
    """Every number with its spread, if it has one; a number is none where it is not finite."""
    return {
        name: (value, summary.get(name + SPREAD))
        for name, value in summary.items()
        if not name.endswith(SPREAD)
    }
