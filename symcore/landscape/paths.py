"""Straight paths between networks: every point of every path is a member of one population."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from symcore.asymmetry import Parameters
from symcore.metrics import Array, Evaluator

PATHS_AT_ONCE = {"cpu": 64, "cuda": 1_024}
"""Points whose weights are held at once; each is a whole network."""


def alphas(points: int) -> Array:
    """Evenly spaced positions from 0 (network A) to 1 (network B)."""
    return np.linspace(0.0, 1.0, points)


def interpolate(a: Mapping[str, Tensor], b: Mapping[str, Tensor], positions: Array) -> Parameters:
    """(1 - alpha) A + alpha B for parameters [pair, *shape] -> [pair * alpha, *shape], alpha fastest."""

    def blend(start: Tensor, end: Tensor) -> Tensor:
        alpha = torch.as_tensor(positions, dtype=start.dtype, device=start.device)
        alpha = alpha.view(1, -1, *[1] * (start.ndim - 1))
        points = (1 - alpha) * start.unsqueeze(1) + alpha * end.unsqueeze(1)
        return points.flatten(0, 1)

    return {name: blend(start, b[name]) for name, start in a.items()}


@dataclass(frozen=True)
class PathPoints:
    """Loss (nats) and accuracy (0 to 1) along paths, both [pair, alpha]."""

    loss: Array
    accuracy: Array


def linear_path(
    evaluator: Evaluator,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    split: str,
    positions: Array,
    on_pairs: Callable[[int], None] = lambda _: None,
) -> PathPoints:
    """Evaluates the straight path of every pair on one split (Lim et al. 2024, section 4.1).

    Args:
        evaluator: for the module that all networks share.
        a: effective weights at alpha = 0, [pair, *shape].
        b: effective weights at alpha = 1, [pair, *shape].
        buffers: the module's buffers, shared or [pair, *shape]; the networks of a pair share theirs.
        split: which part of the data set, say "test".
        positions: alphas in [0, 1].
        on_pairs: called with the number of pairs done; may raise to stop.
    """
    pairs = len(next(iter(a.values())))
    device = next(iter(a.values())).device
    at_once = max(1, PATHS_AT_ONCE[device.type] // len(positions))
    losses, accuracies = [], []
    for first in range(0, pairs, at_once):
        part = slice(first, min(first + at_once, pairs))
        points = interpolate(
            {n: p[part] for n, p in a.items()}, {n: p[part] for n, p in b.items()}, positions
        )
        own = {
            n: v[part].repeat_interleave(len(positions), 0) if evaluator.stacked_buffers else v
            for n, v in buffers.items()
        }
        loss, accuracy = evaluator(points, own, split)
        losses.append(loss.reshape(-1, len(positions)))
        accuracies.append(accuracy.reshape(-1, len(positions)))
        on_pairs(part.stop)
    return PathPoints(np.concatenate(losses), np.concatenate(accuracies))
