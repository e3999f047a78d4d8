"""Eigenvalues and traces are those of the Hessian written out, over trained entries only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import functional_call

from symcore.landscape.curvature import Hessian, largest, trace
from symcore.metrics import cross_entropy
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, build
from symcore.treatments import SigmaAsymmetric, Standard, WAsymmetric

TREATMENTS = [Standard(), WAsymmetric(), SigmaAsymmetric()]


def networks(treatment, mask_seeds=(0,)):
    """Three networks of 83 parameters in float64, and 40 images of noise."""
    made = build(Design(MLPSpec(width=4, depth=2), treatment, (2, 3), 3, (1, 2, 3), mask_seeds))
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(40, 2, 3, dtype=torch.float64, generator=draw)
    return made, images, torch.randint(3, (40,), generator=draw)


def hessian_of(made, images, labels):
    masks = made.asymmetry.trainable if made.asymmetry else None
    return Hessian(
        made.network.double(),
        {n: w.double() for n, w in made.effective().items()},
        {n: b.double() for n, b in made.buffers.items()},
        images,
        labels,
        trainable=masks,
        stacked_buffers=made.stacked,
    )


def written_out(made, images, labels, member):
    """The Hessian by double differentiation of one network, [trained entry, trained entry]."""
    one = made.select([member])
    weights = {n: w[0].double() for n, w in one.effective().items()}
    buffers = {n: b.double() for n, b in one.buffers.items()}
    sizes = [w.numel() for w in weights.values()]
    network = made.network.double()

    def loss(flat):
        parts = dict(zip(weights, flat.split(sizes), strict=True))
        at = {n: p.view_as(weights[n]) for n, p in parts.items()}
        return cross_entropy(functional_call(network, at | buffers, (images,)), labels).mean()

    whole = torch.autograd.functional.hessian(loss, torch.cat([w.flatten() for w in weights.values()]))
    free = torch.ones(len(whole), dtype=torch.bool)
    if one.asymmetry:
        masks = {n: (d[0] if d.ndim == 3 else d) for n, d in one.asymmetry.trainable.items()}
        free = torch.cat([masks.get(n, torch.ones_like(w)).bool().flatten() for n, w in weights.items()])
    return whole[free][:, free]


@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
@pytest.mark.parametrize("mask_seeds", [(0,), (0, 1, 2)], ids=["shared masks", "masks per member"])
def test_eigenvalues_are_the_hessians(treatment, mask_seeds):
    made, images, labels = networks(treatment, mask_seeds)
    hessian = hessian_of(made, images, labels)
    found = largest(hessian, 3, steps=40, seed=0)
    for member in range(3):
        exact = torch.linalg.eigvalsh(written_out(made, images, labels, member)).flip(0)[:3]
        np.testing.assert_allclose(found.values[member], exact, rtol=1e-6)
    assert (found.residuals < 1e-4).all()


@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
def test_the_trace_lies_within_its_error(treatment):
    """Four standard errors; and the error is that of random signs, sqrt(2 * sum of squares off the diagonal)."""
    made, images, labels = networks(treatment)
    found = trace(hessian_of(made, images, labels), probes=200, seed=0)
    for member in range(3):
        exact = written_out(made, images, labels, member)
        error = (2 * (exact.square().sum() - exact.diagonal().square().sum()) / 200).sqrt().item()
        assert abs(found.mean[member] - exact.trace().item()) < 4 * error
        assert found.error[member] == pytest.approx(error, rel=0.25)


def test_few_steps_say_how_far_off_they_may_be():
    """An eigenvalue of the Hessian lies within the residual of each value (a bound of Lanczos' method)."""
    made, images, labels = networks(Standard())
    found = largest(hessian_of(made, images, labels), 2, steps=6, seed=0)
    for member in range(3):
        exact = torch.linalg.eigvalsh(written_out(made, images, labels, member)).numpy()
        for value, residual in zip(found.values[member], found.residuals[member], strict=True):
            assert np.abs(exact - value).min() <= residual + 1e-9


def test_bad_numbers_are_named():
    hessian = hessian_of(*networks(Standard()))
    with pytest.raises(ValueError, match="steps: got 2; at least 3"):
        largest(hessian, 3, steps=2, seed=0)
    with pytest.raises(ValueError, match="probes: got 1; at least 2"):
        trace(hessian, probes=1, seed=0)
