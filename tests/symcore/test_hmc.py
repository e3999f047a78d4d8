"""Samples have the moments of densities known in closed form; trajectories are reversible, and chains know no neighbours."""

from __future__ import annotations

import math

import pytest
import torch

from symcore.checkpoints import Keeper, StoppedError, write_tensors
from symcore.posteriors.hmc import (
    HMCSpec,
    Hooks,
    Point,
    Sampler,
    acceptance_probability,
    leapfrog,
    sample,
)
from symcore.posteriors.mixing import effective_sample_size, split_r_hat

CHAINS = 30
COVARIANCE = torch.tensor([[1.0, 0.9, 0.0], [0.9, 2.0, -0.3], [0.0, -0.3, 0.25]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


class Gaussian:
    """N(mean, covariance) up to its constant."""

    def __init__(self, mean, covariance):
        self.mean, self.precision = mean, covariance.inverse()

    def __call__(self, position):
        away = position.double() - self.mean
        pull = (away.unsqueeze(2) * self.precision).sum(
            1
        )  # not a product of matrices: those differ with the rows
        return -(away * pull).sum(1) / 2, -pull.to(position)


def quartic(position):
    """exp(-sum of x^4 / 4): the force is no linear function, so that leapfrog errs."""
    return -position.double().pow(4).sum(1) / 4, -position.pow(3)


def standard_normal(position):
    return -position.double().square().sum(1) / 2, -position


def chains(density, spec, number=CHAINS, dimension=3, dtype=torch.float64, hooks=None):
    return sample(Sampler(density, torch.zeros(number, dimension, dtype=dtype), range(number), spec), hooks)


@pytest.fixture(scope="module")
def of_a_gaussian():
    return chains(Gaussian(MEAN, COVARIANCE), HMCSpec(burn_in=150, samples=300, trajectory=2.0))


def check_moments(drawn, mean, covariance):
    """Means within 4 standard errors, and second moments within 4 of theirs, by the effective sample sizes."""
    draws = drawn.samples.double()
    away = draws - mean
    products = (away.unsqueeze(3) * away.unsqueeze(2)).flatten(2)
    for values, expected in ((away, torch.zeros_like(mean)), (products, covariance.flatten())):
        sizes = torch.from_numpy(effective_sample_size(values.numpy()))
        errors = values.flatten(0, 1).std(0) / sizes.sqrt()
        assert ((values.mean((0, 1)) - expected).abs() < 4 * errors).all()
        assert (sizes > 300).all()
    assert (split_r_hat(draws.numpy()) < 1.02).all()


def test_samples_have_the_moments_of_a_correlated_gaussian(of_a_gaussian):
    check_moments(of_a_gaussian, MEAN, COVARIANCE)


def test_samples_have_the_moments_of_bayesian_linear_regression():
    """Normal noise of known size and a normal prior: the posterior is N(S X^T y / s^2, S), S^-1 = X^T X / s^2 + 1 / p^2."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(30, 3, dtype=torch.float64, generator=draw)
    noise, spec = 0.5, HMCSpec(burn_in=150, samples=200, trajectory=0.2, prior_std=0.7)
    targets = inputs.sum(1) + noise * torch.randn(30, dtype=torch.float64, generator=draw)

    def log_posterior(weights):
        residuals = targets - weights @ inputs.T
        value = -residuals.square().sum(1) / noise**2 / 2 - weights.square().sum(1) / spec.prior_std**2 / 2
        return value, residuals @ inputs / noise**2 - weights / spec.prior_std**2

    covariance = (inputs.T @ inputs / noise**2 + torch.eye(3) / spec.prior_std**2).inverse()
    check_moments(chains(log_posterior, spec), covariance @ inputs.T @ targets / noise**2, covariance)


def test_single_precision_samples_the_same_law():
    """Energies are summed in double precision, so that of many dimensions little is lost."""
    dimension = 2_000
    spec = HMCSpec(burn_in=60, samples=20)
    drawn = chains(standard_normal, spec, number=4, dimension=dimension, dtype=torch.float32)
    assert drawn.samples.dtype == torch.float32
    squares = drawn.samples.double().square().mean(2)  # of each, variance 2 / dimension
    assert squares.mean().item() == pytest.approx(1, abs=4 * (2 / dimension / squares.numel()) ** 0.5)


def test_the_log_density_is_that_of_each_sample(of_a_gaussian):
    for samples, values in zip(of_a_gaussian.samples, of_a_gaussian.log_density, strict=True):
        torch.testing.assert_close(Gaussian(MEAN, COVARIANCE)(samples)[0], values)


@pytest.mark.parametrize("target", [0.6, 0.9])
def test_every_chain_accepts_as_often_as_it_should(target):
    spec = HMCSpec(burn_in=200, samples=100, target_acceptance=target)
    drawn = chains(standard_normal, spec, number=8, dimension=100)
    assert drawn.acceptance.mean().item() == pytest.approx(target, abs=0.04)
    assert (drawn.acceptance - target).abs().max() < 0.15
    assert not drawn.divergences.any()


def test_a_trajectory_as_long_as_a_period_is_varied():
    """Chains would stand still after 2 pi on a standard normal density; with steps of varied size they move."""
    periodic = HMCSpec(burn_in=100, samples=200, trajectory=2 * math.pi, target_acceptance=0.99, jitter=0.0)
    varied = periodic.model_copy(update={"jitter": 0.2})
    still, moving = (
        effective_sample_size(chains(standard_normal, spec, number=4).samples.numpy()).mean()
        for spec in (periodic, varied)
    )
    assert moving > 5 * still


def started(density, dimension=4, number=5):
    draw = torch.Generator().manual_seed(3)
    position, momentum = torch.randn(2, number, dimension, dtype=torch.float64, generator=draw)
    return Point(position, momentum, *density(position))


def test_trajectories_are_reversible():
    """With its momentum turned round a chain goes back to where it came from, however many steps it took."""
    sizes, steps = torch.linspace(0.01, 0.2, 5, dtype=torch.float64), torch.tensor([1, 7, 20, 3, 11])
    start = started(quartic)
    end = leapfrog(quartic, start, sizes, steps)
    back = leapfrog(quartic, end._replace(momentum=-end.momentum), sizes, steps)
    assert ((end.position - start.position).abs() > 1e-3).any(1).all()
    torch.testing.assert_close(back.position, start.position, rtol=0, atol=1e-12)
    torch.testing.assert_close(-back.momentum, start.momentum, rtol=0, atol=1e-12)


def test_a_step_leaves_volume_as_it_is():
    """The determinant of the map (position, momentum) -> (position, momentum) is 1, as acceptance takes for granted."""

    def moved(flat):
        position, momentum = flat.view(2, 1, 2)
        start = Point(position, momentum, *quartic(position))
        end = leapfrog(quartic, start, torch.full((1,), 0.3, dtype=torch.float64), torch.tensor([5]))
        return torch.cat([end.position, end.momentum]).flatten()

    at = torch.tensor([0.3, -1.1, 0.7, 0.4], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(moved, at)
    assert torch.linalg.det(jacobian).item() == pytest.approx(1, abs=1e-10)
    assert (jacobian - torch.eye(4)).abs().max() > 0.1


def test_the_energy_error_is_of_second_order():
    """Half the step, a quarter of the error, over the same time."""
    start = started(quartic)
    errors = []
    for halvings in range(3):
        sizes = torch.full((5,), 0.05 / 2**halvings, dtype=torch.float64)
        end = leapfrog(quartic, start, sizes, torch.full((5,), 14 * 2**halvings))
        errors.append(end.energy - start.energy)
    torch.testing.assert_close(errors[0] / errors[1], torch.full_like(sizes, 4), rtol=0.1, atol=0)
    torch.testing.assert_close(errors[1] / errors[2], torch.full_like(sizes, 4), rtol=0.03, atol=0)


def test_what_leaves_the_finite_numbers_is_refused():
    start = started(quartic)
    sizes = torch.tensor([1e-3, 1e3, 1e200, 1e-3, 1e-3], dtype=torch.float64)
    end = leapfrog(quartic, start, sizes, torch.full((5,), 4))
    probability = acceptance_probability(start, end)
    assert probability.tolist() == pytest.approx([1, 0, 0, 1, 1], abs=1e-3)


def test_divergences_are_counted():
    """A wall that burn-in does not meet: the density ends where only a long trajectory gets."""

    def walled(position):
        value = -position.square().sum(1) / 2
        return torch.where(position[:, 0] > 2, -torch.inf, value), -position

    drawn = chains(walled, HMCSpec(burn_in=5, samples=200), number=3, dimension=1)
    assert (drawn.samples <= 2).all()
    # the share of normal proposals beyond 2 standard deviations is 0.023
    assert (drawn.divergences > 0).all()
    assert (drawn.divergences < 20).all()


SPEC = HMCSpec(burn_in=20, samples=10, thin=2, trajectory=1.0)


def assert_equal(found, expected):
    for name, tensor in vars(expected).items():
        assert torch.equal(getattr(found, name), tensor), name


def of(found, members):
    """Some of the chains."""
    return {
        name: tensor[:, members] if name in {"samples", "log_density"} else tensor[members]
        for name, tensor in vars(found).items()
    }


@pytest.mark.parametrize("density", [Gaussian(MEAN, COVARIANCE), quartic], ids=["gaussian", "quartic"])
@pytest.mark.parametrize("members", [[3], [4, 0, 2, 1, 3]], ids=["alone", "in another order"])
def test_no_chain_knows_its_neighbours(density, members):
    start = torch.linspace(-1, 1, 15, dtype=torch.float64).view(5, 3)
    together = sample(Sampler(density, start, range(5), SPEC))
    apart = sample(Sampler(density, start[members], members, SPEC))
    for name, tensor in of(together, members).items():
        assert torch.equal(getattr(apart, name), tensor), name


def test_seeds_tell_chains_apart():
    drawn = chains(quartic, SPEC, number=2)
    assert not (drawn.samples[:, 0] == drawn.samples[:, 1]).any()


def test_thinning_keeps_some_of_the_same_draws():
    whole = chains(quartic, HMCSpec(burn_in=20, samples=20, trajectory=1.0), number=3)
    thinned = chains(quartic, SPEC, number=3)
    assert torch.equal(thinned.samples, whole.samples[1::2])
    assert torch.equal(thinned.acceptance, whole.acceptance)


class Filed(Keeper):
    """Keeps the state in a file."""

    def __init__(self, path):
        self.path = path

    def kept(self):
        from safetensors.torch import load_file

        return load_file(self.path) if self.path.exists() else {}

    def keep(self, state):
        write_tensors(self.path, state, {})


@pytest.mark.parametrize("looks", [[3], [70, 40], [150, 1, 60]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_resumed_chains_equal_undisturbed_ones_bit_for_bit(looks, dtype, tmp_path):
    """Stopped while step sizes are looked for, in burn-in, in the middle of a trajectory, or when samples are taken."""
    undisturbed = chains(quartic, SPEC, number=3, dtype=dtype)
    progress, keeper = [], Filed(tmp_path / "checkpoint.safetensors")
    for look in looks:
        left = iter(range(look))
        hooks = Hooks(progress.append, lambda left=left: next(left, None) is None, keeper)
        with pytest.raises(StoppedError, match="stopped after"):
            chains(quartic, SPEC, number=3, dtype=dtype, hooks=hooks)
    resumed = chains(quartic, SPEC, number=3, dtype=dtype, hooks=Hooks(progress.append, keeper=keeper))
    assert_equal(resumed, undisturbed)
    assert progress[-1] > SPEC.iterations - 1
    assert_equal(chains(quartic, SPEC, number=3, dtype=dtype, hooks=Hooks(keeper=keeper)), undisturbed)


def test_progress_never_falls():
    progress = []
    chains(quartic, SPEC, number=3, hooks=Hooks(progress.append))
    assert progress == sorted(progress)
    assert progress[0] == 0
    assert SPEC.iterations - 1 < progress[-1] < SPEC.iterations


def test_trajectories_end_at_the_limit_of_steps():
    calls = []

    def counted(position):
        calls.append(1)
        return quartic(position)

    limited = HMCSpec(burn_in=1, samples=50, trajectory=100.0, max_steps=3)
    chains(counted, limited, number=2)
    assert len(calls) <= 1 + 100 + 51 * 3


def test_the_trajectory_follows_the_prior():
    """A quarter of the period of the prior's motion, after which position and momentum have changed places."""
    spec = HMCSpec(prior_std=0.3)
    prior = Gaussian(torch.zeros(4), torch.eye(4, dtype=torch.float64) * spec.prior_std**2)
    start = started(prior)
    steps = torch.full((5,), 1_000)
    end = leapfrog(prior, start, torch.full((5,), spec.length / 1_000, dtype=torch.float64), steps)
    torch.testing.assert_close(end.position, spec.prior_std * start.momentum, rtol=0, atol=1e-5)
    assert HMCSpec(trajectory=0.7, prior_std=0.3).length == 0.7


def test_what_cannot_be_sampled_is_refused_by_name():
    with pytest.raises(ValueError, match="seeds: got 2 for 3 chains; give one per chain"):
        Sampler(quartic, torch.zeros(3, 1), (0, 1), SPEC)
    with pytest.raises(ValueError, match=r"start: chains \[1\] begin where the log density or its gradient"):
        Sampler(quartic, torch.tensor([[0.0], [torch.inf]]), (0, 1), SPEC)
