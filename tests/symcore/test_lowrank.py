"""Low-rank Gaussians against closed forms and against draws."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence
from torch.func import vmap
from torch.nn import functional as F

from symcore.posteriors import noise
from symcore.posteriors.layers import Instead
from symcore.posteriors.lowrank import Gaussian, divergence, log_determinant

KEY = noise.keys([5], "test")[0]
PRIOR = 0.3


def gaussian(shapes, rank, fixed=0.0, seed=0):
    """Random parameters of a layer, a part of them fixed."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=g)  # noqa: E731
    random = [torch.rand(s, generator=g) >= fixed for s in shapes]
    return Gaussian(
        [draw(*s) for s in shapes],
        [(draw(*s) - 2).exp() * r for s, r in zip(shapes, random, strict=True)],
        [draw(rank, *s) * r for s, r in zip(shapes, random, strict=True)],
        rank,
    )


def dense(layer):
    """Mean, covariance, and which entries are random, of all of a layer's parameters in one vector."""
    mean = torch.cat([m.flatten() for m in layer.means]).double()
    variance = torch.cat([v.flatten() for v in layer.variances]).double()
    factor = torch.cat([f.flatten(1) for f in layer.factors], 1).double()
    return mean, variance.diag() + factor.t() @ factor / max(1, layer.rank), variance > 0


@pytest.mark.parametrize("rank", [0, 1, 4])
@pytest.mark.parametrize("fixed", [0.0, 0.4])
def test_the_divergence_is_that_of_the_dense_gaussian(rank, fixed):
    layer = gaussian([(3, 5), (3,)], rank, fixed)
    mean, covariance, random = dense(layer)
    q = MultivariateNormal(mean[random], covariance[random][:, random])
    d = int(random.sum())
    p = MultivariateNormal(torch.full((d,), 0.2).double(), PRIOR * torch.eye(d).double())
    torch.testing.assert_close(
        divergence([layer], [[0.2, 0.2]], [PRIOR]).double(), kl_divergence(q, p), rtol=1e-5, atol=1e-5
    )


def test_divergences_of_layers_add_up():
    layers = [gaussian([(3, 5), (3,)], 2), gaussian([(4, 3)], 2, fixed=0.3, seed=1)]
    each = [divergence([q], [[0.0] * len(q.means)], [p]) for q, p in zip(layers, (0.3, 2.0), strict=True)]
    together = divergence(layers, [[0.0] * len(q.means) for q in layers], [0.3, 2.0])
    torch.testing.assert_close(together, sum(each))


def test_the_divergence_is_the_mean_log_ratio_of_its_draws():
    layer = gaussian([(4, 3), (4,)], 2)
    mean, covariance, _ = dense(layer)
    q = MultivariateNormal(mean, covariance)
    keys = noise.keys(range(10_000), "draws")
    drawn = vmap(lambda key: torch.cat([w.flatten() for w in layer.draw(noise.Reel(key, 100))]))(
        keys
    ).double()
    prior = -(drawn.square() / PRIOR + math.log(2 * math.pi * PRIOR)).sum(1) / 2
    ratio = q.log_prob(drawn) - prior
    error = float(ratio.std() / len(ratio) ** 0.5)
    assert abs(float(ratio.mean() - divergence([layer], [[0, 0]], [PRIOR]))) < 4 * error


@pytest.mark.parametrize("rank", [0, 3])
def test_draws_have_the_mean_and_covariance_and_what_is_fixed_stays_exactly(rank):
    layer = gaussian([(2, 3), (2,)], rank, fixed=0.3)
    mean, covariance, random = dense(layer)
    keys = noise.keys(range(20_000), "draws")
    drawn = vmap(lambda key: torch.cat([w.flatten() for w in layer.draw(noise.Reel(key, 100))]))(keys)
    assert not random.all()
    assert torch.equal(drawn[:, ~random], mean[~random].float().expand(len(drawn), -1))
    torch.testing.assert_close(drawn.double().mean(0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(drawn.double().t().cov(), covariance, rtol=0.07, atol=0.1)


LAYERS = {
    "linear": (nn.Linear(4, 3), (4,)),
    "linear of sequences": (nn.Linear(4, 3), (2, 4)),
    "convolution": (nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 5, 5)),
    "convolution without bias": (nn.Conv2d(2, 3, 2, bias=False), (2, 3, 3)),
}


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)
def test_outputs_have_the_moments_that_drawn_weights_give_them(layer, shape, rank):
    """Of outputs at one place: the channels of a map, the neurons else."""
    shapes = [tuple(p.shape) for p in layer.parameters()]
    q, n = gaussian(shapes, rank, fixed=0.2), 10_000
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with (
        Instead({id(layer.weight): lambda passage: q.at_outputs(passage, noise.Reel(KEY, 2_000_000))}),
        torch.no_grad(),
    ):
        local = layer(x.expand(n, *shape))
    names = [name for name, _ in layer.named_parameters()]
    drawn = vmap(
        lambda key: torch.func.functional_call(
            layer, dict(zip(names, q.draw(noise.Reel(key, 1000)), strict=True)), (x.unsqueeze(0),)
        )[0]
    )(noise.keys(range(n), "draws"))
    places = {1: (), 2: (0,), 3: (slice(None), 1, 0)}[len(shape)]
    channels = lambda out: out[:, *places]  # noqa: E731
    a, b = channels(local).double(), channels(drawn).double()
    spread = float(b.std())
    torch.testing.assert_close(a.mean(0), b.mean(0), rtol=0, atol=0.1 * spread)
    torch.testing.assert_close(a.t().cov(), b.t().cov(), rtol=0.1, atol=0.1 * spread**2)


@pytest.mark.parametrize("kind", [F.linear, F.conv2d])
def test_noise_of_fixed_weights_is_exactly_zero(kind):
    """The authors' code gives the fixed weights of convolutions noise: it takes channels for directions."""
    shape = (4, 6) if kind is F.linear else (4, 6, 3, 3)
    layer = nn.Linear(6, 4) if kind is F.linear else nn.Conv2d(6, 4, 3)
    q = gaussian([shape, (4,)], 4)
    open_rows = torch.zeros(4, dtype=torch.bool)
    open_rows[1] = True  # every other row is fixed as a whole
    keep = lambda t, at: t * open_rows.view(*[1] * at, 4, *[1] * (t.ndim - at - 1))  # noqa: E731
    q = Gaussian(q.means, [keep(v, 0) for v in q.variances], [keep(f, 1) for f in q.factors], 4)
    x = torch.randn(7, *((6,) if kind is F.linear else (6, 5, 5)), requires_grad=True)
    with Instead({id(layer.weight): lambda passage: q.at_outputs(passage, noise.Reel(KEY, 2_000_000))}):
        noisy = layer(x)
    exact = kind(x, *q.means)
    assert torch.equal(noisy[:, ~open_rows], exact[:, ~open_rows])
    assert (noisy[:, open_rows] != exact[:, open_rows]).all()
    noisy.sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_elimination_gives_the_log_determinant(size):
    root = torch.randn(size, 7, generator=torch.Generator().manual_seed(2))
    matrix = torch.eye(size) + root @ root.t()
    torch.testing.assert_close(log_determinant(matrix), torch.logdet(matrix))
    both = torch.stack([matrix, 2 * matrix])
    torch.testing.assert_close(log_determinant(both), torch.logdet(both))
