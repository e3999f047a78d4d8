"""What optimisers share: a population's parameters in blocks, some parameters of all members in one tensor.

On a CPU one block holds everything, so an update is a few operations whatever the network; on a GPU each large matrix is a
block of its own, which its gradient meets without a copy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from symcore.asymmetry import Asymmetry, Parameters

ALIGNMENT = 32
"""In a block of several, each parameter starts at a multiple of so many entries: matrix products are slow on unaligned rows."""
OWN_BLOCK_FROM = {2: 4_096, 4: 65_536}
"""By a parameter's axes, 2 of a matrix and 4 of a convolution's filters: entries from which it has a block of its own on a GPU."""


@dataclass(frozen=True)
class Layout:
    """Where each parameter lies in a block's rows: parameters [member, *shape] <-> [member, entry]."""

    shapes: dict[str, torch.Size]
    channels_last: bool = False
    """Whether filters lie as [out, k, k, in], the order in which interleaved maps' convolutions take and give them."""

    @property
    def columns(self) -> dict[str, slice]:
        """The entries of each parameter."""
        step = 1 if len(self.shapes) == 1 else ALIGNMENT
        starts = accumulate((-(-shape.numel() // step) * step for shape in self.shapes.values()), initial=0)
        return {
            n: slice(at, at + shape.numel())
            for (n, shape), at in zip(self.shapes.items(), starts, strict=False)
        }

    def views(self, flat: Tensor) -> Parameters:
        """Parameters [member, *shape] that share memory with a block's tensor [member, entry]."""
        return {
            name: self._view(flat[:, columns], self.shapes[name]) for name, columns in self.columns.items()
        }

    def flatten(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """One tensor [member, entry] from parameters [member, *shape]; entries between parameters are 0."""
        pieces, end = [], 0
        for name, columns in self.columns.items():
            parameter = parameters[name]
            if columns.start > end:
                pieces.append(parameter.new_zeros(len(parameter), columns.start - end))
            pieces.append(self._in_order(parameter).flatten(1))
            end = columns.stop
        return torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0]

    def _in_order(self, parameter: Tensor) -> Tensor:
        """[member, *shape] with its axes in the order of memory."""
        return parameter.movedim(2, -1) if self.channels_last and parameter.ndim == 5 else parameter

    def _view(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """[member, entry] -> [member, *shape]."""
        if self.channels_last and len(shape) == 4:
            return rows.view(len(rows), shape[0], *shape[2:], shape[1]).movedim(-1, 2)
        return rows.view(len(rows), *shape)


@dataclass(frozen=True)
class Start:
    """Some parameters before the first update, as effective weights F + D * W."""

    layout: Layout
    weights: Tensor
    """[member, entry]"""
    rate: Tensor
    """Learning rates, [member or 1, 1]; the block's own, for `set_rate` changes them."""
    decay: Tensor
    """Weight decay, [member or 1, 1]."""
    trainable: Tensor | None
    """D, [member or 1, entry]; none where nothing is fixed."""
    offset: Tensor | None
    """F where D is 1, [member or 1, entry]: decay pulls towards it; none where it is 0."""


@dataclass(frozen=True)
class Block(Start, ABC):
    """Some parameters in training; an optimiser's own block adds what it remembers.

    No step moves an entry that D fixes, and decay acts on W alone.
    """

    @abstractmethod
    def memory(self) -> dict[str, Tensor]:
        """What the optimiser remembers of past gradients, by name, [member, entry] each."""

    @abstractmethod
    def update(self, gradient: Tensor, steps: Tensor) -> None:
        """One step in place.

        Args:
            gradient: of the effective weights, [member, entry], of any floating type.
            steps: counts updates, this one included, as float32 [1] on the device.
        """

    def set_rate(self, learning_rate: Tensor) -> None:
        """Changes the learning rates, [member], or [1] where all share it, in place: a captured step reads them where they are."""
        self.rate.copy_(learning_rate.unsqueeze(1))

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds, by name: views [member, *shape] of weights and memory."""
        parts = {"weights": self.weights} | self.memory()
        return {
            f"{part}/{name}": view
            for part, flat in parts.items()
            for name, view in self.layout.views(flat).items()
        }


def groups(parameters: Mapping[str, Tensor]) -> list[list[str]]:
    """Which parameters share a block, for parameters [member, *shape] on their device."""

    def own(parameter: Tensor) -> bool:
        least = OWN_BLOCK_FROM.get(parameter.ndim - 1)
        return parameter.is_cuda and least is not None and parameter[0].numel() >= least

    large = [name for name, parameter in parameters.items() if own(parameter)]
    return [*([name] for name in large), [name for name in parameters if name not in large]]


def starts(
    parameters: Mapping[str, Tensor],
    learning_rate: Tensor,
    weight_decay: Tensor,
    asymmetry: Asymmetry | None,
    *,
    channels_last: bool = False,
) -> Iterator[Start]:
    """The blocks of a population before the first update, less what an optimiser remembers.

    Args:
        parameters: effective weights [member, *shape]; they are copied.
        learning_rate: [member], or [1] where all share it.
        weight_decay: likewise.
        asymmetry: whose fixed entries are to stay, and whose offsets weight decay is to spare.
        channels_last: the order of filters in memory, as in `Layout`.
    """
    masks, offsets = (asymmetry.trainable, asymmetry.offsets()) if asymmetry else ({}, {})
    for names in groups(parameters):
        layout = Layout({name: parameters[name].shape[1:] for name in names}, channels_last)
        weights = layout.flatten({name: parameters[name] for name in names}).clone()
        trainable = offset = None
        if any(name in masks for name in names):
            trainable = layout.flatten(_stacked(layout, masks, weights.new_ones((), dtype=torch.bool)))
            offset = layout.flatten(_stacked(layout, offsets, weights.new_zeros(())))
            offset = offset if offset.any() else None
        rate, decay = learning_rate.unsqueeze(1).clone(), weight_decay.unsqueeze(1)
        yield Start(layout, weights, rate, decay, trainable, offset)


def _stacked(layout: Layout, some: Mapping[str, Tensor], missing: Tensor) -> Parameters:
    """A tensor for each parameter, [member or 1, *shape], from those of some; all entries of others are `missing`."""
    stacked = {
        n: some[n] if some[n].ndim > len(shape) else some[n].unsqueeze(0)
        for n, shape in layout.shapes.items()
        if n in some
    }
    members = max(len(d) for d in stacked.values())
    every = {name: missing.expand(members, *shape) for name, shape in layout.shapes.items()}
    return every | {name: d.expand(members, *layout.shapes[name]) for name, d in stacked.items()}
