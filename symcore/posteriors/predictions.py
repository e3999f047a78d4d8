"""Predictions of populations: averaged over posterior samples, and compared with those of another posterior."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from symcore.metrics import Array

NUMBERS = 2**22
"""Probabilities that are held at once in float64, a few times over."""


class Mixture:
    """Average of the predictive probabilities of posterior samples, which come one after another and are not kept."""

    def __init__(self) -> None:
        self.samples = 0
        """How many samples were added."""
        self._total = torch.empty(0)

    def add(self, log_probabilities: Tensor) -> None:
        """Adds one sample of each member, log-probabilities [member, image, class]; they may be written over later.

        Raises:
            ValueError: if their shape is not that of the samples before.
        """
        if not self.samples:
            self._total = torch.full_like(log_probabilities, -torch.inf)
        if log_probabilities.shape != self._total.shape:
            msg = (
                f"log_probabilities: shape {tuple(log_probabilities.shape)}; "
                f"accepted: that of the samples before, {tuple(self._total.shape)}"
            )
            raise ValueError(msg)
        self._total = torch.logaddexp(self._total, log_probabilities.double())
        self.samples += 1

    def log_mean(self) -> Tensor:
        """Log of the mean probability over the samples so far, float64 [member, image, class].

        Raises:
            ValueError: if there are none yet.
        """
        if not self.samples:
            msg = "samples: 0 were added; accepted: 1 or more"
            raise ValueError(msg)
        return self._total - math.log(self.samples)


def by_image(of: Callable[..., Tensor], *given: Tensor) -> Tensor:
    """`of` tensors [member, image, ...], of some images at a time, joined to [member, image]."""
    at_once = max(1, NUMBERS // max(t[:, :1].numel() for t in given))
    parts = zip(*(t.split(at_once, dim=1) for t in given), strict=True)
    return torch.cat([of(*part) for part in parts], dim=1)


def agreement(a: Tensor, b: Tensor) -> Array:
    """Share of images on which two predictive distributions have the same top label (Izmailov et al. 2021), [member].

    Args:
        a: log-probabilities [member, image, class].
        b: those of the other posterior, say of HMC, [member or 1, image, class].

    Raises:
        ValueError: if they are not of the same images and classes.
    """
    _alike(a, b)
    same: Array = (a.argmax(-1) == b.argmax(-1)).double().mean(-1).cpu().numpy()
    return same


def total_variation(a: Tensor, b: Tensor) -> Array:
    """Mean over images of sum_k |p_k - q_k| / 2, from 0 to 1 (Izmailov et al. 2021), [member]; arguments as of `agreement`.

    Raises:
        ValueError: if they are not of the same images and classes.
    """
    _alike(a, b)
    distance = by_image(lambda p, q: (p.double().exp() - q.double().exp()).abs().sum(-1) / 2, a, b)
    mean: Array = distance.mean(-1).cpu().numpy()
    return mean


def _alike(a: Tensor, b: Tensor) -> None:
    if a.shape[1:] != b.shape[1:]:
        msg = f"b: [image, class] is {tuple(b.shape[1:])}; accepted: that of a, {tuple(a.shape[1:])}"
        raise ValueError(msg)
