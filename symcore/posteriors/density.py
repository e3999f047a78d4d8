"""The posterior of networks given a data set, up to a constant: the log density of their weights and its gradient, over all images."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from symcore.asymmetry import Parameters
from symcore.data.sources import Dataset
from symcore.gradients import gradient_program
from symcore.metrics import rows_at_once
from symcore.networks.batchnorm import batch_norms
from symcore.networks.shapes import layers, output_shapes
from symcore.population import Population
from symcore.precision import arithmetic


class PosteriorDensity:
    """log p(W | data) = -(sum of the negative log-likelihoods) / temperature + log N(W; 0, prior_std^2), up to a constant.

    W is what is trained, so a position is [chain, dimension], one chain per member of a population and one dimension
    per entry that D leaves free: a W-Asymmetric network's constants are no part of it, and syre's prior stands on W,
    not on F + W. The likelihood is that of the training images as they are, without augmentation, or of a graph's nodes.
    """

    def __init__(
        self,
        population: Population,
        dataset: Dataset,
        *,
        prior_std: float,
        temperature: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Prepares the density.

        Args:
            population: whose form, masks and buffers the chains have.
            dataset: with a "train" split, on the population's device.
            prior_std: standard deviation of each trained entry's normal prior.
            temperature: divides the log-likelihood; below 1 the posterior is cold (Wenzel et al. 2020).
            dtype: of positions and of the networks' arithmetic.

        Raises:
            ValueError: if the network has BatchNorm, with which an image has no likelihood of its own.
        """
        if norms := batch_norms(population.network):
            msg = (
                f"network: it has BatchNorm ({', '.join(norms)}), with which an image's likelihood depends on the images "
                "beside it, so that no posterior is defined; accepted: networks that normalise each image by itself, or nothing"
            )
            raise ValueError(msg)
        self._population, self._dataset = population, dataset
        self._variance, self._temperature, self._dtype = prior_std**2, temperature, dtype
        self._buffers = [b.to(dtype) if b.is_floating_point() else b for b in population.buffers.values()]
        self._shapes = {name: w.shape[1:] for name, w in population.parameters.items()}
        self._entries = sum(shape.numel() for shape in self._shapes.values())
        self._trained = _trained(population)
        self._images = _images_at_once(population, dataset)
        self._program = gradient_program(
            population.network,
            list(self._shapes),
            stacked_buffers=population.stacked,
            graph=dataset.graph,
        )

    @property
    def dimension(self) -> int:
        """Trained entries of one network."""
        return self._trained.shape[1]

    def position(self, population: Population) -> Tensor:
        """Where networks of this form stand, [chain, dimension]."""
        return self._gathered([w.to(self._dtype) for w in population.parameters.values()])

    def population(self, position: Tensor) -> Population:
        """The networks at a position, [chain, dimension], in its floating type."""
        raw = position.new_zeros(len(position), self._entries)
        raw.scatter_(1, self._trained.expand_as(position), position)
        pieces = raw.split([shape.numel() for shape in self._shapes.values()], dim=1)
        parameters = {
            name: piece.view(-1, *shape)
            for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)
        }
        return replace(self._population, parameters=parameters)

    def effective(self, position: Tensor) -> Parameters:
        """F + D * W at a position: what the networks compute with, [chain, *shape]."""
        return self.population(position).effective()

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """The log density, float64 [chain], and its gradient, [chain, dimension], at a position [chain, dimension]."""
        loss, slope = self._likelihood(position)
        prior = position.double().square().sum(1) / (2 * self._variance)
        return -loss / self._temperature - prior, -slope / self._temperature - position / self._variance

    def _likelihood(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of negative log-likelihoods over all images, float64 [chain], and its gradient, [chain, dimension]."""
        weights = [w.to(self._dtype) for w in self.effective(position).values()]
        total = position.new_zeros(len(position), dtype=torch.float64)
        slope = torch.zeros_like(position)
        train = self._dataset.splits["train"]
        for images, labels in zip(
            train.images.split(self._images), train.labels.split(self._images), strict=True
        ):
            inputs = [self._dataset.normalise(images).to(self._dtype), labels]
            if not self._dataset.graph:  # whose nodes a program takes once for all networks
                inputs = [t.expand(len(position), *t.shape) for t in inputs]
            with arithmetic("float32"):
                loss, *gradients = self._program([*weights, *self._buffers, *inputs])
            counted = len(train) if self._dataset.graph else len(labels)
            total += loss.double() * counted
            slope += self._gathered(gradients) * counted
        return total, slope

    def _gathered(self, tensors: list[Tensor]) -> Tensor:
        """What belongs to trained entries, [chain, dimension], of tensors [chain, *shape] in the parameters' order."""
        flat = torch.cat([t.flatten(1) for t in tensors], dim=1)
        return flat.gather(1, self._trained.expand(len(flat), -1))


def _trained(population: Population) -> Tensor:
    """Places of the entries that D leaves free, in all parameters laid end to end: int64 [chain or 1, dimension]."""
    asymmetry, weights = population.asymmetry, population.parameters
    masks = asymmetry.trainable if asymmetry else {}
    members = population.size if asymmetry and asymmetry.stacked else 1
    free = {name: torch.ones_like(w[0], dtype=torch.bool) for name, w in weights.items()} | masks
    rows = [free[name].reshape(-1, w[0].numel()).expand(members, -1) for name, w in weights.items()]
    return torch.cat(rows, dim=1).nonzero(as_tuple=True)[1].view(members, -1)


def _images_at_once(population: Population, dataset: Dataset) -> int:
    """Images, or all nodes of a graph, whose maps fit a device for the networks' gradients at once."""
    if dataset.graph:
        return dataset.source.nodes
    network, device = population.network, population.device
    example = torch.zeros(1, *dataset.source.input_shape, device=device)
    maps = sum(s.numel() for s in output_shapes(network, layers(network), example).values())
    return max(1, rows_at_once(device.type, maps) // population.size)
