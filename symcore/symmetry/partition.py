"""The partition of all axes in a graph into classes: axes of one class carry the same neurons, in the same order.

Permuting one of them forces the same permutation on the others. What ties them is in `symcore.symmetry.axes`.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

from scipy.cluster.hierarchy import DisjointSet


class Axis(NamedTuple):
    """One axis of one tensor in the graph."""

    number: int
    size: int


Axes = tuple[Axis, ...]
"""The axes of one tensor, in order."""

PINNED = 0
"""The class of the axes whose order is fixed: those of inputs, outputs and constants, and axes of size 1."""


class Made(NamedTuple):
    """An axis and the ones that it is made of."""

    whole: Axis
    parts: Axes
    """The last is the fastest."""
    place: str
    """Where in the graph."""


class AxisClasses:
    """The partition of all axes of a graph into classes."""

    def __init__(self) -> None:
        self._sets: DisjointSet[int] = DisjointSet([PINNED])
        self._refused: list[tuple[Axis, str]] = []
        self._made: list[Made] = []
        self._following: list[tuple[Axes, Axes]] = []

    def free(self, shape: Iterable[int]) -> Axes:
        """New axes that nothing ties yet; axes of size 1 cannot be permuted and come pinned."""
        return tuple(self._new(size) if size > 1 else Axis(PINNED, size) for size in shape)

    def _new(self, size: int) -> Axis:
        axis = Axis(len(self._sets), size)
        self._sets.add(axis.number)
        return axis

    def pinned(self, shape: Iterable[int]) -> Axes:
        """Axes whose order is fixed."""
        return tuple(Axis(PINNED, size) for size in shape)

    def tie(self, first: Axis, second: Axis) -> None:
        """Says that two axes of one size carry the same neurons."""
        if first.size != second.size:
            msg = f"axes of sizes {first.size} and {second.size} cannot carry the same neurons"
            raise ValueError(msg)
        self._sets.merge(first.number, second.number)

    def pin(self, axes: Iterable[Axis]) -> None:
        """Fixes the order of some axes."""
        for axis in axes:
            self._sets.merge(axis.number, PINNED)

    def refuse(self, axes: Iterable[Axis], reason: str) -> None:
        """Says that these axes must turn out pinned, because no rule tells what else would become of them."""
        self._refused += [(axis, reason) for axis in axes]

    def following(self, sources: Iterable[Axis], shape: Iterable[int]) -> Axes:
        """New axes of a result that no rule follows: their order is fixed where that of all its sources is.

        They are not pinned at once: what ties them to their sources would then pin neurons that `refuse` speaks of.
        """
        axes = self.free(shape)
        self._following.append((tuple(sources), axes))
        return axes

    def is_pinned(self, axis: Axis) -> bool:
        """Whether the order of an axis is known to be fixed by now."""
        return self._sets.connected(axis.number, PINNED)

    def merge(self, parts: Axes, place: str) -> Axis:
        """One axis made of several, the last fastest, as flattening makes it; `place` is where, for messages."""
        whole = self._new(prod(axis.size for axis in parts))
        self._made.append(Made(whole, parts, place))
        return whole

    def split(self, whole: Axis, sizes: Iterable[int], place: str) -> Axes:
        """The axes of which one is made, the last fastest."""
        parts = self.free(sizes)
        self._made.append(Made(whole, parts, place))
        return parts

    def settle(self) -> None:
        """Draws the consequences for axes that are made of others, once the whole graph has been followed.

        Where the order of all parts is fixed, so is that of the whole, and the other way round. Where all but the first
        are fixed, as when maps [channel, row, column] are flattened, the whole is a block of entries for each neuron
        of the first. Anything else is refused.
        """
        while self._pins_spread() or self._blocks_agree():
            pass
        blocks: dict[int, int] = {}
        for whole, parts, place in self._made:
            neurons = blocks.setdefault(self.name(whole), parts[0].size)
            if neurons != parts[0].size or any(not self.is_pinned(axis) for axis in parts[1:]):
                reason = f"{place} splits or merges neurons that can be permuted, where only channels before positions may be"
                self.refuse((whole, *parts), reason)

    def _pins_spread(self) -> bool:
        """Pins wholes whose parts are, parts whose wholes are, and what follows pinned sources; whether there were any."""
        spread = False
        for whole, parts, _ in self._made:
            free = [axis for axis in parts if not self.is_pinned(axis)]
            if bool(free) == self.is_pinned(whole):
                self.pin(free or [whole])
                spread = True
        for sources, results in self._following:
            if all(map(self.is_pinned, sources)) and not all(map(self.is_pinned, results)):
                self.pin(results)
                spread = True
        return spread

    def _blocks_agree(self) -> bool:
        """Ties the neurons of wholes that are one class, and pins all places within their blocks if some are; whether any."""
        known: dict[int, Made] = {}
        changed = False
        for made in self._made:
            other = known.setdefault(self.name(made.whole), made)
            first, second = made.parts[0], other.parts[0]
            if first.size != second.size or self.is_pinned(made.whole):
                continue
            if not self._sets.connected(first.number, second.number):
                self.tie(first, second)
                changed = True
            places = [*made.parts[1:], *other.parts[1:]]
            free = [axis for axis in places if not self.is_pinned(axis)]
            if free and any(all(map(self.is_pinned, one.parts[1:])) for one in (made, other)):
                self.pin(free)
                changed = True
        return changed

    def neurons(self, axis: Axis) -> Axis:
        """The axis of single neurons of which this one has a block for each; itself where it has one entry for each."""
        made = {self.name(whole): parts[0] for whole, parts, _ in self._made}
        while self.name(axis) in made and not self.is_pinned(axis):
            axis = made[self.name(axis)]
        return axis

    def name(self, axis: Axis) -> int:
        """A number that all axes of one class share, and no other axis has."""
        return self._sets[axis.number]

    def refusals(self) -> list[tuple[int, str]]:
        """Classes that were refused and are still free, with the reasons."""
        return [(self.name(axis), reason) for axis, reason in self._refused if not self.is_pinned(axis)]
