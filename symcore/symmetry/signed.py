"""The signed permutations that what is fixed allows: sign changes of neurons beside the permutations of automorphisms.

Neurons before an odd activation such as tanh can change sign (`symcore.symmetry.signs`). A sign change keeps what is
fixed in its place where no fixed weight or offset but 0 changes with it: one on the axis of one such neuron holds its
sign, one between two of them, as a cell's weight from its state to its state, lets both change together or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from symcore.asymmetry import Asymmetry
from symcore.symmetry.automorphisms import (
    TRAINABLE,
    Automorphisms,
    Colours,
    find,
    fixed_colours,
    graph_of,
    incident_neurons,
    neurons,
)
from symcore.symmetry.permutations import PermutationSpec


@dataclass(frozen=True)
class Signed:
    """The group of signed permutations that keep everything fixed in its place, as far as it is known."""

    flippable: int
    """Neurons that could change sign if nothing were fixed."""
    changes: int
    """Independent sign changes that are left; 2 to this power is the number of those without any permutation."""
    log10_least: float
    """Decimal logarithm of the order of the group, at least."""
    log10_most: float
    """At most. More than `log10_least` where the permutations are not decided, or where constants that are each
    other's negatives may let neurons change places and signs at once."""


def signed(
    network: nn.Module, example_input: Tensor, asymmetry: Asymmetry | None, found: Automorphisms
) -> Signed:
    """The signed permutations of a network.

    The permutations of signed permutations are at least the automorphisms, and at most those of the graph whose
    constants have lost their signs; to each belong as many sign changes as to the identity.

    Args:
        network: its form, as for `automorphisms.coloured_graph`.
        example_input: its argument, [batch, ...].
        asymmetry: what is fixed of its parameters; none: all are trained.
        found: its automorphisms.
    """
    spec = neurons(network, example_input)
    flippable = sum(group.size for group in spec.groups if group.flip)
    if not flippable:
        return Signed(0, 0, found.log10_least, found.log10_most)
    changes = sign_changes(spec, fixed_colours(network, asymmetry))
    flipping = {name for group in spec.groups for name, _ in group.flip}
    loose = find(graph_of(spec, fixed_colours(network, asymmetry, signless=flipping)))
    alone = changes * math.log10(2)
    return Signed(flippable, changes, found.log10_least + alone, loose.log10_most + alone)


def sign_changes(spec: PermutationSpec, colours: Mapping[str, Colours]) -> int:
    """How many independent sign changes of neurons leave every fixed weight and offset as it is.

    Neurons that can only change together are joined in a graph, those that cannot change with vertex 0; each component
    without it is one change.

    Args:
        spec: groups of neurons, with the axes that flip.
        colours: of every entry of what is fixed, as `automorphisms.fixed_colours` gives them.
    """
    flipping = [group for group in spec.groups if group.flip]
    ends_of_groups = np.cumsum([1, *(group.size for group in flipping)]).tolist()
    first = {group.name: start for group, start in zip(flipping, ends_of_groups, strict=False)}
    vertices = ends_of_groups[-1]
    joined = [np.zeros((2, 1), dtype=np.int64)]
    for name, axes, places, entries in incident_neurons(spec, colours):
        held = ((entries != TRAINABLE) & (entries != 0)).any(axis=-1)
        ends = [
            first[place] + at if (name, axis) in spec[place].flip else np.zeros_like(at)
            for axis, place, at in zip(axes, places, np.nonzero(held), strict=True)
        ]
        joined.append(np.stack(ends if len(ends) == 2 else [ends[0], np.zeros_like(ends[0])]))
    source, target = np.concatenate(joined, axis=1)
    graph = coo_array((np.ones(len(source)), (source, target)), shape=(vertices, vertices))
    components, _ = connected_components(graph, directed=False)
    return int(components) - 1
