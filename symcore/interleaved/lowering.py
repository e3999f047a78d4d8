"""A plain module as a program over interleaved maps: its exported graph, walked with the population's operations.

The network's definition stays the module that a reader knows. What is known here: convolutions, normalisation over all
channels, ReLU, gates, sums, the mean over positions and linear layers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.func import functional_call
from torch.nn.functional import pad

from symcore.interleaved.operations import convolve, gate, normalise

aten = torch.ops.aten


@dataclass(frozen=True)
class _Normal:
    """A normalisation that is not computed yet: a sum and a ReLU right after it become part of it."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    epsilon: float
    residual: Tensor | None = None
    relu: bool = False

    def computed(self, uses: int = 1) -> tuple[Tensor, ...]:
        x, weight, bias = self.x, self.weight, self.bias
        return normalise(x, weight, bias, self.residual, relu=self.relu, epsilon=self.epsilon, uses=uses)


@dataclass(frozen=True)
class _Gated:
    """FiGLU that is not computed yet: how often its result is used is not known here."""

    x: Tensor
    mixing: Tensor

    def computed(self, uses: int = 1) -> tuple[Tensor, ...]:
        return gate(self.x, self.mixing, uses=uses)


Value = Tensor | _Normal | _Gated


def _tensor(value: Value) -> Tensor:
    return value if isinstance(value, Tensor) else value.computed()[0]


def _for_each_use(value: Value, uses: int) -> list[Value]:
    """What each use of a result takes; one whose use is the only one may become part of that."""
    if uses == 1:
        return [value]
    if uses == 2 and not isinstance(value, Tensor):
        return list(value.computed(2))
    return [_tensor(value)] * uses


class UnknownError(Exception):
    """A network has an operation that has no interleaved form."""


WIDEST = 64
"""Channels up to which networks are interleaved; cuDNN takes groups of more channels one by one."""

RULES: dict[Any, Callable[..., Value]] = {}
"""What each ATen operation does with interleaved values."""


def _rule(target: Any) -> Callable[[Callable[..., Value]], Callable[..., Value]]:  # noqa: ANN401
    def register(function: Callable[..., Value]) -> Callable[..., Value]:
        RULES[target] = function
        return function

    return register


def _alike(values: list[int]) -> int:
    if len(set(values)) > 1:
        msg = str(values)
        raise UnknownError(msg)
    return values[0]


@_rule(aten.conv2d.default)
def _conv2d(
    x: Value,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, ...] = (1, 1),
    padding: tuple[int, ...] = (0, 0),
    dilation: tuple[int, ...] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Filters [member, out, in, k, k]."""
    step, around, size = _alike(list(stride)), _alike(list(padding)), weight.shape[-1]
    if bias is not None or groups != 1 or _alike(list(dilation)) != 1 or around != size // 2 or size % 2 == 0:
        msg = f"convolution of size {size}, padding {around}, {groups} groups"
        raise UnknownError(msg)
    maps = _tensor(x)
    if maps.shape[-1] > weight.shape[-3]:  # images that were padded
        weight = pad(weight, (0, 0, 0, 0, 0, maps.shape[-1] - weight.shape[-3]))
    return convolve(maps, weight, step)


def _figlu(x: Value, mixing: Tensor) -> Value:
    """F [channel, channel, 1, 1] for all members, or [member, channel, channel, 1, 1]."""
    maps = _tensor(x)
    if mixing.ndim == 5:
        return convolve(maps, mixing).sigmoid() * maps
    return _Gated(maps, mixing[:, :, 0, 0])


RULES[_figlu] = _figlu


def _merge_gates(graph: fx.Graph) -> None:
    """sigmoid(F x) * x becomes one operation."""
    for node in list(graph.nodes):
        opened: Any = node.args[0] if node.target is aten.mul.Tensor else None
        if not isinstance(opened, fx.Node) or opened.target is not aten.sigmoid.default:
            continue
        mixed: Any = opened.args[0]
        if mixed.target is aten.conv2d.default and mixed.args[0] is node.args[1] and len(mixed.args) == 2:
            with graph.inserting_before(node):
                gated = graph.call_function(_figlu, mixed.args)
            node.replace_all_uses_with(gated)
    graph.eliminate_dead_code()


@_rule(aten.group_norm.default)
def _group_norm(
    x: Value, groups: int, weight: Tensor, bias: Tensor, epsilon: float = 1e-5, _cudnn: bool = True
) -> Value:
    if groups != 1:
        msg = f"normalisation of {groups} groups"
        raise UnknownError(msg)
    return _Normal(_tensor(x), weight, bias, epsilon)


@_rule(aten.add.Tensor)
def _add(left: Value, right: Value) -> Value:
    normal, other = (left, right) if isinstance(left, _Normal) else (right, left)
    if not isinstance(normal, _Normal) or normal.residual is not None or normal.relu:
        return _tensor(left) + _tensor(right)
    return replace(normal, residual=_tensor(other))


@_rule(aten.relu.default)
def _relu(x: Value) -> Value:
    return replace(x, relu=True) if isinstance(x, _Normal) else _tensor(x).relu()


@_rule(aten.unsqueeze.default)
def _unsqueeze(x: Value, axis: int) -> Value:
    if axis != 1:
        msg = f"unsqueeze of axis {axis}"
        raise UnknownError(msg)
    return x  # a single colour is a channel axis already


@_rule(aten.mean.dim)
def _mean(x: Value, axes: list[int]) -> Tensor:
    if [axis % 4 for axis in axes] != [2, 3]:
        msg = f"mean over axes {axes}"
        raise UnknownError(msg)
    return _tensor(x).float().mean((1, 2))


@_rule(aten.linear.default)
def _linear(x: Value, weight: Tensor, bias: Tensor) -> Tensor:
    """Vectors [image, member, in] -> [image, member, out]."""
    return torch.einsum("bni,noi->bno", _tensor(x), weight) + bias


def channels_second(filters: Tensor) -> Tensor:
    """A leaf, or its gradient, in the shape of the weight: [member, out, k, k, in] -> [member, out, in, k, k]."""
    return filters.movedim(-1, 2) if filters.ndim == 5 else filters


class InterleavedNetwork:
    """A population's forward pass on interleaved maps."""

    def __init__(
        self, network: nn.Module, input_shape: tuple[int, ...], dtype: torch.dtype = torch.bfloat16
    ) -> None:
        """Exports the network's graph.

        Args:
            network: the population's common form.
            input_shape: [row, column] or [channel, row, column].
            dtype: of maps in memory and of factors in convolutions.

        Raises:
            UnknownError: if it has an operation with no interleaved form.
        """
        example = next(network.parameters()).new_zeros(2, *input_shape, device="cpu")
        network = copy.deepcopy(network).cpu()
        exported = torch.export.export(network, (example,), strict=False)
        self.dtype, self.graph = torch.float32, exported.graph
        self._widest = max((len(p) for p in network.parameters() if p.ndim == 4), default=1)
        kinds = {InputKind.PARAMETER, InputKind.BUFFER}
        self._sources = {
            spec.arg.name: spec.target
            for spec in exported.graph_signature.input_specs
            if spec.kind in kinds and spec.target is not None
        }
        _merge_gates(self.graph)
        for node in self.graph.nodes:
            if node.op == "call_function" and (node.target not in RULES or node.kwargs):
                msg = str(node.target)
                raise UnknownError(msg)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            self._prove(network, example.normal_())
        self.dtype = dtype

    def _prove(self, network: nn.Module, example: Tensor) -> None:
        """Compares with the module itself, on random weights: rules cover the uses of an operation that are known here."""
        given = {name: torch.randn_like(p) for name, p in network.named_parameters()}
        buffers = dict(network.named_buffers())
        expected: Tensor = functional_call(network, given | buffers, (example,))
        try:
            found = self({n: p.unsqueeze(0) for n, p in given.items()} | buffers, example.unsqueeze(0))[0]
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            msg = f"an operation is used in another way: {error}"
            raise UnknownError(msg) from error
        if found.shape != expected.shape or not torch.allclose(found, expected, 1e-3, 1e-3):
            msg = "an operation is used in another way: the results differ"
            raise UnknownError(msg)

    @property
    def alone(self) -> bool:
        """Whether members are better computed one after another, for one fills a GPU with its own channels."""
        return self._widest > WIDEST

    def leaves(self, weights: Iterable[Tensor]) -> list[Tensor]:
        """What to differentiate by for weights [member, *shape]: filters [member, out, k, k, in], as they lie in memory.

        Where a library makes all their gradients, they are rounded before, so that nobody turns gradients into float32.
        """
        kind = self.dtype if self.alone else torch.float32
        return [w.movedim(2, -1).to(kind) if w.ndim == 5 else w for w in weights]

    def turns(self, tensors: Sequence[Tensor], shared: range = range(0)) -> list[list[Tensor]]:
        """Tensors [member, ...] of those members that compute together: all at once, or one after another.

        Those at the places `shared` are all members' alike.
        """
        if not self.alone:
            return [list(tensors)]
        members = next(len(t) for place, t in enumerate(tensors) if place not in shared)
        return [
            [t if place in shared else t[m : m + 1] for place, t in enumerate(tensors)]
            for m in range(members)
        ]

    def __call__(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Logits float32 [member, image, class].

        Args:
            tensors: effective weights float32 [member, *shape] and buffers [*shape], by name.
            x: each member's images, [member, image, *input_shape].
        """
        return self.of_maps(tensors, self.maps(x))

    def maps(self, x: Tensor) -> Tensor:
        """Images [member, image, *input_shape] as [member, image, row, column, channel], members innermost in memory.

        Three channels become four, which load as one word.
        """
        maps = (x if x.ndim == 5 else x.unsqueeze(2)).permute(1, 3, 4, 0, 2).to(self.dtype)
        return (pad(maps, (0, 1)) if maps.shape[-1] == 3 else maps.contiguous()).movedim(3, 0)

    def of_maps(self, tensors: Mapping[str, Tensor], maps: Tensor) -> Tensor:
        """A call's result for images that are `maps` already."""
        values: dict[fx.Node, list[Value]] = {}

        def take(node: fx.Node) -> Any:  # noqa: ANN401 - map_arg knows graphs' arguments only
            return values[node].pop()

        for node in self.graph.nodes:
            if node.op == "placeholder":
                name = self._sources.get(node.name)
                value: Value = maps.movedim(0, 3) if name is None else tensors[name]
            elif node.op == "call_function":
                value = RULES[node.target](*fx.node.map_arg(node.args, take))
            else:
                logits = _tensor(take(node.args[0][0]))
                break
            uses = sum(max(1, list(user.args).count(node)) for user in node.users)
            values[node] = _for_each_use(value, uses)
        return logits.transpose(0, 1)


def interleaved_form(network: nn.Module, input_shape: tuple[int, ...]) -> InterleavedNetwork | None:
    """The form in bfloat16 of a network on a GPU; none on a CPU, or where an operation has no interleaved form."""
    if not next(network.parameters()).is_cuda:
        return None
    try:
        return InterleavedNetwork(network, input_shape)
    except UnknownError:
        return None
