"""Monte-Carlo dropout: networks trained with dropout are draws from what is believed.

Gal and Ghahramani (2016a), "Dropout as a Bayesian Approximation"; for recurrent networks (2016b), "A Theoretically Grounded
Application of Dropout in Recurrent Neural Networks". What is dropped are inputs of layers, so that with z of zeros and ones
and a rate p a layer computes with W diag(z) / (1 - p).

A weight that a treatment fixes is dropped with the others that read its input, for it is the input that is missing; F itself
stays as it is. Biases are not dropped, nor are weights that no layer of `LAYERS` reads: norms, embeddings, and what a
network multiplies itself, whose inputs are unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call, vmap

from symcore.asymmetry import Parameters
from symcore.data.sources import Dataset
from symcore.population import Population
from symcore.posteriors import noise
from symcore.posteriors.layers import Group, Instead, Passage, Rule
from symcore.posteriors.method import MethodSpec
from symcore.posteriors.noisy import NoisyTrainer
from symcore.precision import Precision
from symcore.training import TrainingSpec


class DropoutSpec(MethodSpec):
    """Inputs of each layer after the first are dropped at random, in training and in each draw; of convolutions whole channels are."""

    label: ClassVar[str] = "MC dropout"

    kind: Literal["dropout"] = "dropout"
    rate: float = Field(default=0.1, ge=0, lt=1)
    """Probability that an input of a layer is dropped, p; those that are kept count 1 / (1 - p) times."""
    image_rate: float = Field(default=0.0, ge=0, lt=1)
    """The same of an input of the layers that read the image, a pixel or a colour."""


def kept(uniform: Tensor, rate: float) -> Tensor:
    """0 of what is dropped and 1 / (1 - rate) of what is not, from uniform numbers in (0, 1], of the same shape."""
    return (uniform > rate) / (1 - rate)


@dataclass(frozen=True)
class Inputs:
    """The inputs of a layer, by the name of its weight."""

    weight: str
    once: bool
    """Whether each example passes the layer once."""
    splits: int
    """Groups of channels that a convolution takes apart."""
    from_image: bool
    """Whether they come from the image through no other layer."""


def inputs_of(network: nn.Module, groups: Sequence[Group], example: Tensor) -> list[Inputs]:
    """The inputs of all layers, in the order of the groups.

    Args:
        network: as people write it.
        groups: of its parameters.
        example: what it accepts, [example, *input_shape].
    """
    parameters = dict(network.named_parameters())
    names = {name: group.once for group in groups for name in group.names}
    # an input comes from the image alone where no gradient reaches another layer's weights
    values = {name: parameters[name].detach().requires_grad_() for name in names}
    passages: dict[str, list[Passage]] = {}

    def note(name: str, passage: Passage) -> Tensor:
        passages.setdefault(name, []).append(passage)
        return passage.apply(passage.inputs, passage.weight, passage.bias)

    rules = {id(value): partial(note, name) for name, value in values.items()}
    with torch.enable_grad(), Instead(rules):
        functional_call(network, values, (example,))
    return [
        Inputs(
            name,
            once,
            splits=1 if weight.ndim == 2 else seen[0].inputs.shape[1] // weight.shape[1],
            from_image=not any(passage.inputs.requires_grad for passage in seen),
        )
        for name, once in names.items()
        for weight, seen in [(values[name], passages.get(name, []))]
        if seen
    ]


@dataclass(frozen=True)
class Dropout:
    """What is dropped of a network."""

    inputs: Sequence[Inputs]
    rate: float
    image_rate: float

    def rates(self) -> list[tuple[Inputs, float]]:
        """Inputs that may be dropped, and how often they are."""
        pairs = [(inputs, self.image_rate if inputs.from_image else self.rate) for inputs in self.inputs]
        return [(inputs, rate) for inputs, rate in pairs if rate]

    def numbers(self, weights: Parameters) -> int:
        """How many numbers a draw of the weights [*shape] of one network takes."""
        return sum(inputs.splits * weights[inputs.weight].shape[1] for inputs, _ in self.rates())

    def draw(self, weights: Parameters, uniform: noise.Draw) -> Parameters:
        """Effective weights [*shape] of one network without the inputs that are dropped, the same for all examples."""
        return weights | {
            inputs.weight: _without(weights[inputs.weight], inputs.splits, rate, uniform)
            for inputs, rate in self.rates()
        }


def _without(weight: Tensor, splits: int, rate: float, uniform: noise.Draw) -> Tensor:
    """W diag(z) / (1 - p) of a layer's weight [out, in / splits, ...]."""
    z = kept(uniform((splits, weight.shape[1])), rate)
    rows = z if splits == 1 else z.repeat_interleave(len(weight) // splits, 0)
    return weight * rows.view(*rows.shape, *[1] * (weight.ndim - 2))


def _without_for_each(passage: Passage, rate: float, uniform: noise.Draw) -> Tensor:
    """A layer's outputs where each example lacks inputs of its own, the same ones at all places of a feature map."""
    x = passage.inputs
    axis = 1 if passage.weight.ndim > 2 else x.ndim - 1
    z = kept(uniform((len(x), x.shape[axis])), rate)
    shape = [len(x), *(x.shape[axis] if at == axis else 1 for at in range(1, x.ndim))]
    return passage.apply(x * z.view(shape), passage.weight, passage.bias)


@dataclass(frozen=True)
class DropoutPosterior:
    """The networks with inputs dropped at random."""

    population: Population
    """The whole networks."""
    dropout: Dropout

    def draw(self, sample: int) -> Parameters:
        """Effective weights of every member, [member, *shape]."""
        weights, seeds = self.population.effective(), self.population.design.seeds
        numbers = self.dropout.numbers({name: w[0] for name, w in weights.items()})

        def one(weights: Parameters, key: Tensor) -> Parameters:
            return self.dropout.draw(weights, noise.Reel(key, numbers, noise.uniform))

        keys = noise.keys(seeds, "posterior", sample).to(self.population.device)
        drawn: Parameters = vmap(one)(weights, keys)
        return drawn


class DropoutTrainer(NoisyTrainer):
    """A population in training with dropout.

    A layer that is passed once lacks inputs of each example. Weights that are used again, as at each step of a recurrent
    network, lack the same inputs each time, of all images in a minibatch (after Gal and Ghahramani 2016b).
    """

    def __init__(
        self,
        population: Population,
        dataset: Dataset,
        spec: TrainingSpec,
        rates: DropoutSpec,
        precision: Precision = "float32",
    ) -> None:
        """Finds the inputs of the network's layers; `rates` says how often they are dropped."""
        super().__init__(population, dataset, spec, "dropout", noise.uniform, precision)
        found = inputs_of(population.network, self.groups, self.example)
        self.dropout = Dropout(found, rates.rate, rates.image_rate)

    def noisy(self, trained: Parameters, held: Parameters, x: Tensor, draw: noise.Draw) -> Tensor:
        """One network's logits [batch, class] with inputs dropped."""
        weights, rules = dict(trained), dict[int, Rule]()
        for inputs, rate in self.dropout.rates():
            weight = weights[inputs.weight]
            if inputs.once:
                rules[id(weight)] = partial(_without_for_each, rate=rate, uniform=draw)
            else:
                weights[inputs.weight] = _without(weight, inputs.splits, rate, draw)
        return self.logits(weights, held, x, rules)

    def posterior(self) -> DropoutPosterior:
        """The networks as they are now (a copy)."""
        return DropoutPosterior(self.trained(), self.dropout)


def begin(
    population: Population,
    dataset: Dataset,
    training: TrainingSpec,
    spec: DropoutSpec,
    precision: Precision = "float32",
) -> DropoutTrainer:
    """A trainer of each member with dropout."""
    return DropoutTrainer(population, dataset, training, spec, precision)


def posterior(trainer: DropoutTrainer) -> DropoutPosterior:
    """The networks as they are, with dropout."""
    return trainer.posterior()
