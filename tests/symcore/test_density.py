"""The density of networks is the posterior written out, its gradient the derivative; what is fixed never moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.func import functional_call

from symcore.data.nodes import Nodes
from symcore.data.sources import CORA, DIGITS, Dataset, Split, load
from symcore.networks.gnn import GNNSpec
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.networks.resnet import ResNetSpec
from symcore.population import Design, build
from symcore.posteriors.density import PosteriorDensity
from symcore.posteriors.hmc import HMCSpec, Sampler, sample
from symcore.propagation import graph_of
from symcore.treatments import FixedBiases, SigmaAsymmetric, Standard, Syre, WAsymmetric

PRIOR, TEMPERATURE = 0.7, 0.25
"""Unlike 1, so that they are seen where they belong."""
TREATMENTS = [Standard(), WAsymmetric(), SigmaAsymmetric(), Syre(std=0.3), FixedBiases()]


@pytest.fixture(scope="module")
def data():
    """Forty images of 2 x 3 bytes in three classes."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(17, (40, 2, 3), generator=draw).to(torch.uint8)
    labels = torch.randint(3, (40,), generator=draw)
    return Dataset(replace(DIGITS, input_shape=(2, 3), classes=3), {"train": Split(images, labels)})


def networks(treatment, mask_seeds=(0,), spec=None):
    spec = spec or MLPSpec(width=4, depth=2)
    return build(Design(spec, treatment, (2, 3), 3, (1, 2, 3), mask_seeds))


def density_of(made, data, dtype=torch.float64):
    return PosteriorDensity(made, data, prior_std=PRIOR, temperature=TEMPERATURE, dtype=dtype)


def written_out(made, data, member):
    """The log posterior of one network as a function of its raw weights by name, and these weights."""
    one = made.select([member])
    masks, network = one.asymmetry, one.network.double()
    buffers = {name: b.double() for name, b in one.buffers.items()}
    images, labels = data.normalise(data.splits["train"].images).double(), data.splits["train"].labels

    def log_posterior(raw):
        value = torch.zeros((), dtype=torch.float64)
        effective = {}
        for name, weight in raw.items():
            fixed, free = torch.zeros_like(weight), torch.ones_like(weight)
            if masks and name in masks.fixed:
                fixed, free = (t[name].view_as(weight).double() for t in (masks.fixed, masks.trainable))
            effective[name] = fixed + free * weight
            value = value + torch.distributions.Normal(0.0, PRIOR).log_prob(weight)[free.bool()].sum()
        logits = functional_call(network, effective | buffers, (images,))
        likelihoods = torch.distributions.Categorical(logits=logits).log_prob(labels)
        return value + likelihoods.sum() / TEMPERATURE

    return log_posterior, {name: w[0].double() for name, w in one.parameters.items()}


def moved(position):
    return position + 0.1 * torch.randn_like(position)


@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
@pytest.mark.parametrize("mask_seeds", [(0,), (0, 1, 2)], ids=["shared masks", "masks per member"])
def test_the_density_is_the_posterior_written_out(treatment, mask_seeds, data):
    """Up to one constant for all positions; the gradient is that of trained entries by automatic differentiation."""
    made = networks(treatment, mask_seeds)
    density = density_of(made, data)
    first = density.position(made)
    second = moved(first)
    (start, _), (end, slope) = density(first), density(second)
    there = density.population(second)
    for member in range(3):
        log_posterior, raw = written_out(made, data, member)
        _, other = written_out(there, data, member)
        expected = log_posterior(other) - log_posterior(raw)
        torch.testing.assert_close(end[member] - start[member], expected)
        gradient = torch.func.grad(log_posterior)(other)
        masks = made.select([member]).asymmetry
        free = {n: masks.trainable[n].view_as(g) for n, g in gradient.items() if masks and n in masks.fixed}
        kept = [g[free[n]] if n in free else g.flatten() for n, g in gradient.items()]
        torch.testing.assert_close(slope[member], torch.cat(kept))


@pytest.mark.parametrize("spec", [MLPSpec(width=4, depth=2, norm="none"), RecurrentSpec(width=4)], ids=str)
def test_gradients_are_finite_differences(spec, data):
    made = networks(WAsymmetric(), spec=spec)
    density = density_of(made, data)
    position = moved(density.position(made))
    direction, step = torch.randn_like(position), 1e-5
    rise = density(position + step * direction)[0] - density(position - step * direction)[0]
    torch.testing.assert_close(
        rise / (2 * step), (density(position)[1] * direction).sum(1), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
def test_a_position_is_the_networks_trained_entries(treatment):
    """It leads back to the same networks, and what is fixed is the same wherever it goes."""
    data = load("digits", Path())
    made = build(Design(MLPSpec(width=8, depth=2), treatment, (8, 8), 10, (1, 2)))
    density = density_of(made, data, torch.float32)
    position = density.position(made)
    assert position.shape == (2, density.dimension)
    for name, effective in density.effective(position).items():
        assert torch.equal(effective, made.effective()[name])
    assert torch.equal(density.position(density.population(position)), position)
    elsewhere = density.effective(position + 1)
    masks = made.asymmetry.trainable if made.asymmetry else {}
    for name, effective in made.effective().items():
        free = masks.get(name, torch.ones_like(effective[0], dtype=torch.bool))
        assert torch.equal(elsewhere[name] != effective, free.expand_as(effective)), name


def test_chunks_of_images_add_up(data, monkeypatch):
    made = networks(WAsymmetric())
    position = density_of(made, data).position(made)
    whole = density_of(made, data)(position)
    monkeypatch.setattr("symcore.posteriors.density.rows_at_once", lambda _device, _largest: 3 * 7)
    for found, expected in zip(density_of(made, data)(position), whole, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_member_has_the_density_that_it_has_alone(data):
    made = networks(WAsymmetric(), (4, 5, 6))
    density = density_of(made, data)
    position = moved(density.position(made))
    together = density(position)
    for member in range(3):
        alone = density_of(made.select([member]), data)
        for found, expected in zip(alone(position[[member]]), together, strict=True):
            torch.testing.assert_close(found[0], expected[member])


def test_permuted_neurons_have_the_same_density_unless_the_network_is_asymmetric(data):
    """The posterior of a standard network has every mode as often as its hidden neurons can be permuted."""
    order, changes = torch.tensor([2, 0, 3, 1]), {}
    for treatment in (Standard(), WAsymmetric(), Syre(std=0.3)):
        made = networks(treatment, spec=MLPSpec(width=4, depth=1))
        effective = {
            name: w[:, :, order] if name == "readout.weight" else w if name == "readout.bias" else w[:, order]
            for name, w in made.effective().items()
        }
        density = density_of(made, data)
        there = density.position(made.with_effective(effective))
        changes[treatment.kind] = (density(there)[0] - density(density.position(made))[0]).abs()
    assert (changes["standard"] < 1e-4).all()
    assert (changes["w_asymmetric"] > 0.1).all()
    assert (changes["syre"] > 0.1).all()  # by its prior alone


def test_a_graph_counts_its_training_nodes():
    """The likelihood is summed over labelled nodes, each of which sees its neighbours."""
    draw = torch.Generator().manual_seed(1)
    features = torch.rand(12, 5, generator=draw)
    nodes = Nodes(
        features,
        torch.randint(3, (12,), generator=draw),
        torch.randint(12, (2, 20), generator=draw),
        {"train": torch.arange(7)},
    )
    source = replace(CORA, input_shape=(5,), classes=3, nodes=12)
    data = Dataset(
        source, {"train": Split(nodes.features, nodes.labels_of("train"))}, graph_of(nodes.edges, 12)
    )
    made = build(Design(GNNSpec(width=8, depth=1, norm="none"), Standard(), (5,), 3, (1, 2)))
    density = density_of(made, data, torch.float32)
    position = density.position(made)
    found, _ = density(position)
    for member in range(2):
        weights = {name: w[member] for name, w in made.parameters.items()}
        logits = functional_call(made.network, weights, (data.normalise(features), *data.graph))[:7]
        likelihood = torch.distributions.Categorical(logits=logits).log_prob(nodes.labels[:7]).sum()
        expected = likelihood / TEMPERATURE - position[member].square().sum() / (2 * PRIOR**2)
        assert found[member].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    "spec",
    [MLPSpec(norm="batch", depth=2), ResNetSpec(depth=8, width=0.25, norm="batch")],
    ids=lambda spec: spec.kind,
)
def test_batchnorm_is_refused(spec, data):
    source = replace(DIGITS, input_shape=(3, 8, 8))
    made = build(Design(spec, Standard(), source.input_shape, 10, (1,)))
    with pytest.raises(ValueError, match=r"network: it has BatchNorm .*accepted: networks that normalise"):
        PosteriorDensity(made, replace(data, source=source), prior_std=1.0)


@pytest.mark.parametrize("treatment", [Standard(), WAsymmetric()], ids=lambda t: t.kind)
def test_without_a_likelihood_samples_are_the_priors(treatment, data):
    """At a temperature of a thousand million the data say nothing: trained entries are N(0, prior^2), others stay."""
    made = networks(treatment)
    spec = HMCSpec(burn_in=50, samples=60, prior_std=PRIOR, temperature=1e9)
    density = PosteriorDensity(made, data, prior_std=spec.prior_std, temperature=spec.temperature)
    drawn = sample(Sampler(density, density.position(made), made.design.seeds, spec))
    entries = drawn.samples.flatten().double() / PRIOR
    error = len(entries) ** -0.5
    assert abs(entries.mean().item()) < 4 * error
    assert entries.square().mean().item() == pytest.approx(1, abs=4 * 2**0.5 * error)
    if made.asymmetry:
        last = density.effective(drawn.samples[-1])
        for name, free in made.asymmetry.trainable.items():
            assert torch.equal(last[name][:, ~free], made.effective()[name][:, ~free])
