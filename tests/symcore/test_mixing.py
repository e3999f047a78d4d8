"""Effective sample sizes are those of processes whose autocorrelations are known; R-hat tells chains that differ."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from symcore.posteriors.mixing import effective_sample_size, rank_normalised, split_r_hat

DRAWS, CHAINS, REPETITIONS = 1_000, 4, 50


def autoregressive(rho):
    """x[t] = rho x[t - 1] + noise from its stationary law N(0, 1), [draw, chain, repetition]."""
    noise = np.random.default_rng(0).standard_normal((DRAWS, CHAINS, REPETITIONS))
    noise[1:] *= np.sqrt(1 - rho**2)
    return lfilter([1], [1, -rho], noise, axis=0)


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.5, 0.9])
def test_an_autoregressive_process_has_its_effective_sample_size(rho):
    """n (1 - rho) / (1 + rho), on average over repetitions to within a tenth."""
    expected = DRAWS * CHAINS * (1 - rho) / (1 + rho)
    found = effective_sample_size(autoregressive(rho))
    assert found.shape == (REPETITIONS,)
    assert found.mean() == pytest.approx(expected, rel=0.1)


def test_the_effective_sample_size_gives_the_error_of_means():
    """The variance of a mean over draws is that of the quantity over the effective sample size."""
    draws = autoregressive(0.8)
    sizes = effective_sample_size(draws)
    squared = draws.mean((0, 1)) ** 2 * sizes  # chi squared with one degree of freedom
    assert squared.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / REPETITIONS))


def test_r_hat_is_near_1_where_chains_agree():
    assert split_r_hat(autoregressive(0.0)) == pytest.approx(1, abs=0.01)


def test_r_hat_tells_shifted_chains():
    """With shifts of variance v beside a variance of 1, the square of R-hat nears 1 + v."""
    draws, shifts = autoregressive(0.0), np.array([-1.0, 0.0, 0.0, 1.0])
    found = split_r_hat(draws + shifts[:, np.newaxis])
    # each shift stands twice among the half chains
    assert found == pytest.approx(np.sqrt(1 + np.repeat(shifts, 2).var(ddof=1)), rel=0.05)
    assert (effective_sample_size(draws + shifts[:, np.newaxis]) < 20).all()


def test_r_hat_tells_a_single_chain_that_drifts():
    drifting = autoregressive(0.0)[:, :1] + np.linspace(-2, 2, DRAWS)[:, np.newaxis, np.newaxis]
    assert (split_r_hat(drifting) > 1.1).all()


def test_ranks_have_normal_scores_whatever_the_law():
    """No increasing map changes them, be its values as far apart as those of exp(x^3)."""
    normal = autoregressive(0.0)
    scores = rank_normalised(np.exp(normal**3))
    np.testing.assert_array_equal(scores, rank_normalised(normal))
    assert scores.mean((0, 1)) == pytest.approx(0, abs=1e-9)
    assert scores.std((0, 1)) == pytest.approx(1, abs=0.01)


def test_quantities_stand_for_themselves():
    draws = autoregressive(0.5)
    for measure in (split_r_hat, effective_sample_size):
        several = measure(draws.reshape(DRAWS, CHAINS, 5, 10))
        assert several.shape == (5, 10)
        assert several[2, 3] == pytest.approx(float(measure(draws[:, :, 23])))


def test_what_never_changes_has_no_measure():
    draws = autoregressive(0.0)[..., :2].copy()
    draws[..., 1] = 0.1
    for measure in (split_r_hat, effective_sample_size):
        found = measure(draws)
        assert np.isfinite(found[0])
        assert np.isnan(found[1])


def test_chains_that_each_stand_still_do_not_mix():
    still = np.tile([1.0, 2.0, 4.0], (10, 1))
    assert split_r_hat(still) == np.inf
    assert effective_sample_size(still) < 10


def test_too_few_draws_are_refused():
    for measure in (split_r_hat, effective_sample_size):
        with pytest.raises(ValueError, match="draws: got 3; accepted: at least 4"):
            measure(np.zeros((3, 2)))
