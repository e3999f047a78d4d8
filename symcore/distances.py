"""How far apart two networks lie in the space of their weights, parameter by parameter (Lim et al. 2024, appendix A)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from symcore.metrics import Array


@dataclass(frozen=True)
class Distances:
    """What is between the two networks of each pair, by parameter; squares add up over parameters."""

    names: tuple[str, ...]
    """Parameters in the network's order."""
    distance: Array
    """||a - b||_2, [pair, parameter]."""
    norm_a: Array
    """||a||_2, [pair, parameter]."""
    norm_b: Array
    """||b||_2, [pair, parameter]."""
    entries: npt.NDArray[np.int64]
    """Numbers that were counted, [pair, parameter]."""


def distances(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], counted: Mapping[str, Tensor] | None = None
) -> Distances:
    """Distances and norms of every parameter, summed in float64 on the networks' device.

    Args:
        a: effective weights of the first networks, [pair, *shape].
        b: those of the second ones, likewise.
        counted: which entries of some parameters count, bool [pair, *shape]; all where there is none.
    """
    masks = counted or {}
    rows = [_between(a[name], b[name], masks.get(name)) for name in a]
    distance, norm_a, norm_b, entries = (
        torch.stack(column, dim=1).cpu().numpy() for column in zip(*rows, strict=True)
    )
    return Distances(tuple(a), distance, norm_a, norm_b, entries.astype(np.int64))


def _between(a: Tensor, b: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """||a - b||, ||a||, ||b|| and the number of entries of one parameter, each float64 [pair]."""
    a, b = a.double().flatten(1), b.double().flatten(1)
    mask = torch.ones_like(a) if counted is None else counted.double().flatten(1)
    norms = (torch.linalg.vector_norm(mask * values, dim=1) for values in (a - b, a, b))
    return (*norms, mask.sum(1))


def relative(distance: Array, norm_a: Array, norm_b: Array) -> Array:
    """Distance over the root mean square of the norms: 0 of equal networks, sqrt 2 of orthogonal ones, 2 of opposite ones.

    Where both norms are 0 there is no distance, and it is 0.
    """
    scale = np.sqrt((norm_a**2 + norm_b**2) / 2)
    return np.divide(distance, scale, out=np.zeros_like(distance), where=scale > 0)
