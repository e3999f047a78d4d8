"""The automorphisms of a network's coloured computation graph: the permutations of neurons that what is fixed allows.

A vertex is a neuron or channel (one for a whole residual stream), an edge the weights between two of them. What is
trained may take any value, so all of it has one colour; what is fixed, W-Asymmetric constants, biases or FiGLU's F, is
coloured by its value, 0 being no edge at all, and a trained weight with an offset by the offset. Inputs and outputs stay in their places. Their weights colour the neuron itself.

Colours are 64-bit digests. Two that differ prove that what they stand for differs. So a certificate that no automorphism
exists always holds; a collision, were there one, could only make the group look larger than it is.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.func import functional_call

from symcore.asymmetry import Asymmetry
from symcore.symmetry.permutations import Group, PermutationSpec, derive

Colours = npt.NDArray[np.uint64]
Cells = dict[str, npt.NDArray[np.int64]]
"""By group, the number of each neuron's cell, [neuron]."""

TRAINABLE = np.uint64(0x7FF8_0000_0000_5EED)
"""The colour of what is trained: the bits of a NaN, which no fixed value has."""


@dataclass(frozen=True)
class Marks:
    """Colours of single neurons: their weights from inputs or to outputs, their fixed biases, their loops."""

    group: str
    colours: Colours
    """[neuron]"""
    incoming: bool
    """Whether they are a property of what goes into the neuron, axis 0 of a weight in torch's layout."""


@dataclass(frozen=True)
class Edges:
    """Colours of the weights from every neuron of one group to every neuron of another, or of the same."""

    target: str
    source: str
    colours: Colours
    """[target, source]"""


@dataclass(frozen=True)
class ColouredGraph:
    """What can tell the neurons of a network apart; tensors that are trained throughout tell nothing and are left out."""

    sizes: dict[str, int]
    """Neurons in each group, in the order of the network's parameters."""
    marks: tuple[Marks, ...]
    edges: tuple[Edges, ...]


Certificate = Literal["forward", "refinement", "interchangeable", "search", "open"]
"""How the order is known; see `find`."""


@dataclass(frozen=True)
class Automorphisms:
    """The group of automorphisms, as far as it is known."""

    certificate: Certificate
    log10_least: float
    """Decimal logarithm of the order, at least; equal to `log10_most` unless the certificate is "open"."""
    log10_most: float
    rounds: int
    """Rounds of colour refinement until nothing was told apart any more."""
    cells: Cells
    """Neurons that colour refinement cannot tell apart have one number."""

    @property
    def trivial(self) -> bool:
        """Whether the identity is certainly the only automorphism."""
        return self.log10_most == 0


class Opened(nn.Module):
    """A network whose floating-point buffers are parameters, so that the neurons on their axes are followed too."""

    SUFFIX = "_as_parameter"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.buffer_names = [name for name, b in network.named_buffers() if b.is_floating_point()]
        for name in self.buffer_names:
            owner, _, leaf = name.rpartition(".")
            constant = nn.Parameter(self.network.get_buffer(name).detach(), requires_grad=False)
            self.network.get_submodule(owner).register_parameter(leaf + self.SUFFIX, constant)

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the network gives."""
        constants: dict[str, Tensor] = {
            name: self.network.get_parameter(name + self.SUFFIX) for name in self.buffer_names
        }
        outputs: Tensor = functional_call(self.network, constants, inputs)
        return outputs


def neurons(network: nn.Module, example_input: Tensor) -> PermutationSpec:
    """The groups of a network's neurons, and the axes of parameters and of buffers on which they lie.

    It differs from `permutations.derive` in that a buffer pins nothing: FiGLU's F lies on the neurons that it gates.

    Raises:
        DerivationError: as `derive`.
    """

    def plain(name: str) -> str:
        return name.removeprefix("network.").removesuffix(Opened.SUFFIX)

    found = []
    for group in derive(Opened(network), example_input).groups:
        axes = tuple((plain(name), axis) for name, axis in group.axes)
        flip = tuple((plain(name), axis) for name, axis in group.flip)
        name = group.name if group.name != "network" else group.axes[0][0].rpartition(".")[0]
        found.append(Group(plain(name), group.size, axes, flip))
    return PermutationSpec(tuple(found))


def coloured_graph(
    network: nn.Module, example_input: Tensor, asymmetry: Asymmetry | None = None
) -> ColouredGraph:
    """The coloured computation graph of a network (Lim et al. 2024, theorem 1, here for any kappa).

    Args:
        network: its form; values of parameters do not matter, those of floating-point buffers do.
        example_input: its argument, [batch, ...]; only shapes and types matter.
        asymmetry: what is fixed of its parameters, [*shape] each; none: all are trained.

    Raises:
        DerivationError: if its neurons cannot be followed.
        ValueError: if a fixed tensor joins more than two kinds of neurons.
    """
    return graph_of(neurons(network, example_input), fixed_colours(network, asymmetry))


def fixed_colours(
    network: nn.Module, asymmetry: Asymmetry | None = None, signless: Container[str] = ()
) -> dict[str, Colours]:
    """The colour of every entry of what is fixed, [*shape] by name: floating-point buffers and an asymmetry's F.

    Args:
        network: whose buffers are fixed.
        asymmetry: what is fixed of its parameters.
        signless: names of tensors whose values are coloured without their signs.
    """
    values: dict[str, tuple[Tensor, Tensor | None]] = {
        name: (b, None) for name, b in network.named_buffers() if b.is_floating_point()
    }
    if asymmetry is not None:
        values |= {name: (f, asymmetry.trainable[name]) for name, f in asymmetry.fixed.items()}
    return {
        name: _fixed(value.abs() if name in signless else value, trainable)
        for name, (value, trainable) in values.items()
    }


def incident_neurons(
    spec: PermutationSpec, colours: Mapping[str, Colours]
) -> Iterator[tuple[str, tuple[int, ...], tuple[str, ...], Colours]]:
    """Each tensor that is not trained throughout: its name, axes and groups of neurons, its colours [neuron, ..., rest]."""
    for name, incident in spec.parameters.items():
        if name in colours and not (colours[name] == TRAINABLE).all():
            axes, places = zip(*sorted(incident), strict=True)
            yield name, axes, places, _by_neurons(colours[name], axes, [spec[place].size for place in places])


def graph_of(spec: PermutationSpec, colours: Mapping[str, Colours]) -> ColouredGraph:
    """The graph of a network's neurons with these colours of what is fixed; errors as `coloured_graph`."""
    marks: list[Marks] = []
    edges: list[Edges] = []
    for name, axes, places, entries in incident_neurons(spec, colours):
        digest = _digest(entries)
        if len(places) == 1:
            marks.append(Marks(places[0], digest, incoming=axes[0] == 0))
        elif len(places) == 2:
            edges.append(Edges(*places, digest))
            if places[0] == places[1]:
                marks.append(Marks(places[0], digest.diagonal(), incoming=True))
        else:
            msg = f"{name}: joins {len(places)} kinds of neurons ({', '.join(places)}); accepted: one or two"
            raise ValueError(msg)
    return ColouredGraph({group.name: group.size for group in spec.groups}, tuple(marks), tuple(edges))


def _by_neurons(colours: Colours, axes: Sequence[int], sizes: Sequence[int]) -> Colours:
    """A tensor's colours with so many neurons on some of its axes, which ascend, [neuron, ..., rest]."""
    apart = list(colours.shape)
    for axis, n in reversed(list(zip(axes, sizes, strict=True))):
        apart[axis : axis + 1] = n, apart[axis] // n
    places = [axis + before for before, axis in enumerate(axes)]  # each axis before is now two
    front = np.moveaxis(colours.reshape(apart), places, range(len(axes)))
    return front.reshape(*sizes, -1)


def _fixed(value: Tensor, trainable: Tensor | None) -> Colours:
    """A colour per entry: the bits of its value; where it is trained those of its offset turned, `TRAINABLE` for none."""
    # Adding 0 makes one zero of the two.
    bits: Colours = (value.detach().cpu().double().numpy() + 0.0).view(np.uint64)
    return bits if trainable is None else np.where(trainable.cpu().numpy(), bits ^ TRAINABLE, bits)


def _mix(words: Colours) -> Colours:
    """The finaliser of SplitMix64, a bijection that scatters its argument's bits."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return words ^ (words >> np.uint64(31))


def _digest(words: Colours) -> Colours:
    """One word for each sequence along the last axis; its order matters."""
    places = _mix(np.arange(1, words.shape[-1] + 1, dtype=np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15))
    digest: Colours = _mix(words + places).sum(axis=-1, dtype=np.uint64)
    return digest


def find(graph: ColouredGraph) -> Automorphisms:
    """The order of the automorphism group, by the first of these that decides it.

    - "forward": layer by layer, all neurons differ in what is fixed of their weights from neurons that are told apart
      already (the induction in the proof of theorem 1 in Lim et al. 2024). The group is trivial.
    - "refinement": colour refinement, which looks at weights from and to a neuron, tells all neurons apart. Trivial.
    - "interchangeable": any two neurons that refinement leaves together can be swapped by themselves, so that the group
      is a product of symmetric groups. This is a standard network's case.
    - "search": what is left was searched by nauty (McKay and Piperno 2014), which the extra `exact` installs.
    - "open": not decided, nauty is not there. The order lies between `log10_least` and `log10_most`.
    """
    cells, rounds = refine(graph)
    known, still = 0.0, dict[str, list[npt.NDArray[np.int64]]]()
    for group, numbers in cells.items():
        for cell in _several(numbers):
            if all(_swappable(graph, group, i, j) for i, j in pairwise(cell)):
                known += _log10_factorial(len(cell))
            else:
                still.setdefault(group, []).append(cell)
    if still:
        at_most = known + sum(_log10_factorial(len(cell)) for found in still.values() for cell in found)
        left = _search(graph, still)
        if left is None:
            return Automorphisms("open", known, at_most, rounds, cells)
        return Automorphisms("search", known + left, known + left, rounds, cells)
    if known:
        return Automorphisms("interchangeable", known, known, rounds, cells)
    return Automorphisms("forward" if told_apart_forward(graph) else "refinement", 0.0, 0.0, rounds, cells)


def _several(numbers: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """The members of every cell that has more than one."""
    order = np.argsort(numbers, kind="stable")
    cells = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    return [cell for cell in cells if len(cell) > 1]


def _log10_factorial(n: int) -> float:
    return math.lgamma(n + 1) / math.log(10)


def told_apart_forward(graph: ColouredGraph) -> bool:
    """Whether each group's neurons differ in what comes in from inputs and earlier groups; linear in the weights."""
    known: set[str] = set()
    for group, size in graph.sizes.items():
        incoming = [mark.colours for mark in graph.marks if mark.group == group and mark.incoming]
        incoming += [
            _digest(edges.colours) for edges in graph.edges if edges.target == group and edges.source in known
        ]
        if not incoming or len(np.unique(np.stack(incoming, axis=1), axis=0)) < size:
            return False
        known.add(group)
    return True


def refine(graph: ColouredGraph) -> tuple[Cells, int]:
    """Colour refinement (1-dimensional Weisfeiler-Leman) until nothing changes; the cells, and the rounds it took.

    In each round neurons part that differ in how many edges of some colour they have from, or to, some cell. Every
    automorphism maps each cell onto itself.
    """
    cells: Cells = {group: np.zeros(size, dtype=np.int64) for group, size in graph.sizes.items()}
    neurons, rounds = sum(graph.sizes.values()), 0
    while _count(cells) < neurons:
        finer = _part(graph, cells)
        if _count(finer) == _count(cells):
            break
        cells, rounds = finer, rounds + 1
    return cells, rounds


def _count(cells: Cells) -> int:
    return sum(int(numbers.max()) + 1 for numbers in cells.values())


def _part(graph: ColouredGraph, cells: Cells) -> Cells:
    """One round of colour refinement."""
    seen: dict[str, list[Colours]] = {group: [numbers.astype(np.uint64)] for group, numbers in cells.items()}
    for mark in graph.marks:
        seen[mark.group].append(mark.colours)
    for edges in graph.edges:
        seen[edges.target].append(_neighbours(edges.colours, cells[edges.source]))
        seen[edges.source].append(_neighbours(edges.colours.T, cells[edges.target]))
    return {
        group: np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
        for group, columns in seen.items()
    }


def _neighbours(colours: Colours, cells: npt.NDArray[np.int64]) -> Colours:
    """A digest of the multiset of (edge colour, cell) in every row: [vertex, neighbour] and [neighbour] to [vertex]."""
    digest: Colours = _mix(colours + _mix(cells.astype(np.uint64) + np.uint64(1))).sum(
        axis=1, dtype=np.uint64
    )
    return digest


def _swappable(graph: ColouredGraph, group: str, i: int, j: int) -> bool:
    """Whether swapping two neurons of a group, and nothing else, is an automorphism."""
    swap = np.arange(graph.sizes[group])
    swap[[i, j]] = j, i
    for mark in graph.marks:
        if mark.group == group and mark.colours[i] != mark.colours[j]:
            return False
    for edges in graph.edges:
        rows, columns = edges.target == group, edges.source == group
        if rows and not np.array_equal(edges.colours[i], edges.colours[j][swap if columns else slice(None)]):
            return False
        if columns and not np.array_equal(
            edges.colours[:, i], edges.colours[swap if rows else slice(None), j]
        ):
            return False
    return True


def _search(graph: ColouredGraph, still: Mapping[str, list[npt.NDArray[np.int64]]]) -> float | None:
    """The decimal logarithm of the order of the group on the open cells, found by nauty; none without nauty.

    Edge colours become layers, as nauty's guide advises: layer b of the graph has an arc where bit b of the number
    of the arc's colour is set, and a neuron's copies in all layers are joined in a row.
    """
    try:
        nauty = importlib.import_module("pynauty")
    except ImportError:
        return None
    places = {group: np.concatenate(found) for group, found in still.items()}
    first, count = {}, 0
    for group, members in places.items():
        first[group], count = count, count + len(members)
    numbers = _numbered(graph, places, first, count)
    layers = max(1, int(numbers.max()).bit_length())
    arcs: dict[int, list[int]] = {vertex: [] for vertex in range(layers * count)}
    for layer in range(layers):
        for source, target in np.argwhere(numbers >> layer & 1):
            arcs[layer * count + int(source)].append(layer * count + int(target))
        for vertex in range(count if layer else 0):
            arcs[(layer - 1) * count + vertex].append(layer * count + vertex)
    cells = np.cumsum([0, *(len(cell) for found in still.values() for cell in found)])
    parts = [
        set(range(layer * count + int(low), layer * count + int(high)))
        for layer in range(layers)
        for low, high in pairwise(cells)
    ]
    drawn = nauty.Graph(layers * count, directed=True, adjacency_dict=arcs, vertex_coloring=parts)
    _, mantissa, exponent, *_ = nauty.autgrp(drawn)
    return math.log10(mantissa) + float(exponent)


def _numbered(
    graph: ColouredGraph, places: Mapping[str, npt.NDArray[np.int64]], first: Mapping[str, int], count: int
) -> npt.NDArray[np.int64]:
    """The colours of all arcs between some neurons, [source, target], as numbers: 0 is the most frequent."""
    words = np.zeros((count, count), dtype=np.uint64)
    for number, edges in enumerate(graph.edges, start=1):
        if edges.target not in places or edges.source not in places:
            continue
        rows, columns = places[edges.target], places[edges.source]
        block = edges.colours[np.ix_(rows, columns)].T
        at = np.ix_(first[edges.source] + np.arange(len(columns)), first[edges.target] + np.arange(len(rows)))
        words[at] = words[at] + _mix(block + np.uint64(number))
    _, numbers, counts = np.unique(words, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    found: npt.NDArray[np.int64] = rank[numbers.reshape(words.shape)]
    return found


def of_parameters(spec: PermutationSpec, network: nn.Module) -> PermutationSpec:
    """The same groups with the axes of parameters alone, so that weights can be permuted while buffers stay."""
    names = dict(network.named_parameters())
    return PermutationSpec(
        tuple(
            replace(
                group,
                axes=tuple(axis for axis in group.axes if axis[0] in names),
                flip=tuple(axis for axis in group.flip if axis[0] in names),
            )
            for group in spec.groups
        )
    )
