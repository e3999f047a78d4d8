"""What can be said of networks before they exist: whether data and treatment fit them, what they compute and hold.

Networks are built on torch's "meta" device, which has shapes and no data; no file of a data set is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from pydantic import ValidationError
from pydantic_core import InitErrorDetails
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from jobs.specs import refusal
from symcore import asymmetry
from symcore.align.repair import check_maps
from symcore.controls import hidden_biases
from symcore.data.sources import SOURCES
from symcore.figlu import activations
from symcore.metrics import rows_at_once
from symcore.networks.gnn import GNN
from symcore.networks.layout import layout
from symcore.networks.registered import RegisteredSpec
from symcore.networks.registry import NetworkSpec
from symcore.networks.shapes import layers, output_shapes
from symcore.population import Design, build
from symcore.settings import Settings
from symcore.treatments import FixedBiases, Gates, Masks, Treatment


def field_error(model: type[Settings], at: tuple[str, ...], value: object, message: str) -> ValidationError:
    """A validation error that points at one field, for checks that compare several."""
    detail = InitErrorDetails(type=refusal(message), loc=at, input=value)
    return ValidationError.from_exception_data(model.__name__, [detail])


@lru_cache(maxsize=64)
def blueprint(network: NetworkSpec, data: str) -> nn.Module:
    """The network for a data set, with shapes and no values."""
    source = SOURCES[data]
    with torch.device("meta"):
        return network.build(source.input_shape, source.classes)


def weight_matrices(network: NetworkSpec, data: str) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's weight matrices and convolutions by name, in order."""
    return asymmetry.weight_matrices(blueprint(network, data))


def masked_layers(network: NetworkSpec, data: str, treatment: Masks) -> list[asymmetry.MaskedLayer]:
    """What a treatment fixes of each of them.

    Raises:
        ValueError: if its settings do not fit the network.
    """
    recurrent = layout(blueprint(network, data)).recurrent
    return asymmetry.layers(weight_matrices(network, data), treatment, recurrent)


def check_network(model: type[Settings], network: NetworkSpec, data: str) -> None:
    """Makes sure that a network can read a data set.

    Raises:
        ValidationError: pointing at the kind of the network, with what it reads.
    """
    try:
        blueprint(network, data)
    except ValueError as error:
        raise field_error(model, ("network", "kind"), network.kind, f"{error}, from {data}") from error


def check_treatment(
    model: type[Settings], at: tuple[str, ...], network: NetworkSpec, data: str, treatment: Treatment
) -> None:
    """Makes sure that the network fits the data set, and the treatment's settings the network.

    Args:
        model: the model being validated, for the error's title.
        at: where the treatment stands in it.
        network: the network it is done to.
        data: name of the data set, whose image size is the first fan-in.
        treatment: the settings to check.

    Raises:
        ValidationError: pointing at the network's or the treatment's field, with what is accepted.
    """
    if isinstance(network, RegisteredSpec):
        network = network.pinned()
        try:
            _check_own(network, data, treatment)
        except ValueError as error:
            raise field_error(model, ("network",), network.name, str(error)) from error
    check_network(model, network, data)
    if isinstance(treatment, Gates) and not activations(blueprint(network, data)):
        msg = (
            f"{treatment.kind} replaces activations, and the network has none; accepted: one with activations"
        )
        raise field_error(model, at, treatment.kind, msg)
    try:
        match treatment:
            case Masks():
                masked_layers(network, data, treatment)
            case FixedBiases():
                hidden_biases(blueprint(network, data))
            case _:
                return
    except ValueError as error:
        name = str(error).partition(":")[0]
        raise field_error(model, (*at, name), getattr(treatment, name, None), str(error)) from error


def check_repair(model: type[Settings], at: tuple[str, ...], network: NetworkSpec, data: str) -> None:
    """Makes sure that REPAIR can correct what the network's hidden maps put out.

    Raises:
        ValidationError: pointing at the field `at` that asks for it, with what is accepted.
    """
    if isinstance(network, RegisteredSpec):
        network = network.pinned()
    try:
        check_maps(blueprint(network, data))
    except ValueError as error:
        raise field_error(model, at, network.kind, str(error)) from error


@lru_cache(maxsize=64)
def _check_own(network: RegisteredSpec, data: str, treatment: Treatment) -> None:
    """Builds a person's own network, also with FiGLU: its activations may be functions, or shared by layers.

    Raises:
        ValueError: saying what is wrong with it.
    """
    module, source = blueprint(network, data), SOURCES[data]
    if source.nodes and not isinstance(module, GNN):
        msg = (
            f"network {network.name!r}: it would never be given the edges of {data}; accepted: a build function that "
            "returns a symcore.networks.gnn.GNN, a network of kind gnn, or images"
        )
        raise ValueError(msg)
    if not isinstance(treatment, Gates):
        return
    try:
        build(Design(network, treatment, source.input_shape, source.classes, seeds=(0,)))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        msg = (
            f"network {network.name!r}: it cannot be called with FiGLU for activations ({reason}); accepted: an "
            "activation module of its own for each layer"
        )
        raise ValueError(msg) from error


@dataclass(frozen=True)
class Size:
    """What one network is, per network and per image."""

    parameters: int
    activations: int
    """Numbers that the layers put out for one image."""
    largest: int
    """Those of the layer that puts out most."""
    forward_flop: int
    """Floating point operations of the matrix products for one image."""


@lru_cache(maxsize=64)
def size(network: NetworkSpec, data: str) -> Size:
    """Counts parameters, activations and operations of one network on one image, or node without neighbours."""
    module = blueprint(network, data)
    image = torch.zeros(1, *SOURCES[data].input_shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        outputs = [shape.numel() for shape in output_shapes(module, layers(module), image).values()]
    parameters = sum(p.numel() for p in module.parameters())
    return Size(parameters, sum(outputs), max(outputs), counter.get_total_flops())


def rows_together(network: NetworkSpec, data: str) -> int:
    """Networks times images, or nodes, that a CPU evaluates together: of a graph at least all nodes."""
    return max(rows_at_once("cpu", size(network, data).largest), SOURCES[data].nodes)
