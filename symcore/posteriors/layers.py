"""Which weights of a network are random together, and layers whose noise is drawn at their outputs, afresh for each example.

Kingma et al. (2015), "Variational Dropout and the Local Reparameterization Trick": a sum of many random weights is one
random number, so an output's own noise stands for that of all the weights that it reads, and examples do not share it.
That needs a layer that is passed once; where a weight is used again, as at each step of a recurrent network, all its
uses must agree, and the weight itself is drawn, once for the whole minibatch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

LAYERS: tuple[Callable[..., Tensor], ...] = (F.linear, F.conv1d, F.conv2d, F.conv3d)
"""What takes inputs [example, ...], weights and biases, and is linear in each."""


class Passage(NamedTuple):
    """A layer as it is called: its inputs, its parameters, and the function of all three."""

    inputs: Tensor
    weight: Tensor
    bias: Tensor | None
    apply: Callable[[Tensor, Tensor, Tensor | None], Tensor]

    @property
    def parameters(self) -> list[Tensor]:
        """Weight and, if there is one, bias."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]


Rule = Callable[[Passage], Tensor]
"""What a layer gives in place of its own outputs."""


@dataclass(frozen=True)
class Group:
    """Parameters that are random together; those of norms, in no group, are not."""

    names: tuple[str, ...]
    """Of one layer its weight and, if it has one, its bias; else of one module."""
    once: bool
    """Whether they are those of a layer that each example passes once."""
    scale: int
    """Outputs of a linear layer, input channels of a convolution: what a prior's variance is divided by."""


def groups(network: nn.Module, inputs: Tensor) -> list[Group]:
    """The groups of a network: all parameters of modules that own a matrix or filters, in their order.

    Args:
        network: as people write it.
        inputs: some that it accepts, [example, *input_shape].
    """
    named = dict(network.named_parameters())
    owners = {name: name.rpartition(".")[0] for name in named}
    random = {owners[name] for name, parameter in named.items() if parameter.ndim > 1}
    once = _passed_once(network, inputs)
    taken = {name for layer in once for name in layer}
    again: dict[str, list[str]] = {}
    for name, owner in owners.items():
        if owner in random and name not in taken:
            again.setdefault(owner, []).append(name)
    found = [*((names, True) for names in once), *((tuple(names), False) for names in again.values())]
    order = list(named)
    return [
        Group(names, alone, _scale([named[name] for name in names]))
        for names, alone in sorted(found, key=lambda group: min(map(order.index, group[0])))
    ]


def _scale(parameters: list[Tensor]) -> int:
    largest = max(parameters, key=lambda parameter: parameter.ndim)
    return int(largest.shape[1 if largest.ndim > 2 else 0])


def _passed_once(network: nn.Module, inputs: Tensor) -> list[tuple[str, ...]]:
    """Names of weight and bias of each layer that is passed once, and whose parameters nothing else reads."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    with _Record(set(names)) as record, torch.no_grad():
        network(inputs)
    return [
        tuple(names[parameter] for parameter in layer)
        for layer in record.layers
        if all(record.reads[parameter] == 1 for parameter in layer)
    ]


def _passage(func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Passage:
    """A layer's call, however its arguments were given."""
    named = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    inputs, weight, bias = (named.pop(name, None) for name in ("input", "weight", "bias"))
    rest = args[3:]

    def apply(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return func(inputs, weight, bias, *rest, **named)

    return Passage(inputs, weight, bias, apply)


def _is_layer(func: object) -> bool:
    return any(func is layer for layer in LAYERS)


class _Record(TorchFunctionMode):
    """Writes down which operations read which parameters, by identity."""

    def __init__(self, parameters: set[int]) -> None:
        super().__init__()
        self._parameters = parameters
        self.reads: Counter[int] = Counter()
        self.layers: list[tuple[int, ...]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - what any operation gives
        given = dict(kwargs or {})
        result = func(*args, **given)
        if isinstance(result, Tensor):  # and not a shape, say
            values = (id(value) for value in (*args, *given.values()))
            self.reads.update(value for value in values if value in self._parameters)
        if _is_layer(func):
            passage = _passage(func, args, given)
            layer = tuple(map(id, passage.parameters))
            mixes_all = passage.weight.shape[1] == passage.inputs.shape[1] or func is F.linear
            if mixes_all and self._parameters.issuperset(layer):
                self.layers.append(layer)
        return result


class Instead(TorchFunctionMode):
    """Within it, layers with certain weights give something else."""

    def __init__(self, rules: Mapping[int, Rule]) -> None:
        """Takes what to give, by the identity of a layer's weight."""
        super().__init__()
        self._rules = rules

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - what any operation gives
        given = dict(kwargs or {})
        if _is_layer(func):
            passage = _passage(func, args, given)
            rule = self._rules.get(id(passage.weight))
            if rule is not None:
                return rule(passage)
        return func(*args, **given)
