"""What is measured on networks: cross-entropy and accuracy of populations, and barriers along paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import vmap

from symcore.asymmetry import Parameters
from symcore.data.sources import Dataset
from symcore.population import call_one
from symcore.program import Program

Array = npt.NDArray[np.float64]

ROWS = {"cpu": 8_192, "cuda": 262_144}
"""Members times images evaluated at once: on a CPU what stays in cache, on a GPU what fills it."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each label, logits [batch, class], labels [batch] -> [batch], in nats."""
    log_probability = torch.log_softmax(logits, dim=-1)
    # a comparison, unlike `gather`, has a gradient that a compiler can merge with the softmax
    chosen = labels.unsqueeze(-1) == torch.arange(logits.shape[-1], device=logits.device)
    return -torch.where(chosen, log_probability, 0).sum(-1)


class Evaluator:
    """Loss and accuracy of populations that share one module; keeps its traced programs between calls."""

    def __init__(
        self,
        network: nn.Module,
        dataset: Dataset,
        *,
        stacked_buffers: bool = False,
        on_chunk: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepares to evaluate; `on_chunk` is called before each chunk of images and may raise to stop."""
        self._dataset, self._on_chunk = dataset, on_chunk
        self.stacked_buffers = stacked_buffers
        self._names = [name for name, _ in network.named_parameters()]
        self._buffer_names = [name for name, _ in network.named_buffers()]

        def one(parameters: Parameters, buffers: Parameters, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            logits = call_one(network, parameters, buffers, x)
            correct = (logits.argmax(-1) == y).sum()
            return cross_entropy(logits, y).sum(), correct

        many = vmap(one, in_dims=(0, 0 if stacked_buffers else None, None, None))

        def flat(tensors: list[Tensor]) -> tuple[Tensor, ...]:
            split = len(self._names)
            parameters = dict(zip(self._names, tensors[:split], strict=True))
            buffers = dict(zip(self._buffer_names, tensors[split:-2], strict=True))
            totals: tuple[Tensor, ...] = many(parameters, buffers, tensors[-2], tensors[-1])
            return totals

        self._program = Program(flat)

    def __call__(
        self, effective: Mapping[str, Tensor], buffers: Mapping[str, Tensor], split: str
    ) -> tuple[Array, Array]:
        """Mean loss (nats) and accuracy (0 to 1) on one split for weights [member, *shape]; float64 [member]."""
        data = self._dataset.splits[split]
        weights = [effective[name] for name in self._names] + [buffers[name] for name in self._buffer_names]
        members, device = len(weights[0]), weights[0].device
        chunk = max(1, ROWS[device.type] // members)
        loss = torch.zeros(members, dtype=torch.float64, device=device)
        correct = torch.zeros(members, dtype=torch.int64, device=device)
        for images, labels in zip(data.images.split(chunk), data.labels.split(chunk), strict=True):
            self._on_chunk()
            totals = self._program([*weights, self._dataset.normalise(images), labels])
            loss += totals[0]
            correct += totals[1]
        return (loss / len(data)).cpu().numpy(), (correct.double() / len(data)).cpu().numpy()


def _chord(losses: Array, alphas: Array) -> Array:
    return losses[..., :1] * (1 - alphas) + losses[..., -1:] * alphas


def barrier_midpoint(losses: Array) -> Array:
    """Loss halfway minus the mean of the endpoints' (Lim et al. 2024, section 4.1); losses [..., alpha] -> [...].

    Raises:
        ValueError: if the number of alphas is even, so that none of them is 1/2.
    """
    points = losses.shape[-1]
    if points % 2 == 0:
        msg = f"points: {points} evenly spaced alphas have none at 1/2; accepted: an odd number from 3"
        raise ValueError(msg)
    middle: Array = losses[..., points // 2] - (losses[..., 0] + losses[..., -1]) / 2
    return middle


def barrier_maximum(losses: Array, alphas: Array) -> Array:
    """Largest rise of the path above the straight line between its endpoints' losses (Frankle et al. 2020); >= 0."""
    highest: Array = (losses - _chord(losses, alphas)).max(axis=-1)
    return highest
