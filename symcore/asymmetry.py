"""Asymmetry as a transformation of parameters: effective weight = F + D * W, fixed once and shared by all networks.

F may lie where D is 0, as a fixed weight, and where it is 1, as an offset of one that is trained. W-Asymmetric networks (Lim et al. 2024, section 3.1) take D as a binary mask with `n_fix` zeros per row and F as random
constants where D is 0. A row is what makes one neuron or output channel: [in] of a linear layer, [in, k, k] of a
convolution. Networks stay ordinary modules in standard form.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from symcore.networks.gnn import NODE_MAP
from symcore.networks.layout import layout
from symcore.networks.resnet import SHORTCUT_MAP
from symcore.randomness import stream
from symcore.treatments import Form, Masks

Parameters = dict[str, Tensor]
T = TypeVar("T")

FIRST_FIXED, FIRST_ENTRIES = 12, 27
"""What the paper fixes of each row of ResNet20's first convolution, and how long rows are."""


@dataclass(frozen=True)
class Asymmetry:
    """D (bool) and F for each transformed parameter, [*shape] shared by all members or [member, *shape]."""

    trainable: Parameters
    fixed: Parameters
    stacked: bool = False
    """Whether D and F are the members' own, [member, *shape]."""

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

    def offsets(self) -> Parameters:
        """F where D is 1: what is added to trained weights, and towards which weight decay pulls effective ones."""
        return {name: f * self.trainable[name] for name, f in self.fixed.items()}

    def select(self, members: Sequence[int]) -> Asymmetry:
        """The asymmetry of some members, in the given order; what is shared stays shared."""
        if not self.stacked:
            return self
        index = list(members)
        return replace(
            self,
            trainable={name: d[index] for name, d in self.trainable.items()},
            fixed={name: f[index] for name, f in self.fixed.items()},
        )

    def to(self, device: torch.device | str) -> Asymmetry:
        """The same asymmetry on another device."""
        return replace(
            self,
            trainable={name: d.to(device) for name, d in self.trainable.items()},
            fixed={name: f.to(device) for name, f in self.fixed.items()},
        )


@dataclass(frozen=True)
class MaskedLayer:
    """What W-Asymmetry does to one weight, [row, in] or [row, in, k, k]."""

    name: str
    shape: tuple[int, ...]
    n_fix: int
    kappa: float
    form: Form = "entry"
    spare: bool = False
    """Whether its rows need not differ: a readout's stay in their places, a shortcut's are those of the convolution beside it."""

    @property
    def rows(self) -> int:
        """Neurons or output channels."""
        return self.shape[0]

    @property
    def choices(self) -> int:
        """Of how many entries or filters of a row `n_fix` are fixed."""
        return _choices(self.shape, self.form)

    @property
    def possible(self) -> int:
        """In how many ways a row can be masked."""
        return math.comb(self.choices, self.n_fix)

    @property
    def told_apart(self) -> bool:
        """Whether what is fixed tells the rows apart that must be: by constants, or by where zeros are."""
        return self.kappa > 0 or self.possible >= self.rows or (self.spare and self.n_fix == 0)

    @property
    def telling(self) -> range:
        """Every `n_fix` for which all rows can be masked differently."""
        half = range(self.choices // 2 + 1)
        least = next((n for n in half if math.comb(self.choices, n) >= self.rows), None)
        return range(0) if least is None else range(least, self.choices - least + 1)


def fan_in(shape: Sequence[int]) -> int:
    """Entries in a row of a weight [row, *rest]."""
    return math.prod(shape[1:])


def _choices(shape: Sequence[int], form: Form) -> int:
    return shape[1] if form == "filter" else fan_in(shape)


def weight_matrices(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights of linear layers and convolutions in the order in which data meets them, [row, in, ...].

    Biases and norm parameters are never fixed (section 3.1).
    """
    return {name: tuple(network.get_parameter(name).shape) for name in layout(network).maps}


def _per_layer(field: str, given: tuple[T, ...] | None, default: list[T], names: list[str]) -> list[T]:
    if given is None:
        return default
    if len(given) != len(names):
        msg = f"{field}: got {len(given)} numbers {list(given)}; the network has {len(names)} weight matrices ({', '.join(names)}); accepted: {len(names)} numbers, or none"
        raise ValueError(msg)
    return list(given)


def layers(
    matrices: Mapping[str, tuple[int, ...]], treatment: Masks, recurrent: Collection[str] = ()
) -> list[MaskedLayer]:
    """Settles `n_fix` and `kappa` for each weight matrix and checks that the masks can be built.

    Zeros tell no rows apart but by where they are, so that with kappa 0 some defaults for `n_fix` will not do: see
    `_telling`.

    Args:
        matrices: shapes as `weight_matrices` gives them.
        treatment: what is to be fixed.
        recurrent: names of those that map a hidden state.

    Raises:
        ValueError: naming the field, its value and what is accepted.
    """
    names, form = list(matrices), treatment.form
    numbers, deviations = _defaults(matrices, form, recurrent)
    n_fix = _per_layer("n_fix", treatment.n_fix, numbers, names)
    kappa = _per_layer("kappa", treatment.kappa, deviations, names)
    spare = [name == names[-1] or name.endswith(SHORTCUT_MAP) for name in names]
    settled = [
        MaskedLayer(name, matrices[name], n, k, form, s)
        for name, n, k, s in zip(names, n_fix, kappa, spare, strict=True)
    ]
    if treatment.n_fix is None:
        entries, _ = _defaults(matrices, "entry", recurrent)
        settled = [_telling(layer, n) for layer, n in zip(settled, entries, strict=True)]
    for layer in settled:
        _check(layer)
    return settled


def _defaults(
    matrices: Mapping[str, tuple[int, ...]], form: Form, recurrent: Collection[str]
) -> tuple[list[int], list[float]]:
    """`n_fix` and `kappa` for each weight where none are given."""
    names, shapes = list(matrices), list(matrices.values())
    if recurrent:
        return _recurrent(shapes, [name in recurrent for name in names])
    if any(name.endswith(NODE_MAP) for name in names):
        return [min(6, fan_in(shape)) for shape in shapes], [0.5] * len(shapes)
    return _as_in_paper(shapes, form)


def _telling(layer: MaskedLayer, entries: int) -> MaskedLayer:
    """The layer with the nearest number of zeros that tells its rows apart, where its own does not.

    Where no number of filters does, single weights are fixed; where none of them do and its rows may be alike, nothing is.
    Where a default is all of a row, as in the first convolution of the paper's wide ResNet20, it counts from the share of
    the narrow one, as Buergin et al. 2026 do.

    Args:
        layer: with the default `n_fix`.
        entries: the default `n_fix` of single weights.
    """
    for tried in (layer, replace(layer, form="entry", n_fix=entries)):
        if tried.told_apart:
            return tried
        if numbers := tried.telling:
            whole = tried.n_fix == tried.choices
            wanted = round(tried.choices * FIRST_FIXED / FIRST_ENTRIES) if whole else tried.n_fix
            return replace(tried, n_fix=min(max(wanted, numbers[0]), numbers[-1]))
    return replace(layer, n_fix=0) if layer.spare else tried


def _as_in_paper(shapes: Sequence[tuple[int, ...]], form: Form) -> tuple[list[int], list[float]]:
    """`n_fix` and `kappa` for each weight: those of Lim et al. 2024, appendix E.1, carried over to other sizes."""
    if any(len(shape) > 2 for shape in shapes):
        return _as_in_resnet(shapes, form), [2.0] * len(shapes)
    fan_ins = [fan_in(shape) for shape in shapes]
    ends = [1.0, 0.5, 0.25]
    kappa = ([1.0] * len(shapes) + ends)[-len(shapes) :]
    return [*(max(1, f // 8) for f in fan_ins[:-1]), fan_ins[-1] // 2], kappa


def _recurrent(shapes: Sequence[tuple[int, ...]], recurrent: Sequence[bool]) -> tuple[list[int], list[float]]:
    """Half of each row; what is fixed of a map from the hidden state has spectral radius about 0.9, so states stay bounded.

    With the paper's kappa of 1 that radius is sqrt(n_fix), and training fails. The last map is the readout.
    """
    numbers = [max(1, fan_in(shape) // 2) for shape in shapes]
    kappa = [0.9 / math.sqrt(n) if own else 1.0 for n, own in zip(numbers, recurrent, strict=True)]
    return numbers, [*kappa[:-1], 0.25]


def _as_in_resnet(shapes: Sequence[tuple[int, ...]], form: Form) -> list[int]:
    """The first convolution fixes 12 of 27 entries, the others 4 filters' worth; twice the channels, 2 filters more.

    That is ResNet20. At 8 times the width the paper fixes 3 times as many, so all of the first convolution.
    """
    first = next(place for place, shape in enumerate(shapes) if len(shape) > 2)
    channels = shapes[first][0]
    width = channels / 16
    factor = round(math.sqrt(width)) if width >= 1 else width

    def share(place: int, shape: tuple[int, ...]) -> float:
        if place == first:
            return factor * FIRST_FIXED / FIRST_ENTRIES
        features = shape[0] if len(shape) > 2 else shape[1]
        return factor * (4 + 2 * math.log2(features / channels)) / shape[1]

    choices = [_choices(shape, form) for shape in shapes]
    numbers = [
        round(share(place, shape) * n) for place, (shape, n) in enumerate(zip(shapes, choices, strict=True))
    ]
    return [min(n, max(1, number)) for n, number in zip(choices, numbers, strict=True)]


def _check(layer: MaskedLayer) -> None:
    what = "input filters" if layer.form == "filter" else "weights"
    if layer.n_fix > layer.choices:
        limit = f"{layer.choices} {what}" if layer.form == "filter" else "fan-in"
        msg = (
            f"n_fix: {layer.n_fix} for {layer.name} is more than its {limit}; accepted: 0 to {layer.choices}"
        )
        raise ValueError(msg)
    if not layer.told_apart:
        numbers, most = layer.telling, math.comb(layer.choices, layer.choices // 2)
        accepted = f"{numbers[0]} to {numbers[-1]}" if numbers else f"at most {most} rows"
        accepted = f"0, {accepted}" if layer.spare else accepted
        msg = (
            f"n_fix: {layer.n_fix} of {layer.choices} {what} can be chosen in {layer.possible} ways, too few to tell the "
            f"{layer.rows} rows of {layer.name} apart where kappa is 0; accepted: {accepted}, or kappa above 0"
        )
        raise ValueError(msg)


def mask(layer: MaskedLayer, rng: np.random.Generator) -> Tensor:
    """D for one layer, bool [*shape]: `n_fix` zeros (or filters) per row, rows distinct wherever that is possible."""
    rows, choices, n_fix = layer.rows, layer.choices, layer.n_fix
    possible = layer.possible
    if rows <= possible <= 8 * rows:  # few subsets: drawing without replacement beats drawing until distinct
        subsets = np.array(list(combinations(range(choices), n_fix)), dtype=np.int64).reshape(possible, n_fix)
        zeros = subsets[rng.permutation(possible)[:rows]]
    else:
        zeros = _subsets(rows, choices, n_fix, rng)
        while possible >= rows and len(repeated := _repeated(zeros)):
            zeros[repeated] = _subsets(len(repeated), choices, n_fix, rng)
    trainable = np.ones((rows, choices), dtype=bool)
    np.put_along_axis(trainable, zeros, values=False, axis=1)
    whole = np.repeat(trainable, fan_in(layer.shape) // choices, axis=1)
    return torch.from_numpy(whole.reshape(layer.shape))


def _subsets(
    rows: int, choices: int, n_fix: int, rng: np.random.Generator
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """A uniform random `n_fix`-subset of the choices for each row, sorted: [rows, n_fix]."""
    keys = rng.random((rows, choices))
    smallest = np.argpartition(keys, n_fix - 1, axis=1) if 0 < n_fix < choices else keys.argsort(axis=1)
    return np.sort(smallest[:, :n_fix], axis=1)


def _repeated(
    zeros: np.ndarray[tuple[int, int], np.dtype[np.int64]],
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Indices of the rows that stand earlier too."""
    _, first = np.unique(zeros, axis=0, return_index=True)
    return np.setdiff1d(np.arange(len(zeros)), first)


def draw(network: nn.Module, treatment: Masks, seed: int) -> Asymmetry:
    """The masks and constants of a W-Asymmetric network for one mask seed (Lim et al. 2024, section 3.1); F ~ N(0, kappa^2) where D is 0.

    Raises:
        ValueError: if `n_fix` or `kappa` does not fit the network.
    """
    trainable, fixed = {}, {}
    settled = layers(weight_matrices(network), treatment, layout(network).recurrent)
    for index, layer in enumerate(settled):
        trainable[layer.name] = mask(layer, stream(seed, "mask", index))
        constants = stream(seed, "fixed", index).standard_normal(layer.shape) * layer.kappa
        fixed[layer.name] = torch.from_numpy(constants).float() * ~trainable[layer.name]
    return Asymmetry(trainable, fixed)


def stack(asymmetries: Sequence[Asymmetry]) -> Asymmetry:
    """One asymmetry with a member axis, from one per member."""
    names = asymmetries[0].fixed
    return Asymmetry(
        {name: torch.stack([a.trainable[name] for a in asymmetries]) for name in names},
        {name: torch.stack([a.fixed[name] for a in asymmetries]) for name in names},
        stacked=True,
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
    masks = (d[0] if asymmetry.stacked else d for d in asymmetry.trainable.values())
    return total - sum(int((~d).sum()) for d in masks)
