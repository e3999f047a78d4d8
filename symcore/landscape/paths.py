"""Straight paths between networks: every point of every path is a member of one population."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from symcore.asymmetry import Parameters
from symcore.metrics import Array, Evaluator
from symcore.temperature import fit, measure

PATHS_AT_ONCE = {"cpu": 64, "cuda": 1_024}
"""Points whose weights are held at once; each is a whole network."""
NONE: Mapping[str, Tensor] = MappingProxyType({})


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
    calibrated: Array | None = None
    """Loss at the temperature of each point."""

    @classmethod
    def join(cls, parts: Sequence[PathPoints]) -> PathPoints:
        """The paths of some pairs and of others as one; either all have calibrated losses or none."""
        calibrated = [part.calibrated for part in parts if part.calibrated is not None]
        return cls(
            np.concatenate([part.loss for part in parts]),
            np.concatenate([part.accuracy for part in parts]),
            np.concatenate(calibrated) if calibrated else None,
        )


def linear_path(
    evaluator: Evaluator,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    split: str,
    positions: Array,
    *,
    corrections: Mapping[str, Tensor] = NONE,
    sharpness: Array | None = None,
) -> PathPoints:
    """Evaluates the straight path of every pair on one split (Lim et al. 2024, section 4.1).

    Args:
        evaluator: for the module that all networks share.
        a: effective weights at alpha = 0, [pair, *shape].
        b: effective weights at alpha = 1, [pair, *shape].
        buffers: the module's buffers, shared or [pair, *shape]; the networks of a pair share theirs.
        split: which part of the data set, say "test".
        positions: alphas in [0, 1].
        corrections: further parameters of every point, [pair, alpha, *shape], as `symcore.align.repair` finds them.
        sharpness: inverse temperatures of every point, [pair, alpha, fold], as `fit_temperatures` finds them.
    """
    measured = []
    for part, points, own in _blocks(evaluator, a, b, buffers, positions, corrections):
        if sharpness is None:
            found: tuple[Array, ...] = evaluator(points, own, split)
        else:
            given = torch.from_numpy(sharpness[part]).to(next(iter(points.values())).device)
            found = measure(evaluator.logits(points, own, split), given.flatten(0, 1))
        measured.append(PathPoints(*(values.reshape(-1, len(positions)) for values in found)))
    return PathPoints.join(measured)


def fit_temperatures(
    evaluator: Evaluator,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    split: str,
    positions: Array,
    on_pairs: Callable[[int], None] = lambda _: None,
    *,
    corrections: Mapping[str, Tensor] = NONE,
    folds: int = 1,
    on_step: Callable[[], None] = lambda: None,
) -> Array:
    """Inverse temperatures 1 / T that minimise the loss of every point on one split, [pair, alpha, fold].

    Args, beside those of `linear_path`:
        on_pairs: called with the number of pairs done; may raise to stop.
        folds: 1 fits to all images. More of them fit one temperature for each fold to the images of the other folds, so
            that every image can be measured at a temperature to which it was not fitted.
        on_step: called before each step of a fit; may raise to stop.
    """
    found = []
    for part, points, own in _blocks(evaluator, a, b, buffers, positions, corrections):
        chunks, labels = zip(*evaluator.logits(points, own, split), strict=True)
        logits, label = torch.cat(chunks, dim=1), torch.cat(labels)
        fold = torch.arange(len(label), device=label.device) % folds
        others = [fold != number if folds > 1 else fold == 0 for number in range(folds)]
        fitted = torch.stack([fit(logits[:, seen], label[seen], on_step) for seen in others], dim=-1)
        found.append(fitted.view(-1, len(positions), folds).cpu().numpy())
        on_pairs(part.stop)
    return np.concatenate(found)


def _blocks(
    evaluator: Evaluator,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    positions: Array,
    corrections: Mapping[str, Tensor],
) -> Iterator[tuple[slice, Parameters, Parameters]]:
    """Some pairs, with the parameters and buffers of all points of their paths, [pair * alpha, *shape]."""
    pairs = len(next(iter(a.values())))
    device = next(iter(a.values())).device
    at_once = max(1, PATHS_AT_ONCE[device.type] // len(positions))
    for first in range(0, pairs, at_once):
        part = slice(first, min(first + at_once, pairs))
        points = interpolate(
            {n: p[part] for n, p in a.items()}, {n: p[part] for n, p in b.items()}, positions
        )
        points |= {n: c[part].flatten(0, 1) for n, c in corrections.items()}
        own = {
            n: v[part].repeat_interleave(len(positions), 0) if evaluator.stacked_buffers else v
            for n, v in buffers.items()
        }
        yield part, points, own
