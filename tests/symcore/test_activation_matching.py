"""Activation matching finds planted permutations, whatever the scale of neurons, and says what it cannot do."""

from __future__ import annotations

import pytest
import torch

from symcore.align import activations, weights
from symcore.checkpoints import StoppedError
from symcore.data import sources
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, build
from symcore.randomness import stream
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.features import features
from symcore.training import Trainer, TrainingSpec, fit
from symcore.treatments import Standard


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return sources.load("digits", tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(digits):
    start = build(Design(MLPSpec(width=24, depth=2), Standard(), (8, 8), 10, tuple(range(8))))
    return fit(Trainer(start, digits, TrainingSpec(epochs=20)))


def images(digits, number=500):
    return digits.normalise(digits.splits["train"].images[:number])


def test_features_move_with_the_neurons(trained, digits):
    x = images(digits, 20)
    cut = features(trained.network, x)
    drawn = symmetry.random(cut.spec, stream(0, "test"), trained.size)
    before = cut(trained.effective(), trained.buffers, (x,))
    after = cut(symmetry.permute(trained.effective(), cut.spec, drawn), trained.buffers, (x,))
    for name, permutation in drawn.items():
        moved = before[name].gather(2, permutation[:, None].expand(-1, len(x), -1))
        torch.testing.assert_close(after[name], moved, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("similarity", ["product", "correlation"])
def test_a_planted_permutation_is_found(trained, digits, similarity):
    a = trained.effective()
    spec = symmetry.derive(trained.network, images(digits, 2))
    planted = symmetry.random(spec, stream(1, "test"), trained.size)
    found = activations.match(
        trained.network, a, symmetry.permute(a, spec, planted), images(digits), similarity=similarity
    )
    undone = symmetry.invert(planted)
    correct = {n: (p == undone[n]).float().mean() for n, p in found.permutations.items()}
    # neurons that hardly answer can change places in a product; a correlation tells all apart
    assert all(share >= (0.95 if similarity == "product" else 1.0) for share in correct.values()), correct


def test_independent_networks_come_closer(trained, digits):
    """Less than weight matching, which ascends that very objective, but far above the identity."""
    a = {n: p[:4] for n, p in trained.effective().items()}
    b = {n: p[4:] for n, p in trained.effective().items()}
    by_features = activations.match(trained.network, a, b, images(digits), similarity="correlation")
    by_weights = weights.match(trained.network, a, b, images(digits, 2))
    assert (by_features.objective > by_features.identity_objective).all()
    assert (by_features.objective <= by_weights.objective + 1e-6).all()
    assert torch.allclose(by_features.identity_objective, by_weights.identity_objective)


def test_a_constant_neuron_correlates_with_none(trained, digits):
    dead = {n: p.clone() for n, p in trained.effective().items()}
    dead["hidden.0.norm.weight"][:, 3] = 0
    found = activations.match(trained.network, dead, dead, images(digits), similarity="correlation")
    expected = torch.arange(24).expand(trained.size, -1)
    assert torch.equal(found.permutations["hidden.0"], expected)


def test_bad_input_and_a_stop(trained, digits):
    a = trained.effective()
    with pytest.raises(ValueError, match="inputs: got none"):
        activations.match(trained.network, a, a, images(digits, 0))
    with pytest.raises(StoppedError):
        activations.match(trained.network, a, a, images(digits), stopping=lambda: True)
