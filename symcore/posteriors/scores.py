"""How good probabilistic predictions are: proper scores, calibration, entropy, and what entropy knows of strange images.

Predictions are log-probabilities [member, image, class], normalised; of a Bayesian network, those of the `Mixture` of its
posterior samples. A probability may be 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from symcore.metrics import Array
from symcore.posteriors.predictions import by_image
from symcore.posteriors.reliability import BINS, adaptive_reliability, check_labels, reliability


@dataclass(frozen=True)
class Scores:
    """Means over images, each [member]."""

    nll: Array
    """Negative log-likelihood -log p_y of the label y, in nats; infinite where a label had probability 0 (Good 1952)."""
    accuracy: Array
    """Share of images whose label is the most probable one, 0 to 1."""
    brier: Array
    """Squared difference sum_k (p_k - [k = y])^2 to the label's one-hot vector, 0 to 2 (Brier 1950)."""
    ece: Array
    """Expected calibration error, `reliability(...).calibration_error`, 0 to 1 (Guo et al. 2017)."""
    adaptive_ece: Array
    """The same in bins of equally many images, `adaptive_reliability(...).calibration_error` (Nixon et al. 2019)."""
    entropy: Array
    """Predictive entropy -sum_k p_k log p_k, in nats, 0 to log of the number of classes (Shannon 1948)."""


def score(log_probabilities: Tensor, labels: Tensor, bins: int = BINS) -> Scores:
    """All scores of the members, summed in float64. A member that predicts NaN has NaN scores, but for its accuracy.

    Args:
        log_probabilities: [member, image, class].
        labels: [image].
        bins: of both calibration errors, 1 or more.

    Raises:
        ValueError: if there is no bin, or not one label for each image.
    """
    check_labels(log_probabilities, labels)
    each = labels.expand(len(log_probabilities), -1)
    of_images = (
        -log_probabilities.gather(-1, each.unsqueeze(-1)).squeeze(-1),
        log_probabilities.argmax(-1) == each,
        by_image(_brier, log_probabilities, each),
        entropies(log_probabilities),
    )
    nll, accuracy, brier, entropy = (values.double().mean(-1).cpu().numpy() for values in of_images)
    ece, adaptive_ece = (
        diagram(log_probabilities, labels, bins).calibration_error
        for diagram in (reliability, adaptive_reliability)
    )
    return Scores(nll, accuracy, brier, ece, adaptive_ece, entropy)


def _brier(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """[member, image, class] and [member, image] -> [member, image]."""
    difference = log_probabilities.double().exp()
    at = labels.unsqueeze(-1)
    difference.scatter_add_(-1, at, difference.new_full((), -1).expand(at.shape))
    return difference.square_().sum(-1)


def entropies(log_probabilities: Tensor) -> Tensor:
    """Entropy of each predictive distribution in nats, [member, image, class] -> float64 [member, image]."""
    return by_image(lambda p: torch.special.entr(p.double().exp()).sum(-1), log_probabilities)


def auroc(inside: Tensor, outside: Tensor) -> Array:
    """Area under the ROC curve of telling images from outside a distribution by their larger score, [member].

    It is the probability that an image from outside scores higher than one from inside, where equal scores count one half
    (the statistic of Mann & Whitney 1947; Hendrycks & Gimpel 2017): 1/2 where scores know nothing. NaN of a member that
    has a score of NaN.

    Args:
        inside: a score of each image in distribution, say its entropy, [member, image].
        outside: of each image out of distribution, [member, other image].
    """
    known, strange = inside.double().sort(-1).values.contiguous(), outside.double().contiguous()
    lower, not_higher = (torch.searchsorted(known, strange, side=side) for side in ("left", "right"))
    area = (lower + not_higher).double().mean(-1) / (2 * known.shape[-1])
    lost = known.isnan().any(-1) | strange.isnan().any(-1)
    result: Array = area.masked_fill(lost, torch.nan).cpu().numpy()
    return result
