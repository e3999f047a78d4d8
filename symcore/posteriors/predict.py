"""What posteriors predict: class probabilities, averaged over draws of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from symcore.asymmetry import Parameters
from symcore.data.sources import Dataset
from symcore.metrics import Array, Evaluator, cross_entropy
from symcore.population import Population
from symcore.posteriors.predictions import Mixture

SAMPLES = 25
"""Draws of the weights that predictions average (Lim et al. 2024, appendix on Bayesian networks)."""
FEW = 5
"""As many while weights are trained, after each epoch."""


class Posterior(Protocol):
    """What is believed of the weights of each member of a population once it has seen the data."""

    @property
    def population(self) -> Population:
        """The networks: their form, masks and buffers."""

    def draw(self, sample: int) -> Parameters:
        """One draw for every member, effective weights [member, *shape]; the same number gives the same draw."""


@torch.no_grad()
def predict(
    posterior: Posterior,
    evaluator: Evaluator,
    split: str,
    samples: int = SAMPLES,
    on_sample: Callable[[int], None] = lambda _done: None,
) -> Tensor:
    """Log of the mean of the class probabilities over draws, [member, image, class].

    Args:
        posterior: of the members of a population.
        evaluator: for the networks' form and the data; with BatchNorm it estimates the statistics of each draw.
        split: which part of the data set, say "test"; of a graph those nodes that have labels.
        samples: how many draws; of a posterior that keeps fewer, all of them, and of one that keeps more, evenly spaced ones.
        on_sample: called with the number of draws done; may raise to stop.
    """
    mixture = Mixture()
    for done, sample in enumerate(_chosen(posterior, samples), start=1):
        chunks = evaluator.logits(posterior.draw(sample), posterior.population.buffers, split)
        mixture.add(torch.cat([torch.log_softmax(logits, -1) for logits, _ in chunks], dim=1))
        on_sample(done)
    return mixture.log_mean()


def _chosen(posterior: Posterior, samples: int) -> Sequence[int]:
    """The numbers of so many draws."""
    if not isinstance(posterior, Sized):
        return range(samples)
    kept = len(posterior)
    spaced = np.linspace(0, kept - 1, min(samples, kept)).round().astype(int)
    return [int(sample) for sample in spaced]


def measure(
    posterior: Posterior, evaluator: Evaluator, dataset: Dataset, splits: Sequence[str], samples: int = FEW
) -> dict[str, tuple[Array, Array]]:
    """Mean loss (nats) and accuracy (0 to 1) of the mean prediction of a few draws on each split, float64 [member]."""
    found = {}
    for split in splits:
        labels = dataset.splits[split].labels
        labels = labels[labels >= 0]  # of a graph's nodes some have none
        predicted = predict(posterior, evaluator, split, samples)
        loss = cross_entropy(predicted, labels.expand(predicted.shape[:-1])).double().mean(-1)
        right = (predicted.argmax(-1) == labels).double().mean(-1)
        found[split] = (loss.cpu().numpy(), right.cpu().numpy())
    return found
