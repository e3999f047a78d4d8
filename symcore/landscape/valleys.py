"""Asymmetric valleys: slices of the loss through a network, and how much faster it rises on one side than on the other.

He, Huang and Yuan (2019) call a direction asymmetric when the slope on the sharp side is more than c times the slope p on
the flat side. Which directions are depends on signs: |n| * sign(w) mostly is, Gaussian ones are not (Li et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from symcore.asymmetry import Parameters
from symcore.gradients import gradient_program
from symcore.metrics import ROWS, Array
from symcore.networks.batchnorm import BatchNorm, batch_norms
from symcore.randomness import stream

Tensors = Mapping[str, Tensor]
Kind = Literal["gaussian", "uniform", "sign"]
"""Normal entries; entries uniform in [0, 1]; |normal| with each weight's own sign."""


def direction(
    kind: Kind,
    origin: Tensors,
    seed: int,
    trainable: Tensors | None = None,
    moved: Collection[str] | None = None,
) -> Parameters:
    """A random direction of length 1 for one network.

    Args:
        kind: how entries are drawn.
        origin: weights of the network, [*shape].
        seed: of the entries.
        trainable: D of those parameters that have fixed entries, [*shape]; these stay where they are.
        moved: names of the parameters that do not stay; none given, all move.

    Raises:
        ValueError: if nothing moves.
    """
    draws: dict[Kind, Callable[[np.random.Generator, Tensor], Array]] = {
        "gaussian": lambda rng, w: rng.standard_normal(w.shape),
        "uniform": lambda rng, w: rng.random(w.shape),
        "sign": lambda rng, w: np.abs(rng.standard_normal(w.shape)) * np.sign(w.cpu().numpy()),
    }
    found = {}
    for name, weight in origin.items():
        drawn = torch.from_numpy(draws[kind](stream(seed, f"valley.{kind}.{name}"), weight)).to(weight)
        kept = moved is None or name in moved
        found[name] = _free(drawn, name, trainable) if kept else torch.zeros_like(weight)
    return unit(found)


def norm_parameters(network: nn.Module) -> set[str]:
    """Names of the scales and shifts of a network's norms: LayerNorm, GroupNorm, RMSNorm and BatchNorm."""
    return {
        f"{name}.{own}"
        for name, module in network.named_modules()
        if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm | BatchNorm)
        for own, _ in module.named_parameters()
    }


def gradient_noise(
    network: nn.Module,
    origin: Tensors,
    buffers: Tensors,
    images: Tensor,
    labels: Tensor,
    *,
    batch: int,
    seed: int,
    trainable: Tensors | None = None,
) -> Parameters:
    """The direction of length 1 in which a minibatch's gradient differs from that over all images (the noise of SGD).

    With BatchNorm, whose statistics are a minibatch's own, that over all images is the mean over the whole minibatches
    of an epoch.

    Args:
        network: the module.
        origin: weights of one network, [*shape].
        buffers: the module's, [*shape].
        images: normalised, [image, *input_shape], on the weights' device.
        labels: [image].
        batch: images of the minibatch.
        seed: of which ones they are.
        trainable: D of those parameters that have fixed entries, [*shape].
    """
    program = gradient_program(network, list(origin), stacked_buffers=False)
    weights = [w.unsqueeze(0) for w in origin.values()]

    def gradient(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        _, *found = program([*weights, *buffers.values(), x.unsqueeze(0), y.unsqueeze(0)])
        return tuple(found)

    whole = [torch.zeros_like(w) for w in weights]
    order, size = torch.arange(len(images)), ROWS[images.device.type]
    if batch_norms(network):
        epoch = stream(seed, "epoch").permutation(len(images))
        order, size = torch.from_numpy(epoch[: len(epoch) // batch * batch]), batch
    for some in order.to(images.device).split(size):
        for total, part in zip(whole, gradient(images[some], labels[some]), strict=True):
            total.add_(part, alpha=len(some) / len(order))
    chosen = torch.from_numpy(stream(seed, "minibatch").choice(len(images), batch, replace=False))
    own = gradient(images[chosen.to(images.device)], labels[chosen.to(labels.device)])
    return unit(
        {
            name: _free((part - total)[0], name, trainable)
            for name, part, total in zip(origin, own, whole, strict=True)
        }
    )


def _free(step: Tensor, name: str, trainable: Tensors | None) -> Tensor:
    """A step of one parameter without what D fixes."""
    return step * trainable[name] if trainable and name in trainable else step


def mean(points: Tensors) -> Parameters:
    """The average of several networks' weights, [point, *shape] -> [*shape] (Izmailov et al. 2018)."""
    return {name: w.double().mean(0).to(w.dtype) for name, w in points.items()}


def length(parameters: Tensors) -> float:
    """Euclidean length over all parameters."""
    return float(torch.stack([p.double().square().sum() for p in parameters.values()]).sum().sqrt())


def toward(origin: Tensors, other: Tensors) -> Parameters:
    """The direction of length 1 from one network to another, say from a weight average to the iterate after it."""
    return unit({name: other[name] - weight for name, weight in origin.items()})


def unit(parameters: Tensors) -> Parameters:
    """The same direction with length 1.

    Raises:
        ValueError: if it has no length.
    """
    own = length(parameters)
    if not own > 0:
        msg = "direction: it has length 0; accepted: one along which some weight changes"
        raise ValueError(msg)
    return {name: (p / own).to(p) for name, p in parameters.items()}


def along(origin: Tensors, step: Tensors, positions: Array) -> Parameters:
    """Networks at origin + position * step, [*shape] -> [point, *shape], to be evaluated as one population."""

    def moved(weight: Tensor, by: Tensor) -> Tensor:
        at = torch.as_tensor(positions, dtype=weight.dtype, device=weight.device)
        return weight + at.view(-1, *[1] * weight.ndim) * by

    return {name: moved(weight, step[name]) for name, weight in origin.items()}


@dataclass(frozen=True)
class Valley:
    """How a slice rises from its lowest point to both sides."""

    minimum: float
    """Position of the lowest point."""
    sharp_side: int
    """1 if the loss rises faster toward greater positions, -1 if toward smaller ones."""
    slope: dict[float, float]
    """By zeta / r: the largest slope p on the flat side, between zeta and r from the lowest point."""
    ratio: dict[float, float]
    """By zeta / r: c, the smallest slope on the sharp side over p; above 1 the valley is asymmetric there."""
    rise: float
    """Rise of the loss on the sharp side over that on the flat side, at 0.6 r; at least 1 unless the slice is flat."""


ZETAS = (0.05, 0.25, 0.5)
"""Shares of r from which slopes count: at the bottom of a smooth bowl they start at 0, whatever its shape."""


def probe(positions: Array, losses: Array, zetas: tuple[float, ...] = ZETAS) -> Valley:
    """Reads the asymmetry off a slice (He et al. 2019, definition 1).

    A slice ends before the first loss that is infinite or no number, seen from its lowest point.

    Args:
        positions: ascending, evenly spaced, [point].
        losses: there, [point].
        zetas: shares of the reach r, which is the distance from the lowest point to the nearer end.

    Raises:
        ValueError: if no loss is finite, or the lowest point so near an end that a side has fewer than 4 points.
    """
    finite = np.isfinite(losses)
    if not finite.any():
        msg = f"losses: none of {len(losses)} is finite; accepted: losses that are, on both sides of the lowest point"
        raise ValueError(msg)
    lowest = int(np.argmin(np.where(finite, losses, np.inf)))
    ends = np.concatenate([[-1], np.flatnonzero(~finite), [len(losses)]])
    reach = int(np.abs(ends - lowest).min()) - 1
    if reach < 4:
        msg = f"positions: the lowest point, {positions[lowest]:g}, has {reach} points on one side; at least 4 are needed"
        raise ValueError(msg)
    step = positions[1] - positions[0]
    right = losses[lowest : lowest + reach + 1] - losses[lowest]
    left = losses[lowest - reach : lowest + 1][::-1] - losses[lowest]
    at = 0.6 * reach
    rises = [float(np.interp(at, np.arange(reach + 1), side)) for side in (left, right)]
    sharp = 1 if rises[1] >= rises[0] else -1
    steep, flat = (right, left) if sharp == 1 else (left, right)
    slope, ratio = {}, {}
    for zeta in zetas:
        first = max(1, round(zeta * reach))
        slope[zeta] = float(_slopes(flat, step)[first:].max())
        ratio[zeta] = _over(float(_slopes(steep, step)[first:].min()), slope[zeta])
    return Valley(float(positions[lowest]), sharp, slope, ratio, _over(max(rises), min(rises)))


def _slopes(side: Array, step: float) -> Array:
    return np.diff(side) / step


def _over(numerator: float, denominator: float) -> float:
    """A ratio, infinite where only the denominator is 0 or less, and 1 where both are 0."""
    if denominator > 0:
        return numerator / denominator
    return float("inf") if numerator > 0 else 1.0
