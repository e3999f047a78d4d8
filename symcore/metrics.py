"""What is measured on networks: cross-entropy and accuracy of populations, and barriers along paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import vmap

from symcore.asymmetry import Parameters
from symcore.calibration import BATCH, Calibration
from symcore.combinations import CombinationProgram, combine
from symcore.data.sources import Dataset, Split
from symcore.interleaved.lowering import InterleavedNetwork, interleaved_form
from symcore.interleaved.turns import joined
from symcore.networks.gnn import neighbours
from symcore.networks.shapes import layers, output_shapes
from symcore.population import call_one
from symcore.program import Program

Array = npt.NDArray[np.float64]

ROWS = {"cpu": 8_192, "cuda": 262_144}
"""Members times images evaluated at once: on a CPU what stays in cache, on a GPU what fills it ..."""
NUMBERS = {"cpu": 2**22, "cuda": 2**28}
"""... and at most so many numbers in the largest output of a layer; feature maps reach that first."""
COMBINED_SHARE = {"cpu": 4, "cuda": 1}
"""Combinations take so much less at once; on a CPU a wide network is then alone, which runs as fused operations."""
COMBINED_IMAGES = 2_048
"""Images at once for combinations: so many that making a member's weights takes little beside their use."""


def rows_at_once(device: str, largest: int) -> int:
    """Members times images that are evaluated at once on a device ("cpu" or "cuda").

    `largest` is the number of entries in the largest output of a layer for one image.
    """
    return max(1, min(ROWS[device], NUMBERS[device] // largest))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each label, logits [batch, class], labels [batch] -> [batch], in nats."""
    log_probability = torch.log_softmax(logits, dim=-1)
    # a comparison, unlike `gather`, has a gradient that a compiler can merge with the softmax
    chosen = labels.unsqueeze(-1) == torch.arange(logits.shape[-1], device=logits.device)
    return -torch.where(chosen, log_probability, 0).sum(-1)


class Evaluator:
    """Loss and accuracy of populations that share one module; keeps its traced programs between calls.

    BatchNorm is given statistics estimated for the very weights (`symcore.calibration`). A graph is evaluated whole, so
    that there the statistics are those of the same pass.
    """

    def __init__(
        self,
        network: nn.Module,
        dataset: Dataset,
        *,
        stacked_buffers: bool = False,
        in_bfloat16: bool = False,
        on_chunk: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepares to evaluate.

        Args:
            network: the module that all share.
            dataset: what they are evaluated on.
            stacked_buffers: whether buffers are the members' own, [member, *shape].
            in_bfloat16: whether a GPU may round maps to bfloat16 (`symcore.interleaved`), which is several times faster.
            on_chunk: called before each chunk of images; it may raise to stop.
        """
        self._dataset, self._on_chunk = dataset, on_chunk
        self.stacked_buffers = stacked_buffers
        self._names = [name for name, _ in network.named_parameters()]
        self._buffer_names = [name for name, _ in network.named_buffers()]
        example = next(network.parameters()).new_zeros(1, *dataset.source.input_shape)
        largest = max(s.numel() for s in output_shapes(network, layers(network), example).values())
        device = example.device.type
        self._rows = rows_at_once(device, largest)
        self._calibration = Calibration(
            network, dataset, self._rows, stacked_buffers=stacked_buffers, on_chunk=on_chunk
        )
        graph = neighbours(network, dataset.graph)

        def one(parameters: Parameters, buffers: Parameters, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            logits = call_one(network, parameters, buffers, x, *graph)
            correct = (logits.argmax(-1) == y).sum(-1)
            return cross_entropy(logits, y).sum(-1), correct

        def logits(parameters: Parameters, buffers: Parameters, x: Tensor, _y: Tensor) -> tuple[Tensor]:
            return (call_one(network, parameters, buffers, x, *graph),)

        def of_one(weights: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
            parameters = dict(zip(self._names, weights, strict=True))
            buffers = dict(zip(self._buffer_names, others[:-2], strict=True))
            return one(parameters, buffers, others[-2], others[-1])

        images = in_bfloat16 and not dataset.graph
        interleaved = interleaved_form(network, dataset.source.input_shape) if images else None
        self._alone = interleaved is not None and interleaved.alone
        self._program = Program(self._interleaved(interleaved) if interleaved else self._flat(one))
        self._logits = Program(self._flat(logits))
        self._combinations = CombinationProgram(of_one)

    def _flat(
        self, one: Callable[[Parameters, Parameters, Tensor, Tensor], tuple[Tensor, ...]]
    ) -> Callable[[list[Tensor]], tuple[Tensor, ...]]:
        """A function of [*weights, *statistics, *buffers, x, y] for many networks."""
        in_dims = (0, 0, 0 if self.stacked_buffers else None, None, None)
        many = vmap(lambda p, s, b, x, y: one(p, s | b, x, y), in_dims=in_dims)
        own, estimated = len(self._names), len(self._names) + len(self._calibration.names)

        def flat(tensors: list[Tensor]) -> tuple[Tensor, ...]:
            parameters = dict(zip(self._names, tensors[:own], strict=True))
            statistics = dict(zip(self._calibration.names, tensors[own:estimated], strict=True))
            buffers = dict(zip(self._buffer_names, tensors[estimated:-2], strict=True))
            totals: tuple[Tensor, ...] = many(parameters, statistics, buffers, tensors[-2], tensors[-1])
            return totals

        return flat

    def _interleaved(self, network: InterleavedNetwork) -> Callable[[list[Tensor]], tuple[Tensor, ...]]:
        """The same function on interleaved maps."""
        given = [*self._names, *self._buffer_names]
        own = len(given if self.stacked_buffers else self._names)

        def flat(tensors: list[Tensor]) -> tuple[Tensor, ...]:
            *shared, x, y = tensors[own:]

            def some(own: list[Tensor]) -> tuple[Tensor, ...]:
                tensors = dict(zip(given, [*own, *shared], strict=True))
                logits = network(tensors, x.expand(len(own[0]), *x.shape))
                return cross_entropy(logits, y).sum(-1), (logits.argmax(-1) == y).sum(-1)

            return tuple(joined([some(turn) for turn in network.turns(tensors[:own])]))

        return flat

    def __call__(
        self, effective: Mapping[str, Tensor], buffers: Mapping[str, Tensor], split: str
    ) -> tuple[Array, Array]:
        """Mean loss (nats) and accuracy (0 to 1) on one split for weights [member, *shape]; float64 [member]."""
        return self.on([split], effective, buffers)[split]

    def on(
        self, splits: Sequence[str], effective: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
    ) -> dict[str, tuple[Array, Array]]:
        """What a call gives, on several splits with less work: of a graph all splits are seen in one pass."""
        own, shared = self._given(effective, buffers)
        if self._dataset.graph:
            return self._on_graph(splits, own, shared)
        return {split: self._on_images(self._dataset.splits[split], own, shared) for split in splits}

    def logits(
        self, effective: Mapping[str, Tensor], buffers: Mapping[str, Tensor], split: str
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits [member, image, class] of weights [member, *shape], and labels [image], some images at a time."""
        own, shared = self._given(effective, buffers)
        data, members = self._dataset.splits[split], len(own[0])
        if self._dataset.graph:
            nodes, seen = self._dataset.normalise(data.images), data.labels >= 0
            at_once = max(1, self._rows // len(nodes))
            parts = [[t[first : first + at_once] for t in own] for first in range(0, members, at_once)]
            found = [self._logits([*part, *shared, nodes, data.labels])[0][:, seen] for part in parts]
            yield torch.cat(found), data.labels[seen]
            return
        chunk = max(1, self._rows // members)
        for images, labels in zip(data.images.split(chunk), data.labels.split(chunk), strict=True):
            self._on_chunk()
            yield self._logits([*own, *shared, self._dataset.normalise(images), labels])[0], labels

    def _given(
        self, effective: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What each member has of its own, statistics of BatchNorm among it, and what all share."""
        weights = [effective[name] for name in self._names]
        held = [buffers[name] for name in self._buffer_names]
        own = [*weights, *self._calibration(weights, held)]
        return ([*own, *held], []) if self.stacked_buffers else (own, held)

    def _on_images(self, data: Split, own: list[Tensor], shared: list[Tensor]) -> tuple[Array, Array]:
        """Chunk by chunk, all members at once."""
        members, device = len(own[0]), own[0].device
        chunk = max(1, self._rows // (1 if self._alone else members))
        loss = torch.zeros(members, dtype=torch.float64, device=device)
        correct = torch.zeros(members, dtype=torch.int64, device=device)
        for images, labels in zip(data.images.split(chunk), data.labels.split(chunk), strict=True):
            self._on_chunk()
            totals = self._program([*own, *shared, self._dataset.normalise(images), labels])
            loss += totals[0]
            correct += totals[1]
        return (loss / len(data)).cpu().numpy(), (correct.double() / len(data)).cpu().numpy()

    def _on_graph(
        self, splits: Sequence[str], own: list[Tensor], shared: list[Tensor]
    ) -> dict[str, tuple[Array, Array]]:
        """All nodes at once, some members after others."""
        data = [self._dataset.splits[split] for split in splits]
        nodes, labels = self._dataset.normalise(data[0].images), torch.stack([d.labels for d in data])
        at_once = max(1, self._rows // len(nodes))
        totals = []
        for first in range(0, len(own[0]), at_once):
            self._on_chunk()
            part = [t[first : first + at_once] for t in own]
            totals.append(self._program([*part, *shared, nodes, labels]))
        loss, correct = (torch.cat(parts).double().cpu().numpy() for parts in zip(*totals, strict=True))
        return {
            split: (loss[:, i] / len(d), correct[:, i] / len(d))
            for i, (split, d) in enumerate(zip(splits, data, strict=True))
        }

    def combinations(
        self, coefficients: Tensor, few: Mapping[str, Tensor], buffers: Mapping[str, Tensor], split: str
    ) -> tuple[Array, Array]:
        """What a call gives for the weights `combine(coefficients, few)`, with less work and without holding them all.

        With BatchNorm there is little to save, for statistics are estimated for each combination; graphs excepted.

        Args:
            coefficients: [member, k].
            few: effective weights that are combined, [k, *shape].
            buffers: shared by all members, [*shape], whether or not buffers are stacked otherwise.
            split: which part of the data set, say "test".
        """
        if self._calibration.names:
            return self._one_by_one(coefficients, few, buffers, split)
        data = self._dataset.splits[split]
        weights, shared = [few[name] for name in self._names], [buffers[name] for name in self._buffer_names]
        members, device = len(coefficients), coefficients.device
        loss = torch.zeros(members, dtype=torch.float64, device=device)
        correct = torch.zeros(members, dtype=torch.int64, device=device)
        rows = max(1, self._rows // COMBINED_SHARE[device.type])
        chunk = len(data.images) if self._dataset.graph else min(COMBINED_IMAGES, rows)
        for images, labels in zip(data.images.split(chunk), data.labels.split(chunk), strict=True):
            others = [*shared, self._dataset.normalise(images), labels]
            values = self._combinations.linear(weights, others)
            at_once = max(1, rows // len(labels))
            for first in range(0, members, at_once):
                self._on_chunk()
                part = slice(first, first + at_once)
                combined = [combine(coefficients[part], value) for value in values]
                totals = self._combinations.rest(combined, others)
                loss[part] += totals[0]
                correct[part] += totals[1]
        return (loss / len(data)).cpu().numpy(), (correct.double() / len(data)).cpu().numpy()

    def _one_by_one(
        self, coefficients: Tensor, few: Mapping[str, Tensor], buffers: Mapping[str, Tensor], split: str
    ) -> tuple[Array, Array]:
        """Makes the weights of a few combinations at a time and evaluates them."""
        found = []
        for part in coefficients.split(max(1, self._rows // BATCH)):
            weights = {name: combine(part, few[name]) for name in self._names}
            held = {
                name: b.expand(len(part), *b.shape) if self.stacked_buffers else b
                for name, b in buffers.items()
            }
            found.append(self(weights, held, split))
        loss, accuracy = (np.concatenate(values) for values in zip(*found, strict=True))
        return loss, accuracy


def _chord(losses: Array, alphas: Array) -> Array:
    return losses[..., :1] * (1 - alphas) + losses[..., -1:] * alphas


def barrier_midpoint(losses: Array) -> Array:
    """Loss halfway minus the mean of the endpoints' (Lim et al. 2024, section 4.1); losses [..., alpha] -> [...].

    Raises:
        ValueError: if the number of alphas is even, so that none of them is 1/2.
    """
    points = losses.shape[-1]
    if points % 2 == 0:
        msg = f"points: {points} evenly spaced alphas have none at 1/2; accepted: an odd number from 3"
        raise ValueError(msg)
    middle: Array = losses[..., points // 2] - (losses[..., 0] + losses[..., -1]) / 2
    return middle


def barrier_maximum(losses: Array, alphas: Array) -> Array:
    """Largest rise of the path above the straight line between its endpoints' losses (Frankle et al. 2020); >= 0."""
    highest: Array = (losses - _chord(losses, alphas)).max(axis=-1)
    return highest
