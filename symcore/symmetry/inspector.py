"""Measured symmetry: how far a network's outputs move when its weights are transformed as a symmetry would transform them.

A transformation acts on the weights that the network computes with. What is fixed of them stays as it is: W-Asymmetric
constants are put back in their places, which gives the nearest network of the family, offsets are left out and added
again, and FiGLU's F is no weight. So a
network has a symmetry where the change is the rounding of float64, and has lost it where the change is of order 1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from symcore.asymmetry import Parameters
from symcore.metrics import Array
from symcore.networks.batchnorm import BatchNorm
from symcore.population import Population, call_one
from symcore.randomness import stream
from symcore.symmetry import permutations
from symcore.symmetry.automorphisms import neurons, of_parameters
from symcore.symmetry.permutations import PermutationSpec

EPSILON = float(np.finfo(np.float64).eps)
"""The rounding of float64: changes of this order are none."""
SCALES = (2.0, 4.0)
"""The factor of a scaling or rescaling lies between these, or it is 1 over such a number."""

TRANSFORMATIONS = ("swap", "permutation", "sign", "rescale", "scale", "shift")
"""Names of the transformations, explained at `transformations`."""

Transformation = Callable[[Parameters, np.random.Generator], Parameters]


@dataclass(frozen=True)
class Normalised:
    """A linear map or convolution whose output a norm takes at once."""

    name: str
    biased: bool
    centred: bool
    """Whether the norm takes away the mean over the map's outputs, as LayerNorm does after a linear map."""


def normalised(network: nn.Module, example_input: Tensor) -> list[Normalised]:
    """The maps that feed a norm and are modules themselves, in the order in which they run.

    Norms are LayerNorm, GroupNorm, RMSNorm and our own BatchNorm, whose statistics always are those of what comes in; torch's
    is none: in evaluation mode it divides by what it has stored.
    """
    made: dict[int, tuple[str, nn.Module, Tensor]] = {}
    found: dict[str, Normalised] = {}

    def made_by(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm | BatchNorm):
                source, feeding, _ = made.get(id(inputs[0]), ("", module, output))
                if source:
                    centred = isinstance(module, nn.LayerNorm) and isinstance(feeding, nn.Linear)
                    found.setdefault(source, Normalised(source, feeding.bias is not None, centred))
            else:
                made[id(output)] = name, module, output  # the output is kept, so that no other gets its id

        return hook

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, BatchNorm)
    hooks = [
        module.register_forward_hook(made_by(name))
        for name, module in network.named_modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        network(example_input)
    for hook in hooks:
        hook.remove()
    return list(found.values())


@dataclass(frozen=True)
class Rescaled:
    """Neurons whose weights can be rescaled: what goes into a neuron times a factor, what comes out of it by the same."""

    size: int
    incoming: tuple[tuple[str, int], ...]
    """(parameter, axis) with the neurons of the maps and norms that make them, axis 0 in torch's layout."""
    outgoing: tuple[tuple[str, int], ...]
    """Those of the maps that read them."""


def rescaled(spec: PermutationSpec, layers: list[Normalised]) -> list[Rescaled]:
    """What can be rescaled of every group of neurons that has weights on both sides.

    A map before a norm stays as it is, since the norm would take its scale away: the norm's own scale and shift are what
    goes into the neuron. Of a gated cell, it is the candidate, whose sign can change too; the gates keep their size.
    """
    before = {f"{layer.name}.{leaf}" for layer in layers for leaf in ("weight", "bias")}
    found = []
    for group in spec.groups:
        axes = group.flip or group.axes
        incoming = tuple((name, axis) for name, axis in axes if axis == 0 and name not in before)
        outgoing = tuple((name, axis) for name, axis in axes if axis > 0)
        if incoming and outgoing:
            found.append(Rescaled(group.size, incoming, outgoing))
    return found


def transformations(spec: PermutationSpec, layers: list[Normalised]) -> dict[str, Transformation]:
    """What is tried, by name; what a network offers no place for is left out.

    - "swap": two neurons of one group change places.
    - "permutation": the neurons of every group are permuted at random.
    - "sign": every neuron that can change its sign, as before tanh, does so or not, at random.
    - "rescale": what goes into a neuron is multiplied by a factor, what comes out divided by it, each neuron by its own.
    - "scale": all weights and biases of a map before a norm are multiplied by one factor.
    - "shift": one row vector is added to all rows of a linear map before a LayerNorm.
    """
    centred = [layer for layer in layers if layer.centred]
    flipping = [group for group in spec.groups if group.flip]
    places = rescaled(spec, layers)
    possible: tuple[tuple[object, Transformation], ...] = (
        (spec.groups, lambda weights, random: _swap(weights, spec, random)),
        (spec.groups, lambda weights, random: _permute(weights, spec, random)),
        (flipping, lambda weights, random: _sign(weights, spec, random)),
        (places, lambda weights, random: _rescale(weights, places, random)),
        (layers, lambda weights, random: _scale(weights, layers, random)),
        (centred, lambda weights, random: _shift(weights, centred, random)),
    )
    return {
        name: transform for name, (where, transform) in zip(TRANSFORMATIONS, possible, strict=True) if where
    }


def _swap(weights: Parameters, spec: PermutationSpec, random: np.random.Generator) -> Parameters:
    group = spec.groups[random.integers(len(spec.groups))]
    chosen = permutations.identity(spec)
    pair = torch.from_numpy(random.choice(group.size, 2, replace=False))
    chosen[group.name][pair] = pair.flip(0)
    return permutations.permute(weights, spec, chosen)


def _permute(weights: Parameters, spec: PermutationSpec, random: np.random.Generator) -> Parameters:
    return permutations.permute(weights, spec, permutations.random(spec, random))


def _sign(weights: Parameters, spec: PermutationSpec, random: np.random.Generator) -> Parameters:
    signs = permutations.random_signs(spec, random)
    return permutations.permute(weights, spec, permutations.identity(spec), signs)


def _rescale(weights: Parameters, places: list[Rescaled], random: np.random.Generator) -> Parameters:
    moved = dict(weights)
    for place in places:
        factors = torch.from_numpy(
            random.uniform(*SCALES, place.size) ** random.choice([-1, 1], size=place.size)
        )
        for name, axis in place.incoming:
            moved[name] = permutations.flip_axis(moved[name], axis, factors)
        for name, axis in place.outgoing:
            moved[name] = permutations.flip_axis(moved[name], axis, 1 / factors)
    return moved


def _scale(weights: Parameters, layers: list[Normalised], random: np.random.Generator) -> Parameters:
    layer = layers[random.integers(len(layers))]
    factor = random.uniform(*SCALES) ** random.choice([-1, 1])
    names = [f"{layer.name}.weight"] + [f"{layer.name}.bias"] * layer.biased
    return weights | {name: factor * weights[name] for name in names}


def _shift(weights: Parameters, layers: list[Normalised], random: np.random.Generator) -> Parameters:
    name = f"{layers[random.integers(len(layers))].name}.weight"
    weight = weights[name]
    row = torch.from_numpy(random.standard_normal(weight.shape[1])) * weight.square().mean().sqrt()
    return weights | {name: weight + row}


def changes(
    population: Population,
    *,
    draws: int,
    probes: int,
    seed: int,
    on_draw: Callable[[], None] = lambda: None,
) -> dict[str, Array]:
    """Relative change of the outputs under random transformations, ||f'(x) - f(x)|| / ||f(x)||, on the CPU in float64.

    Args:
        population: one network; it need not be trained.
        draws: random transformations of each kind.
        probes: normal inputs that the outputs are compared on.
        seed: of the inputs and the transformations.
        on_draw: called after each transformation.

    Returns:
        By name of the transformation, [draw].

    Raises:
        ValueError: if the population has several networks.
    """
    if population.size != 1:
        msg = f"population: got {population.size} networks; accepted: one"
        raise ValueError(msg)
    example = torch.zeros(2, *population.design.input_shape)
    network = copy.deepcopy(population.network).cpu().eval()
    spec = of_parameters(neurons(network, example), network)
    tried = transformations(spec, normalised(network, example))
    one = _in_float64(replace(population, network=network))
    x = torch.from_numpy(
        stream(seed, "inspect.probe").standard_normal((probes, *population.design.input_shape))
    )
    weights = _free(one)
    before = call_one(one.network, _restored(one, weights), one.buffers, x)
    found = {name: np.empty(draws) for name in tried}
    for name, transform in tried.items():
        for draw in range(draws):
            moved = _restored(one, transform(weights, stream(seed, f"inspect.{name}", draw)))
            after = call_one(one.network, moved, one.buffers, x)
            found[name][draw] = float((after - before).norm() / before.norm())
            on_draw()
    return found


def _in_float64(population: Population) -> Population:
    def double(values: Mapping[str, Tensor]) -> Parameters:
        return {name: v.double() if v.is_floating_point() else v for name, v in values.items()}

    population = population.to("cpu")
    fixed = population.asymmetry
    return replace(
        population,
        network=population.network.double(),
        parameters=double(population.parameters),
        buffers=double(population.buffers),
        asymmetry=replace(fixed, fixed=double(fixed.fixed)) if fixed else None,
    )


def _free(population: Population) -> Parameters:
    """What a transformation acts on, [*shape]: the weights of the only network, less the offsets of those that have one."""
    fixed = population.asymmetry
    offsets = {} if fixed is None else fixed.offsets()
    return {
        name: (w - offsets[name] if name in offsets else w)[0] for name, w in population.effective().items()
    }


def _restored(population: Population, weights: Parameters) -> Parameters:
    """The weights with everything that is fixed back in its place."""
    return weights if population.asymmetry is None else population.asymmetry.apply(weights)
