"""What the neurons of each group put out: a network's graph, cut where each group's neurons show last.

In an MLP that is the activation that the next layer reads, in a residual network the end of a stage's stream.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, InputSpec
from torch.func import vmap

from symcore.symmetry.permutations import PermutationSpec, Traced, groups, trace

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Features:
    """Gives each group's features for many networks on the same inputs."""

    spec: PermutationSpec
    _module: fx.GraphModule
    _inputs: tuple[InputSpec, ...]
    _constants: Mapping[str, Tensor]
    _places: tuple[int, ...]
    """Where the neuron axis stands in each group's node."""

    def __call__(self, weights: Tensors, buffers: Tensors, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Features of every network, by group, [pair, row, n]: a row for each image, or each place of its feature maps.

        Args:
            weights: that the networks compute with, by name, [pair, *shape].
            buffers: the module's, shared by all.
            inputs: the network's arguments, [batch, ...], in the size of the example that the graph was made from.
        """
        given = iter(inputs)
        arguments = [
            next(given)
            if spec.kind is InputKind.USER_INPUT
            else self._held(spec, weights, buffers, inputs[0].device)
            for spec in self._inputs
        ]
        in_dims = tuple(0 if spec.kind is InputKind.PARAMETER else None for spec in self._inputs)
        many: Callable[..., tuple[Tensor, ...]] = vmap(self._module, in_dims=in_dims)
        found = many(*arguments)
        return {
            group.name: out.movedim(place + 1, -1).flatten(1, -2)
            for group, out, place in zip(self.spec.groups, found, self._places, strict=True)
        }

    def _held(self, spec: InputSpec, weights: Tensors, buffers: Tensors, device: torch.device) -> Tensor:
        target = str(spec.target)
        if spec.kind is InputKind.PARAMETER:
            return weights[target]
        return buffers[target] if target in buffers else self._constants[target].to(device)


def features(network: nn.Module, example_input: Tensor | tuple[Tensor, ...]) -> Features:
    """Cuts a network's graph where each group's neurons show last before another group takes over.

    Args:
        network: an ordinary module; it is left as it is.
        example_input: its argument, or a tuple of its arguments, in the size of the batches to come.

    Raises:
        DerivationError: if the network's permutations cannot be derived.
    """
    traced = trace(network, example_input)
    spec = groups(traced)
    shown = {group.name: _last(traced, *group.axes[0]) for group in spec.groups}
    module = copy.deepcopy(traced.program.graph_module)
    nodes = {node.name: node for node in module.graph.nodes}
    output = module.graph.output_node()
    output.args = (tuple(nodes[node.name] for node, _ in shown.values()),)
    module.graph.eliminate_dead_code()
    module.recompile()
    signature = traced.program.graph_signature
    constants = {name: c for name, c in traced.program.constants.items() if isinstance(c, Tensor)}
    return Features(
        spec, module, tuple(signature.input_specs), constants, tuple(place for _, place in shown.values())
    )


def _last(traced: Traced, parameter: str, axis: int) -> tuple[fx.Node, int]:
    """The last node computed from an input on which a group of neurons lies, and on which of its axes."""
    wanted = traced.axes.name(traced.axes.neurons(traced.parameters[parameter][axis]))
    found = [
        (node, place)
        for node, its_axes in traced.nodes.items()
        for place, one in enumerate(its_axes)
        if node in traced.from_inputs and traced.axes.name(one) == wanted
    ]
    return found[-1]
