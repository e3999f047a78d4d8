"""Asymmetry as a transformation of parameters: effective weight = F + D * W, fixed once and shared by all networks.

W-Asymmetric networks (Lim et al. 2024, section 3.1) take D as a binary mask with `n_fix` zeros per row and F as random
constants where D is 0. Networks stay ordinary modules in standard form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from symcore.randomness import stream
from symcore.treatments import WAsymmetric

Parameters = dict[str, Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class Asymmetry:
    """D (bool) and F for each transformed parameter, [*shape] shared by all members or [member, *shape]."""

    trainable: Parameters
    fixed: Parameters

    def apply(self, raw: Mapping[str, Tensor]) -> Parameters:
        """Effective parameters F + D * W, for single ([*shape]) or stacked ([member, *shape]) parameters."""
        return {
            name: self.fixed[name] + self.trainable[name] * value if name in self.fixed else value
            for name, value in raw.items()
        }

    def raw(self, effective: Mapping[str, Tensor]) -> Parameters:
        """The W behind effective parameters; entries that are not trainable become 0."""
        return {
            name: (value - self.fixed[name]) * self.trainable[name] if name in self.fixed else value
            for name, value in effective.items()
        }

    def select(self, members: Sequence[int]) -> Asymmetry:
        """The asymmetry of some members, in the given order; what is shared stays shared."""

        def pick(values: Parameters, shapes: Parameters) -> Parameters:
            stacked = {name for name, f in shapes.items() if f.ndim > 2}
            return {name: v[list(members)] if name in stacked else v for name, v in values.items()}

        return replace(self, trainable=pick(self.trainable, self.fixed), fixed=pick(self.fixed, self.fixed))

    def to(self, device: torch.device | str) -> Asymmetry:
        """The same asymmetry on another device."""
        return Asymmetry(
            {name: d.to(device) for name, d in self.trainable.items()},
            {name: f.to(device) for name, f in self.fixed.items()},
        )


@dataclass(frozen=True)
class MaskedLayer:
    """What W-Asymmetry does to one weight matrix [rows, fan_in]."""

    name: str
    rows: int
    fan_in: int
    n_fix: int
    kappa: float


def weight_matrices(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Rows and fan-in of every weight matrix in order; biases and norm parameters are never fixed (section 3.1)."""
    return {name: (p.shape[0], p.shape[1]) for name, p in network.named_parameters() if p.ndim == 2}


def _per_layer(field: str, given: tuple[T, ...] | None, default: list[T], names: list[str]) -> list[T]:
    if given is None:
        return default
    if len(given) != len(names):
        msg = f"{field}: got {len(given)} numbers {list(given)}; the network has {len(names)} weight matrices ({', '.join(names)})"
        raise ValueError(msg)
    return list(given)


def layers(matrices: Mapping[str, tuple[int, int]], treatment: WAsymmetric) -> list[MaskedLayer]:
    """Settles `n_fix` and `kappa` for each weight matrix and checks that the masks can be built.

    Raises:
        ValueError: naming the field, its value and what is accepted.
    """
    names = list(matrices)
    fan_ins = [fan_in for _, fan_in in matrices.values()]
    n_fix = _per_layer(
        "n_fix", treatment.n_fix, [max(1, f // 8) for f in fan_ins[:-1]] + [fan_ins[-1] // 2], names
    )
    ends = [1.0, 0.5, 0.25]
    kappa = _per_layer("kappa", treatment.kappa, ([1.0] * len(names) + ends)[-len(names) :], names)
    settled = [
        MaskedLayer(name, *matrices[name], n, k) for name, n, k in zip(names, n_fix, kappa, strict=True)
    ]
    for layer in settled:
        _check(layer)
    return settled


def _check(layer: MaskedLayer) -> None:
    if layer.n_fix > layer.fan_in:
        msg = f"n_fix: {layer.n_fix} for {layer.name} is more than its fan-in; accepted: 0 to {layer.fan_in}"
        raise ValueError(msg)
    possible = math.comb(layer.fan_in, layer.n_fix)
    if layer.kappa == 0 and possible < layer.rows:
        msg = (
            f"n_fix: {layer.n_fix} of {layer.fan_in} weights can be chosen in {possible} ways, too few to tell the "
            f"{layer.rows} rows of {layer.name} apart; choose another n_fix, or kappa above 0 (kappa: {layer.kappa:g})"
        )
        raise ValueError(msg)


def mask(layer: MaskedLayer, rng: np.random.Generator) -> Tensor:
    """D for one layer, bool [rows, fan_in]: exactly `n_fix` zeros per row, rows distinct wherever that is possible."""
    rows, fan_in, n_fix = layer.rows, layer.fan_in, layer.n_fix
    possible = math.comb(fan_in, n_fix)
    if rows <= possible <= 8 * rows:  # few subsets: drawing without replacement beats drawing until distinct
        subsets = np.array(list(combinations(range(fan_in), n_fix)), dtype=np.int64).reshape(possible, n_fix)
        zeros = subsets[rng.permutation(possible)[:rows]]
    else:
        zeros = _subsets(rows, fan_in, n_fix, rng)
        while possible >= rows and len(repeated := _repeated(zeros)):
            zeros[repeated] = _subsets(len(repeated), fan_in, n_fix, rng)
    trainable = np.ones((rows, fan_in), dtype=bool)
    np.put_along_axis(trainable, zeros, values=False, axis=1)
    return torch.from_numpy(trainable)


def _subsets(
    rows: int, fan_in: int, n_fix: int, rng: np.random.Generator
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """A uniform random `n_fix`-subset of the columns for each row, sorted: [rows, n_fix]."""
    order = rng.random((rows, fan_in)).argsort(axis=1)
    return np.sort(order[:, :n_fix], axis=1)


def _repeated(
    zeros: np.ndarray[tuple[int, int], np.dtype[np.int64]],
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Indices of the rows that stand earlier too."""
    _, first = np.unique(zeros, axis=0, return_index=True)
    return np.setdiff1d(np.arange(len(zeros)), first)


def draw(network: nn.Module, treatment: WAsymmetric, seed: int) -> Asymmetry:
    """The masks and constants of a W-Asymmetric network for one mask seed; F ~ N(0, kappa^2) where D is 0.

    Raises:
        ValueError: if `n_fix` or `kappa` does not fit the network.
    """
    trainable, fixed = {}, {}
    for index, layer in enumerate(layers(weight_matrices(network), treatment)):
        trainable[layer.name] = mask(layer, stream(seed, "mask", index))
        constants = stream(seed, "fixed", index).standard_normal((layer.rows, layer.fan_in)) * layer.kappa
        fixed[layer.name] = torch.from_numpy(constants).float() * ~trainable[layer.name]
    return Asymmetry(trainable, fixed)


def stack(asymmetries: Sequence[Asymmetry]) -> Asymmetry:
    """One asymmetry with a member axis, from one per member."""
    names = asymmetries[0].fixed
    return Asymmetry(
        {name: torch.stack([a.trainable[name] for a in asymmetries]) for name in names},
        {name: torch.stack([a.fixed[name] for a in asymmetries]) for name in names},
    )


class _Effective(nn.Module):
    """W -> F + D * W for one parameter, as torch's parametrisation."""

    def __init__(self, trainable: Tensor, fixed: Tensor) -> None:
        super().__init__()
        self.register_buffer("trainable", trainable)
        self.register_buffer("fixed", fixed)

    def forward(self, raw: Tensor) -> Tensor:
        return self.get_buffer("fixed") + self.get_buffer("trainable") * raw


def bind(network: nn.Module, asymmetry: Asymmetry) -> nn.Module:
    """Makes a single network asymmetric in place: its weights read as F + D * W, W stays what is trained."""
    for name, fixed in asymmetry.fixed.items():
        owner, _, parameter = name.rpartition(".")
        transformation = _Effective(asymmetry.trainable[name], fixed)
        parametrize.register_parametrization(network.get_submodule(owner), parameter, transformation)
    return network


def trainable_count(network: nn.Module, asymmetry: Asymmetry | None) -> int:
    """Number of trainable parameters of one network (Lim et al. 2024, appendix table of counts)."""
    total = sum(p.numel() for p in network.parameters())
    if asymmetry is None:
        return total
    masks = (d if d.ndim == 2 else d[0] for d in asymmetry.trainable.values())
    return total - sum(int((~d).sum()) for d in masks)
