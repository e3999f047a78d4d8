"""Gradients of many networks in one program: each member's loss on its own minibatch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap

from symcore.asymmetry import Parameters
from symcore.interleaved.lowering import InterleavedNetwork, channels_second
from symcore.metrics import cross_entropy
from symcore.networks.gnn import neighbours
from symcore.population import call_one
from symcore.program import Program
from symcore.propagation import Graph


class Product(NamedTuple):
    """A linear layer's gradient that is not yet multiplied out: left^T right, [member, row, column]."""

    left: Tensor
    """Gradients of the layer's outputs, [member, batch, row]."""
    right: Tensor
    """The layer's inputs, [member, batch, column]."""


def mean_loss(logits: Tensor, labels: Tensor, graph: Graph | tuple[()] = ()) -> Tensor:
    """Mean negative log-likelihood of one network in nats, []; on a graph over nodes whose label is not negative."""
    losses = cross_entropy(logits, labels)
    return losses.sum() / (labels >= 0).sum() if graph else losses.mean()


def gradient_program(
    network: nn.Module,
    names: Sequence[str],
    *,
    stacked_buffers: bool,
    as_products: Collection[str] = (),
    graph: Graph | tuple[()] = (),
) -> Program:
    """A program over [*weights, *buffers, x, y] that gives (mean loss [member], *gradients [member, *shape]).

    Weights are effective ones, [member, *shape] in the order of `names`; x is [member, batch, *input_shape], y
    [member, batch]. On a graph all members see the same, x [node, feature] and y [node], and the mean is over nodes
    whose label is not negative. A gradient of `as_products` comes as the two parts of a Product, if it is one.
    """
    buffer_names = [name for name, _ in network.named_buffers()]
    edges = neighbours(network, graph)

    def loss(parameters: Parameters, buffers: Parameters, x: Tensor, y: Tensor) -> Tensor:
        return mean_loss(call_one(network, parameters, buffers, x, *edges), y, graph)

    data = None if graph else 0
    many = vmap(grad_and_value(loss), in_dims=(0, 0 if stacked_buffers else None, data, data))

    def flat(tensors: list[Tensor]) -> tuple[Tensor, ...]:
        parameters = dict(zip(names, tensors[: len(names)], strict=True))
        buffers = dict(zip(buffer_names, tensors[len(names) : -2], strict=True))
        gradients, losses = many(parameters, buffers, tensors[-2], tensors[-1])
        return losses, *(gradients[name] for name in names)

    return Program(flat, as_products=[1 + names.index(name) for name in as_products])


def interleaved_gradient_program(
    network: InterleavedNetwork, names: Sequence[str], buffer_names: Sequence[str]
) -> Program:
    """The same program as `gradient_program` over the network's `leaves` and `maps`, for members that compute together.

    Gradients come in the shape of the weights; `leaves` that are rounded have rounded ones.
    """
    given = [*names, *buffer_names]

    def flat(tensors: list[Tensor]) -> tuple[Tensor, ...]:
        *held, maps, y = tensors
        leaves = [leaf.detach().requires_grad_() for leaf in held[: len(names)]]
        with torch.enable_grad():
            weights = map(channels_second, leaves)
            values = dict(zip(given, [*weights, *held[len(names) :]], strict=True))
            losses = cross_entropy(network.of_maps(values, maps), y).mean(-1)
            gradients = torch.autograd.grad(losses.sum(), leaves)
        return losses.detach(), *map(channels_second, gradients)

    return Program(flat)
