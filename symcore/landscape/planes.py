"""Planes in weight space: random and filter-normalised, through three networks, or along a training trajectory.

Weights are effective ones, F + D * W, of one network, [*shape] by name. What D fixes is the same everywhere on a plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from symcore.asymmetry import Parameters
from symcore.combinations import combine
from symcore.metrics import Array
from symcore.randomness import stream

STRAIGHT = 1e-10
"""Share of squared distances outside a line below which points lie on it, rounding of float32 weights included."""


@dataclass(frozen=True)
class Plane:
    """The weights origin + x * first + y * second, all [*shape] by name."""

    origin: Parameters
    first: Parameters
    second: Parameters

    def spanning(self) -> Parameters:
        """Origin, first and second direction stacked, [3, *shape]."""
        return {
            name: torch.stack([o, self.first[name], self.second[name]]) for name, o in self.origin.items()
        }

    def coefficients(self, xs: Array, ys: Array) -> Tensor:
        """What the spanning weights are multiplied by at each cell, [cell, 3], for xs and ys [cell]."""
        like = next(iter(self.origin.values()))
        columns = np.stack([np.ones_like(xs), xs, ys], axis=1)
        return torch.as_tensor(columns, dtype=like.dtype, device=like.device)

    def at(self, xs: Array, ys: Array) -> Parameters:
        """The weights at every cell, [cell, *shape], for xs and ys [cell]."""
        coefficients = self.coefficients(xs, ys)
        return {name: combine(coefficients, weights) for name, weights in self.spanning().items()}


def random_plane(
    origin: Mapping[str, Tensor], seed: int, trainable: Mapping[str, Tensor] | None = None
) -> Plane:
    """Two random directions, each filter scaled to the norm of the network's own (Li et al. 2018, section 4).

    A filter is a row of a matrix, or an output channel's kernel. Biases and the parameters of normalisation stay as
    they are. The normal numbers behind a direction depend on seed and parameter name alone, so networks of one shape
    are seen along the same directions but for the scale of each filter.

    Args:
        origin: the network's weights, [*shape].
        seed: seed of the directions.
        trainable: D of the parameters that have one, bool [*shape]; entries that are not trainable do not move, and
            count in no norm.
    """
    first, second = (
        {name: _direction(name, weights, seed, axis, trainable) for name, weights in origin.items()}
        for axis in (0, 1)
    )
    return Plane(dict(origin), first, second)


def _direction(
    name: str, weights: Tensor, seed: int, axis: int, trainable: Mapping[str, Tensor] | None
) -> Tensor:
    """A random direction for one parameter, 0 unless it has filters."""
    if weights.ndim < 2:
        return torch.zeros_like(weights)
    normal = stream(seed, f"direction {name}", axis).standard_normal(weights.shape)
    direction = torch.as_tensor(normal, device=weights.device)
    free = trainable[name] if trainable and name in trainable else torch.ones_like(direction)
    direction, own = direction * free, weights * free
    scale = _filter_norms(own) / _filter_norms(direction)
    # a filter with no free weight has norms 0 and 0, and stays where it is
    return (direction * scale.nan_to_num(0)).to(weights.dtype)


def _filter_norms(weights: Tensor) -> Tensor:
    """Euclidean norm of each filter, float64 [filter, 1, ...]."""
    norms: Tensor = weights.double().flatten(1).norm(dim=1)
    return norms.view(-1, *[1] * (weights.ndim - 1))


def plane_through(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], c: Mapping[str, Tensor]
) -> tuple[Plane, Array]:
    """The plane through three networks, with orthonormal directions (Garipov et al. 2018, section 3).

    The origin is a, the first direction points at b, and c lies on the side of positive y.

    Returns:
        The plane, and where a, b and c lie on it, float64 [3, 2], in units of Euclidean distance between weights.

    Raises:
        ValueError: if the three lie on one line.
    """
    names = list(a)
    to_b, to_c = ({name: p[name].double() - a[name].double() for name in names} for p in (b, c))
    products = _products(to_b, to_b), _products(to_b, to_c), _products(to_c, to_c)
    if products[0] * products[2] - products[1] ** 2 <= STRAIGHT * products[0] * products[2]:
        msg = "plane: the three networks lie on one line, or two are the same; accepted: three that span a plane"
        raise ValueError(msg)
    length = products[0] ** 0.5
    along = products[1] / length
    height = (products[2] - along**2) ** 0.5
    first = {name: (d / length).to(a[name].dtype) for name, d in to_b.items()}
    second = {
        name: ((d - along / length * to_b[name]) / height).to(a[name].dtype) for name, d in to_c.items()
    }
    return Plane(dict(a), first, second), np.array([[0, 0], [length, 0], [along, height]])


def _products(u: Mapping[str, Tensor], v: Mapping[str, Tensor]) -> float:
    """Inner product over all parameters."""
    return sum(float((u[name] * v[name]).sum()) for name in u)


@dataclass(frozen=True)
class Trajectory:
    """The plane that holds most of a training run, and where the run lies on it."""

    plane: Plane
    """Its origin is the end of the run, its directions are orthonormal."""
    coordinates: Array
    """[time, 2], in units of Euclidean distance between weights; the end is (0, 0)."""
    explained: Array
    """[2], share of all squared distances to the end along each direction."""
    error: Array
    """[time], share of the distance to the end that the plane does not hold: 0 on the plane, 1 straight above the end."""


def trajectory_plane(trajectory: Mapping[str, Tensor]) -> Trajectory:
    """The two principal components of the distances to the end of a run (Li et al. 2018, section 7).

    They are found from the inner products of the distances, [time, time], with the end itself as the centre, so the plane
    goes through it. Each direction points to the side where the run began.

    Args:
        trajectory: weights at two times or more before the end, and at the end, [time, *shape].

    Raises:
        ValueError: if the weights lie on one line.
    """
    gram = sum((_gram(weights) for weights in trajectory.values()), np.zeros(()))
    squares, components = np.linalg.eigh(gram)  # ascending
    if len(squares) < 3 or squares[-2] <= STRAIGHT * squares[-1]:
        msg = f"trajectory: the weights at {len(gram)} times lie on one line; accepted: three or more that span a plane"
        raise ValueError(msg)
    squares, components = squares[[-1, -2]], components[:, [-1, -2]]
    components = components * np.where(components[0] < 0, -1, 1)
    coordinates = components * np.sqrt(squares)
    first, second = (
        {name: _component(weights, axis) for name, weights in trajectory.items()}
        for axis in (components / np.sqrt(squares)).T
    )
    origin = {name: weights[-1] for name, weights in trajectory.items()}
    distances = np.diag(gram)
    outside = np.clip(distances - (coordinates**2).sum(1), 0, None)
    error = np.sqrt(np.divide(outside, distances, out=np.zeros_like(distances), where=distances > 0))
    return Trajectory(Plane(origin, first, second), coordinates, squares / distances.sum(), error)


def _gram(weights: Tensor) -> Array:
    """Inner products of one parameter's distances to the end, float64 [time, time]."""
    distances = (weights.double() - weights[-1].double()).flatten(1)
    products: Array = (distances @ distances.T).cpu().numpy()
    return products


def _component(weights: Tensor, shares: Array) -> Tensor:
    """The combination of one parameter's distances to the end with shares [time], [*shape]."""
    distances = weights.double() - weights[-1].double()
    total: Tensor = torch.tensordot(torch.as_tensor(shares, device=weights.device), distances, dims=1)
    return total.to(weights.dtype)
