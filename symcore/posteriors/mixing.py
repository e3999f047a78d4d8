"""Whether chains mix: split R-hat and effective sample size of any quantities of their draws (Vehtari et al. 2021).

Draws are [draw, chain, *quantity]. Of networks, quantities such as predicted probabilities tell more than weights do: chains
in different permutations of the same networks agree in function space alone.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.stats import norm, rankdata

from symcore.metrics import Array


def rank_normalised(draws: Array) -> Array:
    """Normal scores of the draws' ranks among all draws of all chains (eq. 14), likewise shaped, for heavy tails."""
    ranks = rankdata(draws.reshape(-1, *draws.shape[2:]), axis=0).reshape(draws.shape)
    scores: Array = norm.ppf((ranks - 3 / 8) / (draws.shape[0] * draws.shape[1] + 1 / 4))
    return scores


def split_r_hat(draws: Array) -> Array:
    """How many times wider the draws of all half chains together are than those of each (eq. 1 to 4), [*quantity].

    Near 1 where chains, and the halves of each, draw the same; not a number for a quantity that never changes.

    Raises:
        ValueError: if there are fewer than 4 draws.
    """
    within, total = _variances(_halves(draws))
    with np.errstate(divide="ignore", invalid="ignore"):  # chains that stand still, each elsewhere, never mix
        return _changing(draws) * np.sqrt(total / within)


def effective_sample_size(draws: Array) -> Array:
    """How many independent draws estimate the mean of a quantity as well as these do (eq. 10 to 13), [*quantity].

    From autocorrelations of half chains, summed over pairs of lags up to the first pair below 0, each no larger than the
    one before (Geyer 1992). It may exceed the number of draws, where they alternate, at most by a factor of log10 of
    that; not a number for a quantity that never changes.

    Raises:
        ValueError: if there are fewer than 4 draws.
    """
    halves = _halves(draws)
    length, count = halves.shape[:2]
    within, total = _variances(halves)
    covariance = _autocovariance(halves).mean(1) * length / (length - 1)
    with np.errstate(invalid="ignore"):
        correlation = 1 - (within - covariance) / total
    pairs = correlation[: length // 2 * 2].reshape(length // 2, 2, *draws.shape[2:]).sum(1)
    counted = np.logical_and.accumulate(pairs > 0, axis=0)
    time = -1 + 2 * np.where(counted, np.minimum.accumulate(pairs, axis=0), 0).sum(0)
    size: Array = length * count / np.maximum(time, 1 / np.log10(length * count))
    return _changing(draws) * size


def _halves(draws: Array) -> Array:
    """First and second half of each chain as chains, [draw, chain, ...] -> [draw / 2, 2 * chain, ...]; a middle draw is left out."""
    if len(draws) < 4:
        msg = f"draws: got {len(draws)}; accepted: at least 4 of each chain"
        raise ValueError(msg)
    half = len(draws) // 2
    return np.concatenate([draws[:half], draws[-half:]], axis=1)


def _variances(chains: Array) -> tuple[Array, Array]:
    """Mean variance within chains, and an estimate of that of all that they would draw, [*quantity]."""
    length = len(chains)
    within = chains.var(axis=0, ddof=1).mean(0)
    between = chains.mean(0).var(axis=0, ddof=1)
    return within, within * (length - 1) / length + between


def _autocovariance(chains: Array) -> Array:
    """Of each chain at every lag, [lag, chain, *quantity], divided by the number of draws."""
    length = len(chains)
    padded = next_fast_len(2 * length)
    spectrum = rfft(chains - chains.mean(0), padded, axis=0)
    power = irfft(np.abs(spectrum) ** 2, padded, axis=0)
    covariance: Array = power[:length] / length
    return covariance


def _changing(draws: Array) -> Array:
    """1 for each quantity that is not the same in all draws, and not a number for others, [*quantity]."""
    return np.where(np.ptp(draws, axis=(0, 1)) > 0, 1.0, np.nan)
