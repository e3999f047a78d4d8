"""Training with noise in every step: each member draws all numbers of a step at once, from a key of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap

from symcore.asymmetry import Parameters
from symcore.data.sources import Dataset
from symcore.gradients import mean_loss
from symcore.metrics import Array, Evaluator
from symcore.networks.gnn import neighbours
from symcore.population import Population, call_one
from symcore.posteriors import noise
from symcore.posteriors.layers import Instead, Rule, groups
from symcore.posteriors.predict import Posterior, measure
from symcore.precision import Precision
from symcore.program import Program
from symcore.training import Trainer, TrainingSpec


class NoisyTrainer(Trainer, ABC):
    """Base of trainings whose networks compute with random numbers, drawn afresh in every step."""

    def __init__(
        self,
        population: Population,
        dataset: Dataset,
        spec: TrainingSpec,
        purpose: str,
        numbers: noise.Numbers,
        precision: Precision = "float32",
    ) -> None:
        """Finds the network's layers and gives each member its key; what else there is, `Trainer` takes.

        Args:
            population: networks at their start.
            dataset: with a "train" split.
            spec: how they are trained.
            purpose: what the numbers are for; two purposes share none.
            numbers: which ones a step draws, `noise.normal` say.
            precision: as `Trainer` has it.
        """
        self.example = torch.zeros(2, *dataset.source.input_shape, device=population.device)
        self.groups = groups(population.network, self.example)
        super().__init__(population, dataset, spec, precision=precision)
        self._keys = noise.keys(population.design.seeds, purpose).to(population.device)
        self._numbers = numbers

    @abstractmethod
    def noisy(self, trained: Parameters, held: Parameters, x: Tensor, draw: noise.Draw) -> Tensor:
        """One network's logits [batch, class] with noise, from what is trained of it and `held`, [*shape] each."""

    @abstractmethod
    def posterior(self) -> Posterior:
        """What has been learned so far (a copy)."""

    def held(self) -> Parameters:
        """What else a step reads, by name: shared, or [member, *shape] where the population's masks and buffers are."""
        return dict(self.population.buffers)

    def objective(self, likelihood: Tensor, trained: Parameters, held: Parameters) -> Tensor:
        """What one network's step goes down, [], of its mean negative log-likelihood."""
        del trained, held
        return likelihood

    def logits(self, weights: Parameters, held: Parameters, x: Tensor, rules: Mapping[int, Rule]) -> Tensor:
        """One network's logits [batch, class] where layers with rules give something else."""
        network = self.population.network
        buffers = {name: held[name] for name in self.population.buffers}
        with Instead(rules):
            return call_one(network, weights, buffers, x, *neighbours(network, self.dataset.graph))

    def gradients(self, size: int, as_products: Collection[str]) -> Callable[[], list[Any]]:
        """What gives each member's mean negative log-likelihood on its next images, and the gradient of each block."""
        del as_products  # none is one product
        names, held = list(self.weights), self.held()

        def inputs() -> list[Tensor]:
            images, labels = self.minibatch(size)
            keys = noise.derived(self._keys, self.updates.expand(self.population.size))
            return [*self.weights.values(), *held.values(), images, labels, keys]

        drawn = self._drawn(held, self.minibatch(size)[0])
        traced = self._step_program(names, list(held), drawn).trace(inputs())

        def gradients() -> list[Any]:
            loss, *found = traced(*inputs())
            return [loss, *self.by_block(dict(zip(names, found, strict=True)))]

        return gradients

    def _interleaved(self) -> None:
        """None: interleaved maps have no noise, and filters in their order would only be turned back."""
        return

    def _drawn(self, held: Parameters, images: Tensor) -> int:
        """How many random numbers a step of one member takes, whose minibatch is one of these."""
        tally = noise.Tally(images.device)
        trained = {name: w[0] for name, w in self.weights.items()}
        own = {name: t[0] if self.population.stacked else t for name, t in held.items()}
        with torch.no_grad():
            self.noisy(trained, own, images if self.dataset.graph else images[0], tally)
        return tally.numbers

    def _step_program(self, names: list[str], held_names: list[str], drawn: int) -> Program:
        """A program over [*trained, *held, x, y, keys]: negative log-likelihoods, and gradients of the objective."""
        graph = self.dataset.graph

        def loss(
            trained: Parameters, held: Parameters, x: Tensor, y: Tensor, key: Tensor
        ) -> tuple[Tensor, Tensor]:
            draw = noise.Reel(key, drawn, self._numbers)
            likelihood = mean_loss(self.noisy(trained, held, x, draw), y, graph)
            return self.objective(likelihood, trained, held), likelihood

        data = None if graph else 0
        in_dims = (0, 0 if self.population.stacked else None, data, data, 0)
        many = vmap(grad(loss, has_aux=True), in_dims=in_dims)

        def flat(tensors: list[Tensor]) -> tuple[Tensor, ...]:
            *given, x, y, keys = tensors
            trained = dict(zip(names, given[: len(names)], strict=True))
            held = dict(zip(held_names, given[len(names) :], strict=True))
            gradients, likelihoods = many(trained, held, x, y, keys)
            return likelihoods, *(gradients[name] for name in names)

        return Program(flat)

    def measure(self, evaluator: Evaluator, splits: Sequence[str]) -> dict[str, tuple[Array, Array]]:
        """Loss and accuracy of the mean prediction of a few draws, float64 [member]."""
        return measure(self.posterior(), evaluator, self.dataset, splits)
