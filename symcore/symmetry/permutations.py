"""The permutations of neurons that leave a network's function as it is: derived from its graph, applied to its weights.

The graph is the one that torch.export traces. Axes that reach an input or an output keep their order, and so do axes
that meet a buffer: FiGLU's F, say, would have to change with the permutation. Every other class of axes on which
parameters lie is a group that can be permuted freely.

A permutation p of n neurons is an int64 tensor [n], or [pair, n] for stacked parameters: the permuted network's neuron
i is the original's neuron p[i]. Where neurons can also change sign (tanh), a sign s of -1 or 1 for each, in the same
shape, makes it s[i] times that neuron.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from symcore.symmetry import signs
from symcore.symmetry.axes import RULES, Call, DerivationError, elementwise
from symcore.symmetry.partition import Axes, AxisClasses

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Group:
    """Neurons that can change places with each other, and the parameter axes on which they lie."""

    name: str
    size: int
    axes: tuple[tuple[str, int], ...]
    """(parameter, axis), axes counted without a leading pair axis.

    An axis has one entry for each neuron, or a block of entries: n * k entries are k for each, those of a neuron together, as
    when maps [channel, row, column] are flattened.
    """
    flip: tuple[tuple[str, int], ...] = ()
    """Those of `axes` along which a neuron changes sign, where it can; `symcore.symmetry.signs` finds them."""


@dataclass(frozen=True)
class PermutationSpec:
    """All permutations of a network's neurons: one symmetric group for each of `groups`."""

    groups: tuple[Group, ...]

    def __getitem__(self, name: str) -> Group:
        """The group of that name.

        Raises:
            KeyError: if there is none.
        """
        return {group.name: group for group in self.groups}[name]

    @cached_property
    def parameters(self) -> dict[str, tuple[tuple[int, str], ...]]:
        """For every parameter that some group touches, its (axis, group's name)."""
        found: dict[str, tuple[tuple[int, str], ...]] = {}
        for group in self.groups:
            for parameter, axis in group.axes:
                found[parameter] = (*found.get(parameter, ()), (axis, group.name))
        return found

    def without_signs(self) -> PermutationSpec:
        """The permutations alone, of neurons that keep their signs."""
        return PermutationSpec(tuple(replace(group, flip=()) for group in self.groups))


@dataclass(frozen=True)
class Traced:
    """A network's graph, and the axes of every tensor in it."""

    program: torch.export.ExportedProgram
    axes: AxisClasses
    nodes: dict[fx.Node, Axes]
    parameters: dict[str, Axes]
    """Of every parameter that the graph uses, in the network's order."""
    names: dict[fx.Node, str]
    """A name for every node; the placeholders of a parameter have the parameter's."""

    @cached_property
    def from_inputs(self) -> set[fx.Node]:
        """Nodes whose value depends on the network's inputs."""
        inputs = set(self.program.graph_signature.user_inputs)
        found: set[fx.Node] = set()
        for node in self.nodes:
            if node.name in inputs or any(source in found for source in node.all_input_nodes):
                found.add(node)
        return found


def trace(network: nn.Module, example_input: Tensor | tuple[Tensor, ...]) -> Traced:
    """Follows the neurons of a network through its graph, in evaluation mode; arguments and errors as `derive`."""
    network = copy.deepcopy(network).cpu().eval()
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    program = torch.export.export(network, tuple(x.detach().cpu() for x in inputs), strict=False)
    # One tensor may have several names, and be traced as several placeholders; its first name stands for all.
    first_names = {id(parameter): name for name, parameter in network.named_parameters()}
    names = {
        placeholder: first_names[id(network.get_parameter(target))]
        for placeholder, target in program.graph_signature.inputs_to_parameters.items()
    }
    axes = AxisClasses()
    parameters, nodes = _follow(axes, program.graph_module, names)
    axes.settle()
    ordered = {name: parameters[name] for name in first_names.values() if name in parameters}
    called = {node: names.get(node.name, f"{node.name} ") for node in nodes}  # no parameter's name ends so
    return Traced(program, axes, nodes, ordered, called)


def derive(network: nn.Module, example_input: Tensor | tuple[Tensor, ...]) -> PermutationSpec:
    """The permutation specification of any network that torch.export can trace, in evaluation mode.

    Args:
        network: an ordinary module; it is left as it is. Whether its parameters are trained makes no difference.
        example_input: its argument, or a tuple of its arguments; only shapes and types matter.

    Returns:
        Groups in the order of the network's parameters. Axes of size 1 form none.

    Raises:
        DerivationError: if an operation on permutable axes has no rule in `symcore.symmetry.axes`.
    """
    return groups(trace(network, example_input))


def _follow(
    axes: AxisClasses, module: fx.GraphModule, names: Mapping[str, str]
) -> tuple[dict[str, Axes], dict[fx.Node, Axes]]:
    """Follows the axes through the whole graph; returns those of every parameter that it uses, and of every node."""
    parameters: dict[str, Axes] = {}
    known: dict[fx.Node, Axes] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder" and node.name in names and node.users:
            known[node] = parameters.setdefault(names[node.name], axes.free(_shape(node)))
        elif node.op == "output":
            axes.pin(axis for source in node.all_input_nodes for axis in known[source])
        elif node.op == "call_function" and node.meta.get("val") is not None:
            known[node] = _result(axes, module, node, known)
        else:
            known[node] = axes.pinned(_shape(node))
    return parameters, known


def _shape(node: fx.Node) -> tuple[int, ...]:
    """Shape of a node's tensor; () for anything else."""
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _result(axes: AxisClasses, module: fx.GraphModule, node: fx.Node, known: Mapping[fx.Node, Axes]) -> Axes:
    """Axes of an operation's result."""
    sources: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), sources.append)
    tensors = tuple(known[source] for source in sources)
    pointwise = torch.Tag.pointwise in getattr(node.target, "tags", ())
    rule = RULES.get(operation(node)) or (elementwise if pointwise else None)
    call = node.normalized_arguments(module, normalize_to_only_use_kwargs=True)
    if rule is not None and call is not None and isinstance(node.meta["val"], Tensor):
        arguments: dict[str, Any] = fx.node.map_arg(call.kwargs, known.__getitem__)
        return rule(axes, Call(_place(node), arguments, tensors, _shape(node)))
    # Right where nothing that the operation works on can be permuted; whether that is so shows only at the end.
    unpermuted = [axis for tensor in tensors for axis in tensor]
    axes.refuse(unpermuted, f"{_place(node)} has no rule and works on neurons that can be permuted")
    return axes.following(unpermuted, _shape(node))


def operation(node: fx.Node) -> str:
    """What a node computes, for all overloads: "aten.linear", say."""
    return str(getattr(node.target, "overloadpacket", node.target))


def _place(node: fx.Node) -> str:
    """An operation and the module that calls it, for messages."""
    modules = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return f"{node.target} in {modules[-1] if modules and modules[-1] else 'the network itself'}"


def groups(traced: Traced) -> PermutationSpec:
    """The free classes of axes on which parameters lie, in the parameters' order.

    Raises:
        DerivationError: if an operation on such axes has no rule.
    """
    axes = traced.axes
    members: dict[int, list[tuple[str, int]]] = {}
    sizes: dict[int, int] = {}
    for parameter, its_axes in traced.parameters.items():
        for place, axis in enumerate(its_axes):
            if not axes.is_pinned(axis):
                neurons = axes.neurons(axis)
                members.setdefault(axes.name(neurons), []).append((parameter, place))
                sizes[axes.name(neurons)] = neurons.size
    for refused, reason in axes.refusals():
        if refused in members:
            parameter, place = members[refused][0]
            msg = f"{reason}: axis {place} of {parameter}; rules are in symcore.symmetry.axes"
            raise DerivationError(msg)
    names, flips = _readable(list(members.values())), signs.flips(traced.nodes, traced.names, axes.is_pinned)
    return PermutationSpec(
        tuple(
            Group(name, sizes[number], tuple(found), next((f for f in flips if set(f) <= set(found)), ()))
            for name, (number, found) in zip(names, members.items(), strict=True)
        )
    )


def _readable(groups: Sequence[Sequence[tuple[str, int]]]) -> list[str]:
    """A name for each group: the module whose neurons they are, where that tells them apart.

    That is the innermost module around all parameters that have the neurons on axis 0, else the module of the first.
    """
    around, first = [], []
    for found in groups:
        modules = [parameter.split(".")[:-1] for parameter, axis in found if axis == 0] or [
            found[0][0].split(".")[:-1]
        ]
        shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*modules, strict=False))
        around.append(".".join(parts[0] for parts in shared))
        first.append(".".join(modules[0]))
    for names in (around, first):
        if all(names) and len(set(names)) == len(names):
            return names
    return [f"{found[0][0]}[{found[0][1]}]" for found in groups]


def permute(
    parameters: Tensors, spec: PermutationSpec, permutations: Tensors, flipped: Tensors | None = None
) -> dict[str, Tensor]:
    """The parameters of networks with their neurons permuted; they compute the same function.

    Args:
        parameters: by name, [*shape], or [pair, *shape] with permutations [pair, n]; all that the specification names.
            Others pass unchanged.
        spec: the network's permutations.
        permutations: one for every group, [n] or [pair, n].
        flipped: signs of -1 and 1 for some of the groups that can change sign, in the same shape; others keep theirs.

    Raises:
        ValueError: if a group has no permutation, a parameter is missing, or shapes do not fit the specification.
    """
    _check(spec, permutations)
    permuted = dict(parameters)
    for name, incident in spec.parameters.items():
        if name not in permuted:
            msg = f"parameter {name} is missing; got {', '.join(parameters)}"
            raise ValueError(msg)
        for axis, group in incident:
            permuted[name] = permute_axis(permuted[name], axis, permutations[group])
    for group_name, own in (flipped or {}).items():
        for name, axis in spec[group_name].flip:
            permuted[name] = flip_axis(permuted[name], axis, own)
    return permuted


def flip_axis(tensor: Tensor, axis: int, own: Tensor) -> Tensor:
    """One axis of a tensor times signs, or other factors: [*shape] by [n], or [pair, *shape] by [pair, n].

    `axis` does not count pair; an axis of n * k entries has a block of k for each neuron.
    """
    stacked = own.dim() - 1
    own = own.repeat_interleave(tensor.shape[axis + stacked] // own.shape[-1], -1)
    shape = [1] * tensor.dim()
    shape[:stacked] = own.shape[:stacked]
    shape[axis + stacked] = own.shape[-1]
    return tensor * own.to(tensor).view(shape)


def permute_axis(tensor: Tensor, axis: int, permutation: Tensor) -> Tensor:
    """One axis of a tensor permuted: [*shape] by [n], or [pair, *shape] by [pair, n]; `axis` does not count pair.

    An axis of n * k entries has a block of k for each neuron.
    """
    stacked, n = permutation.dim() - 1, permutation.shape[-1]
    if tensor.shape[axis + stacked] % n or (stacked and len(tensor) != len(permutation)):
        msg = f"axis {axis} of a tensor {list(tensor.shape)} cannot be permuted by permutations {list(permutation.shape)}"
        raise ValueError(msg)
    permutation = permutation.to(tensor.device)
    if not stacked:
        blocks: Tensor = tensor.unflatten(axis, (n, -1)).index_select(axis, permutation)
        return blocks.view(tensor.shape)
    # one selection of whole rows, several times as fast as an index for every entry
    pairs, before = len(tensor), math.prod(tensor.shape[1 : axis + 1])
    starts = torch.arange(pairs * before, device=tensor.device).view(pairs, before, 1) * n
    rows = (starts + permutation[:, None]).flatten()
    after = tensor.numel() // len(rows)
    return tensor.reshape(len(rows), after).index_select(0, rows).view(tensor.shape)


def by_neuron(weight: Tensor, axis: int, n: int) -> Tensor:
    """Weights [pair, *shape] by the n neurons on one axis of shape, [pair, n, rest]."""
    return weight.movedim(axis + 1, 1).reshape(len(weight), n, -1)


def _check(spec: PermutationSpec, permutations: Tensors) -> None:
    for group in spec.groups:
        got = permutations.get(group.name)
        if got is None or got.dim() not in (1, 2) or got.shape[-1] != group.size:
            shape = "none" if got is None else f"shape {list(got.shape)}"
            msg = f"permutation of {group.name}: got {shape}; it takes [{group.size}] or [pair, {group.size}]"
            raise ValueError(msg)
        if got.numel() and not 0 <= int(got.min()) <= int(got.max()) < group.size:
            msg = f"permutation of {group.name}: got {int(got.min())} to {int(got.max())}; it takes 0 to {group.size - 1}"
            raise ValueError(msg)


def identity(spec: PermutationSpec, pairs: int | None = None) -> dict[str, Tensor]:
    """The permutations that leave every neuron in its place, [n], or [pair, n] for a number of pairs."""
    found = {group.name: torch.arange(group.size) for group in spec.groups}
    return found if pairs is None else {name: p.repeat(pairs, 1) for name, p in found.items()}


def random(
    spec: PermutationSpec, generator: np.random.Generator, pairs: int | None = None
) -> dict[str, Tensor]:
    """Permutations drawn uniformly, [n], or [pair, n], each pair its own."""
    rows = {
        group.name: np.tile(np.arange(group.size), (1 if pairs is None else pairs, 1))
        for group in spec.groups
    }
    drawn = {name: torch.from_numpy(generator.permuted(row, axis=1)) for name, row in rows.items()}
    return {name: p[0] for name, p in drawn.items()} if pairs is None else drawn


def random_signs(
    spec: PermutationSpec, generator: np.random.Generator, pairs: int | None = None
) -> dict[str, Tensor]:
    """Signs drawn uniformly for every group that can change them, [n], or [pair, n]."""
    shape = () if pairs is None else (pairs,)
    return {
        group.name: torch.from_numpy(generator.choice([-1, 1], (*shape, group.size)))
        for group in spec.groups
        if group.flip
    }


def positive(spec: PermutationSpec, pairs: int) -> dict[str, Tensor]:
    """The signs that leave every neuron as it is, [pair, n], for every group that can change them."""
    return {g.name: torch.ones(pairs, g.size, dtype=torch.int64) for g in spec.groups if g.flip}


def invert(permutations: Tensors) -> dict[str, Tensor]:
    """The permutations that undo these."""
    return {name: p.argsort(-1) for name, p in permutations.items()}


def compose(first: Tensors, second: Tensors) -> dict[str, Tensor]:
    """The permutations that do what `first` does and then what `second` does."""
    return {name: first[name].take_along_dim(second[name], -1) for name in first}


def compose_signs(first: Tensors, second: Tensors, then: Tensors) -> dict[str, Tensor]:
    """The signs of what does what one signed permutation does and then what another does.

    Args:
        first: signs of the first, by group.
        second: permutations of the second.
        then: signs of the second.
    """
    return {name: then[name] * s.take_along_dim(second[name], -1) for name, s in first.items()}


def log10_order(spec: PermutationSpec) -> float:
    """Order of the whole group as its decimal logarithm: the product of n!, and of 2^n where signs can change."""
    flips = sum(group.size for group in spec.groups if group.flip)
    return sum(math.lgamma(group.size + 1) for group in spec.groups) / math.log(10) + flips * math.log10(2)
