"""Distances are what a brute-force sum over entries gives, and know equal, orthogonal and opposite networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from symcore.distances import distances, relative


def networks(seed: int, pairs: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(pairs, 4, 5, generator=generator),
        "bias": torch.randn(pairs, 4, generator=generator),
    }


def test_every_number_is_the_brute_force_sum_over_the_entries_that_count() -> None:
    a, b = networks(0), networks(1)
    counted = {"weight": torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(2)) < 0.5}
    found = distances(a, b, counted)
    assert found.names == ("weight", "bias")
    for place, name in enumerate(found.names):
        for pair in range(3):
            entries = [
                (x, y)
                for x, y, kept in zip(
                    a[name][pair].flatten().tolist(),
                    b[name][pair].flatten().tolist(),
                    counted.get(name, torch.ones(3, 4, dtype=torch.bool))[pair].flatten().tolist(),
                    strict=True,
                )
                if kept
            ]
            assert found.entries[pair, place] == len(entries)
            assert found.distance[pair, place] ** 2 == pytest.approx(sum((x - y) ** 2 for x, y in entries))
            assert found.norm_a[pair, place] ** 2 == pytest.approx(sum(x**2 for x, _ in entries))
            assert found.norm_b[pair, place] ** 2 == pytest.approx(sum(y**2 for _, y in entries))


def test_what_differs_only_where_nothing_counts_is_equal() -> None:
    a = networks(0)
    kept = {"weight": torch.zeros(3, 4, 5, dtype=torch.bool)}
    found = distances(a, a | {"weight": -a["weight"]}, kept)
    assert (found.distance == 0).all()
    assert (found.entries[:, 0] == 0).all()


def test_relative_distance_does_not_know_the_scale() -> None:
    orthogonal = {"w": torch.tensor([[1.0, 0.0]])}, {"w": torch.tensor([[0.0, 1.0]])}
    for scale in (1.0, 1e-3, 1e3):
        a, b = ({"w": scale * w["w"]} for w in orthogonal)
        for other, expected in ((a, 0.0), (b, np.sqrt(2)), ({"w": -a["w"]}, 2.0)):
            found = distances(a, other)
            assert relative(found.distance, found.norm_a, found.norm_b) == pytest.approx(expected)
    zero = np.zeros((1, 1))
    assert relative(zero, zero, zero) == 0
