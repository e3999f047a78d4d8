"""Statistics of BatchNorm for any weights: what its inputs are like on training images, estimated anew for these very weights.

As torch's BatchNorm with `momentum=None` in training mode: the mean over a few batches of each batch's mean and unbiased
variance, where each batch is normalised by itself (Lim et al. 2024 re-estimate so at every point of a path). The images
are the first of the training set, so the estimate is a function of weights and data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import vmap

from symcore.data.sources import Dataset
from symcore.networks.batchnorm import batch_norms, observed
from symcore.population import call_one
from symcore.program import Program

BATCH = 250
"""Images of a batch; what remains of them after the last whole batch is left out, unless there is no whole one."""


class Calibration:
    """Estimates the statistics of many networks that share one module; empty where it has no BatchNorm."""

    def __init__(
        self,
        network: nn.Module,
        dataset: Dataset,
        rows: int,
        *,
        stacked_buffers: bool,
        on_chunk: Callable[[], None],
    ) -> None:
        """Traces nothing yet.

        Args:
            network: the module.
            dataset: whose `calibration` images are used. A graph is one batch, which needs no estimate.
            rows: members times images at once.
            stacked_buffers: whether buffers have a member axis.
            on_chunk: called before each batch of some members; may raise to stop.
        """
        norms = [] if dataset.graph else batch_norms(network)
        self.names = [f"{norm}.{value}" for norm in norms for value in ("mean", "variance")]
        """Names of the statistics, as a call of the network takes them."""
        self._dataset, self._rows, self._stacked = dataset, rows, stacked_buffers
        self._on_chunk = on_chunk
        names = [name for name, _ in network.named_parameters()]
        buffer_names = [name for name, _ in network.named_buffers()]

        def one(weights: list[Tensor], buffers: list[Tensor], x: Tensor) -> tuple[Tensor, ...]:
            parameters = dict(zip(names, weights, strict=True))
            given = dict(zip(buffer_names, buffers, strict=True))
            seen = observed(network, lambda: call_one(network, parameters, given, x))
            return tuple(seen[name] for name in self.names)

        many = vmap(one, in_dims=(0, 0 if stacked_buffers else None, None))

        def flat(tensors: list[Tensor]) -> tuple[Tensor, ...]:
            found: tuple[Tensor, ...] = many(tensors[: len(names)], tensors[len(names) : -1], tensors[-1])
            return found

        self._program = Program(flat)

    def __call__(self, weights: Sequence[Tensor], buffers: Sequence[Tensor]) -> list[Tensor]:
        """The statistics in the order of `names`, [member, channel], for weights [member, *shape] and buffers in the network's order."""
        if not self.names:
            return []
        images = self._dataset.calibration
        size = min(BATCH, len(images))
        at_once = max(1, self._rows // size)
        parts = []
        for first in range(0, len(weights[0]), at_once):
            own = slice(first, first + at_once)
            held = [b[own] for b in buffers] if self._stacked else list(buffers)
            parts.append(self._mean([w[own] for w in weights], held, images, size))
        return [torch.cat(found) for found in zip(*parts, strict=True)]

    def _mean(self, weights: list[Tensor], buffers: list[Tensor], images: Tensor, size: int) -> list[Tensor]:
        """The mean over all batches, for some members."""
        batches = images[: len(images) // size * size].split(size)
        total: list[Tensor] = []
        for batch in batches:
            self._on_chunk()
            found = self._program([*weights, *buffers, self._dataset.normalise(batch)])
            total = [t + f for t, f in zip(total, found, strict=True)] if total else list(found)
        return [t / len(batches) for t in total]
