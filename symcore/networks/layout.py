"""What stands where in a network: its weights in the order in which data meets them, and the biases that act.

The lab's networks register their layers in that order. A person's own need not, so there it is read off the graph, and
recorded on the module when the lab builds it (`symcore.networks.registered`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from torch import fx, nn

from symcore.networks.batchnorm import BatchNorm
from symcore.networks.recurrent import HIDDEN_MAP
from symcore.symmetry.partition import Axis
from symcore.symmetry.permutations import Traced, operation
from symcore.symmetry.signs import STRUCTURAL

WEIGHTED = {
    "aten.linear",
    *(f"aten.{name}{dimensions}d" for name in ("conv", "conv_transpose") for dimensions in (1, 2, 3)),
}
"""Maps by a weight that the operation calls so."""
PRODUCTS = {"aten.matmul", "aten.mm", "aten.bmm", "aten.addmm", "aten.einsum"}
"""Maps by a weight where one factor comes from parameters and another from the input."""
NORMS = {"aten.layer_norm", "aten.group_norm", "aten.batch_norm"}
PASSING = STRUCTURAL | {"aten.add", "aten.sub", "aten.mean", *(f"aten.max_pool{d}d" for d in (1, 2, 3))}
"""A constant on each channel of an argument is one on each channel of the result."""


@dataclass(frozen=True)
class Layout:
    """Names of a network's parameters by what they are for, in the order in which data meets them."""

    parameters: tuple[str, ...]
    """All of them."""
    maps: tuple[str, ...]
    """Weights of linear maps and convolutions; the last is the readout's. Norms, slopes and learned positions are none."""
    recurrent: tuple[str, ...]
    """Those of the maps that are called again on what they put out, as a map from a hidden state is."""
    biases: tuple[str, ...]
    """Of each map but the readout the bias, or that of the norm behind it where it has none, or BatchNorm takes it out."""


_RECORD = "symcore_layout"


def record(network: nn.Module, found: Layout) -> nn.Module:
    """Keeps on a module what was read off its graph; returns the module."""
    setattr(network, _RECORD, found)
    return network


def layout(network: nn.Module) -> Layout:
    """What is recorded on a network; else that of a network whose layers are registered in the order of its graph."""
    found: Layout | None = vars(network).get(_RECORD)
    return found or _registered(network)


def _registered(network: nn.Module) -> Layout:
    parameters = dict(network.named_parameters())
    maps = tuple(name for name, p in parameters.items() if p.ndim >= 2)
    recurrent = tuple(name for name in maps if name.endswith(HIDDEN_MAP))
    return Layout(tuple(parameters), maps, recurrent, tuple(_registered_biases(network, maps)))


def _registered_biases(network: nn.Module, maps: Iterable[str]) -> list[str]:
    *hidden, readout = [name.rpartition(".")[0] for name in maps]
    found: list[str] = []
    missing, last = False, ""
    for name, module in network.named_modules():
        undone = bool(last) and isinstance(module, BatchNorm)
        if name == readout or not (name in hidden or missing or undone):
            missing, last = False, ""
            continue
        if undone:
            found.remove(last)
        bias = getattr(module, "bias", None)
        missing, last = bias is None, ""
        if isinstance(bias, nn.Parameter):
            found.append(f"{name}.bias")
            last = f"{name}.bias" if name in hidden else ""
    return found


def read(traced: Traced) -> Layout:
    """The layout of a network as its graph shows it."""
    return _Reading(traced).layout()


@dataclass(frozen=True)
class _Reading:
    """Goes through a network's graph and says which parameters are met where."""

    traced: Traced
    _undone: dict[tuple[fx.Node, int], bool] = field(default_factory=dict)

    @cached_property
    def held(self) -> dict[fx.Node, tuple[str, ...]]:
        """The parameters that nodes are computed from which do not depend on the input."""
        found: dict[fx.Node, tuple[str, ...]] = {}
        for node in self.traced.nodes:
            name = self.traced.names[node]
            if name in self.traced.parameters:
                found[node] = (name,)
            elif node not in self.traced.from_inputs:
                sources = (p for source in node.all_input_nodes for p in found.get(source, ()))
                found[node] = tuple(dict.fromkeys(sources))
        return found

    def weights(self, node: fx.Node) -> list[str]:
        """Those by which a node maps its input, with two axes or more; none where it is no map."""
        name = operation(node)
        sources: list[fx.Node] = []
        if name in WEIGHTED:
            sources = self._arguments(node, "weight")
        elif name in PRODUCTS and node in self.traced.from_inputs:
            added = self._arguments(node, "input") if name == "aten.addmm" else []
            sources = [source for source in node.all_input_nodes if source not in added]
        held = (p for source in sources for p in self.held.get(source, ()))
        return [p for p in held if len(self.traced.parameters[p]) >= 2]

    def bias(self, node: fx.Node) -> str | None:
        """The parameter that a map or norm adds, if it is one."""
        given = self._arguments(node, "input" if operation(node) == "aten.addmm" else "bias")
        held = [p for source in given for p in self.held.get(source, ())]
        return held[0] if len(held) == 1 else None

    def _arguments(self, node: fx.Node, name: str) -> list[fx.Node]:
        """The node that is an argument of another, by its name in the ATen schema with `self` called `input`, if one is."""
        call = node.normalized_arguments(self.traced.program.graph_module, normalize_to_only_use_kwargs=True)
        given = call.kwargs.get(name) if call else None
        return [given] if isinstance(given, fx.Node) else []

    def layout(self) -> Layout:
        """All parameters, maps and biases in the order of the graph; parameters that data never meets come last."""
        met: list[str] = []
        maps: list[str] = []
        calls: list[fx.Node] = []
        for node in self.traced.nodes:
            if own := self.weights(node):
                maps += own
                calls.append(node)
            if own or node in self.traced.from_inputs:
                met += [p for source in node.all_input_nodes for p in self.held.get(source, ())]
        hidden = [node for node in calls if maps[-1] not in self.weights(node)]
        biases = [bias for node in hidden if (bias := self._acting(node))]
        parameters, again = [*met, *self.traced.parameters], self._called_again()
        recurrent = [name for name in maps if name in again]
        return Layout(*(tuple(dict.fromkeys(names)) for names in (parameters, maps, recurrent, biases)))

    def _called_again(self) -> set[str]:
        """Weights that map what depends on what they have mapped before."""
        behind: dict[fx.Node, set[str]] = {}
        found: set[str] = set()
        for node in self.traced.nodes:
            before = set[str]().union(*(behind.get(source, ()) for source in node.all_input_nodes))
            own = self.weights(node)
            found |= before & set(own)
            behind[node] = before | set(own)
        return found

    def _acting(self, node: fx.Node) -> str | None:
        """The bias of a map, or of the norm behind it."""
        bias = self.bias(node)
        if bias is None or self._is_undone(node, self.traced.parameters[bias][0]):
            return self._behind(node)
        return bias

    def _is_undone(self, node: fx.Node, channel: Axis) -> bool:
        """Whether BatchNorm takes a constant on each channel out again, wherever it goes."""
        key = node, channel.number
        if key not in self._undone:
            self._undone[key] = bool(node.users) and all(
                self._neurons(self.traced.nodes[user][1]) == self._neurons(channel)
                if operation(user) == "aten.batch_norm"
                else operation(user).rstrip("_") in PASSING and self._is_undone(user, channel)
                for user in node.users
            )
        return self._undone[key]

    def _neurons(self, axis: Axis) -> int:
        return self.traced.axes.name(self.traced.axes.neurons(axis))

    def _behind(self, node: fx.Node) -> str | None:
        """The bias of the first norm that is reached without another map between."""
        reached, left = {node}, [node]
        norms: set[fx.Node] = set()
        while left:
            for user in left.pop().users.keys() - reached:
                reached.add(user)
                if operation(user) in NORMS and self.bias(user):
                    norms.add(user)
                elif not self.weights(user):
                    left.append(user)
        return next((self.bias(found) for found in self.traced.nodes if found in norms), None)
