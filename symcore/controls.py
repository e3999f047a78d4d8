"""Asymmetries that stand beside W-Asymmetry for comparison: small offsets of every parameter, and fixed biases."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from symcore.asymmetry import Asymmetry, fan_in
from symcore.networks.layout import layout
from symcore.randomness import stream
from symcore.treatments import FixedBiases, Syre

OFFSET = 0.01
"""Default standard deviation of an offset, in parts of 1 / sqrt(fan-in) (Ziyin et al. 2025)."""


def offsets(network: nn.Module, treatment: Syre, seed: int) -> Asymmetry:
    """The F ~ N(0, std^2) of syre for every parameter, with D = 1 everywhere (Ziyin et al. 2025), for one mask seed."""
    fixed = {}
    for index, (name, parameter) in enumerate(network.named_parameters()):
        shape = tuple(parameter.shape)
        inputs = fan_in(shape) if len(shape) > 1 else len(parameter)
        std = OFFSET * inputs**-0.5 if treatment.std is None else treatment.std
        fixed[name] = torch.from_numpy(stream(seed, "offset", index).standard_normal(shape) * std).float()
    trainable = {name: torch.ones_like(f, dtype=torch.bool) for name, f in fixed.items()}
    return Asymmetry(trainable, fixed)


def fixed_biases(network: nn.Module, treatment: FixedBiases, seed: int) -> Asymmetry:
    """Hidden biases held at U[-bound, bound] (Lim et al. 2024, appendix E.3) for one mask seed.

    Raises:
        ValueError: if the network has no hidden biases.
    """
    fixed: dict[str, Tensor] = {}
    for index, (name, bias) in enumerate(hidden_biases(network).items()):
        drawn = stream(seed, "bias", index).uniform(-treatment.bound, treatment.bound, len(bias))
        fixed[name] = torch.from_numpy(drawn).float()
    trainable = {name: torch.zeros_like(f, dtype=torch.bool) for name, f in fixed.items()}
    return Asymmetry(trainable, fixed)


def hidden_biases(network: nn.Module) -> dict[str, nn.Parameter]:
    """The bias of each layer but the last, [out] each; that of the norm after it where it has none, or BatchNorm takes it out.

    Raises:
        ValueError: if there is none.
    """
    found = {name: network.get_parameter(name) for name in layout(network).biases}
    if not found:
        msg = (
            f"bound: {type(network).__name__} has no hidden biases; accepted: a network with biases or norms"
        )
        raise ValueError(msg)
    return found
