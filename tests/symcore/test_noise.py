"""Random numbers of counters: what a hash must give to stand for independent draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import vmap

from symcore.posteriors import noise
from symcore.program import Program

N = 100_000
KEYS = noise.keys(range(40), "test")


def pcg3d(x, y, z):
    """The published hash, in unsigned arithmetic."""
    v = [np.uint32(w) for w in (x, y, z)]
    with np.errstate(over="ignore"):
        v = [w * np.uint32(1664525) + np.uint32(1013904223) for w in v]
        for _ in range(2):
            v[0] += v[1] * v[2]
            v[1] += v[2] * v[0]
            v[2] += v[0] * v[1]
            if not _:
                v = [w ^ (w >> np.uint32(16)) for w in v]
    return v


def test_words_are_those_of_the_published_hash():
    words = torch.randint(-(2**31), 2**31, (3, 50), dtype=torch.int32)
    mixed = torch.stack(noise._mixed(*words)).numpy().view(np.uint32)
    for column, given in zip(mixed.T, words.numpy().view(np.uint32).T, strict=True):
        assert list(column) == pcg3d(*given)


@pytest.mark.parametrize("key", KEYS[:4], ids=range(4))
def test_normal_numbers_are_normal_and_uniform_ones_uniform(key):
    assert stats.kstest(noise.normal(key, (N,)).numpy(), "norm").pvalue > 1e-3
    drawn = noise.uniform(key, (N,))
    assert stats.kstest(drawn.numpy(), "uniform").pvalue > 1e-3
    assert 0 < drawn.min() <= drawn.max() <= 1


def test_neither_keys_nor_places_nor_neighbours_have_anything_in_common():
    root = KEYS[0]
    steps = [noise.derived(root, step) for step in range(20)]
    layers = [noise.derived(root, 3, layer) for layer in range(20)]
    drawn = torch.stack([noise.normal(key, (N,)) for key in [*KEYS, *steps, *layers]])
    drawn = torch.cat(
        [drawn, drawn[:1].roll(1), drawn[:1].roll(N // 2), drawn[:1].square() / 2**0.5 - 0.5**0.5]
    )
    correlation = torch.corrcoef(drawn.double()) - torch.eye(len(drawn))
    assert correlation.abs().max() < 5 / N**0.5


def test_a_members_numbers_do_not_depend_on_its_neighbours_and_are_the_same_in_a_traced_program():
    many = vmap(lambda key: noise.normal(noise.derived(key, 7), (5, 3)))
    alone = torch.stack([noise.normal(noise.derived(key, 7), (5, 3)) for key in KEYS])
    assert torch.equal(many(KEYS), alone)
    assert torch.equal(Program(lambda t: (many(t[0]),))([KEYS])[0], alone)
    step = torch.tensor(7.0)
    assert torch.equal(noise.derived(KEYS, 7), noise.derived(KEYS, step.expand(len(KEYS))))


@pytest.mark.parametrize("kind", [noise.normal, noise.uniform])
def test_a_reel_gives_out_piece_by_piece_what_was_drawn_at_once(kind):
    reel = noise.Reel(KEYS[0], 20, kind)
    pieces = [reel((2, 3)), reel((14,))]
    assert pieces[0].shape == (2, 3)
    assert torch.equal(torch.cat([piece.flatten() for piece in pieces]), kind(KEYS[0], (20,)))
    with pytest.raises(RuntimeError):
        reel((1,))
