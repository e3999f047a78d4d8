"""Permutations that are learned: what straight-through estimation and Sinkhorn re-basin share.

Both take steps of Adam on minibatches, towards a low loss of networks on the lines between a and permuted b. A graph
is one minibatch, as in training. Now and then the permutations at that step are looked at, and each pair keeps those that
are best; the first look is before any step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from symcore.align.matching import Tensors, Watch
from symcore.checkpoints import StoppedError
from symcore.data.sources import Dataset, Split
from symcore.gradients import gradient_program
from symcore.metrics import Evaluator
from symcore.networks.shapes import layers, output_shapes
from symcore.optimisers import adamw, blocks
from symcore.randomness import stream

LOOK = 25
"""Steps between looks."""

Found = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Permutations and signs by group, [pair, n] on the CPU."""


class Lines:
    """The lines between a and permuted b of every pair, and the loss on them over some training images."""

    def __init__(
        self, network: nn.Module, a: Tensors, images: Dataset, *, number: int, batch: int, seed: int
    ) -> None:
        """Prepares programs; nothing is computed yet.

        Args:
            network: the common form of all networks; its buffers are used, its parameters are not.
            a: weights at one end, by name, [pair, *shape].
            images: with a "train" split, on the weights' device.
            number: the first so many training images are used, or all where there are fewer; of a graph all nodes.
            batch: images in a minibatch, the same for all pairs; of a graph all nodes.
            seed: of the order in which images are used.
        """
        train = images.splits["train"]
        self._train = train if images.graph else Split(train.images[:number], train.labels[:number])
        self._images, self._a, self._seed = replace(images, splits={"train": self._train}), dict(a), seed
        self._batch = min(batch, len(self._train))
        self._buffers = dict(network.named_buffers())
        self._gradients = gradient_program(network, list(a), stacked_buffers=False, graph=images.graph)
        self._evaluator = Evaluator(network, self._images)

    def _minibatch(self, step: int) -> tuple[Tensor, Tensor]:
        """The images of a step, the same for every pair: [batch, *input_shape] and labels [batch]; of a graph all nodes."""
        if self._images.graph:
            return self._images.normalise(self._train.images), self._train.labels
        per_pass = len(self._train) // self._batch
        order = stream(self._seed, "align.shuffle", step // per_pass).permutation(len(self._train))
        chosen = torch.from_numpy(order)[(step % per_pass) * self._batch :][: self._batch]
        chosen = chosen.to(self._train.labels.device)
        return self._images.normalise(self._train.images[chosen]), self._train.labels[chosen]

    def gradient(self, moved: Tensors, position: float, step: int) -> dict[str, Tensor]:
        """Of the mean loss at (1 - position) a + position b with respect to permuted b, [pair, *shape]."""
        point = {name: torch.lerp(w, moved[name], position) for name, w in self._a.items()}
        inputs: Sequence[Tensor] = self._minibatch(step)
        if not self._images.graph:  # whose nodes a program takes once for all networks
            pairs = len(next(iter(point.values())))
            inputs = [t.expand(pairs, *t.shape).contiguous() for t in inputs]
        _, *gradients = self._gradients([*point.values(), *self._buffers.values(), *inputs])
        return {name: position * g for name, g in zip(point, gradients, strict=True)}

    def halfway(self, moved: Tensors) -> Tensor:
        """Mean loss at the midpoints over all images that are used, [pair] float64 on the CPU."""
        point = {name: torch.lerp(w, moved[name], 0.5) for name, w in self._a.items()}
        return torch.from_numpy(self._evaluator(point, self._buffers, "train")[0])


class Adam:
    """Adam on tensors [pair, ...]; no pair's steps depend on its neighbours."""

    def __init__(self, start: Tensors, learning_rate: float) -> None:
        """Starts from copies of tensors on their device."""
        device = next(iter(start.values())).device
        rate, none = torch.full((1,), learning_rate, device=device), torch.zeros(1, device=device)
        self._blocks = [adamw.begin(block) for block in blocks.starts(start, rate, none, None)]
        self._steps = torch.zeros(1, device=device)
        views = [block.layout.views(block.weights) for block in self._blocks]
        self.values = {name: view[name] for name in start for view in views if name in view}
        """Where the tensors stand; a step changes them in place."""

    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """One step down, gradients [pair, ...] by name."""
        self._steps.add_(1)
        for block in self._blocks:
            block.update(block.layout.flatten(gradients), self._steps)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a step changes, by name."""
        tensors = {f"adam/{name}": t for block in self._blocks for name, t in block.tensors().items()}
        return tensors | {"adam/steps": self._steps}

    def restore(self, state: Tensors) -> None:
        """Takes up a state in place."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


@dataclass(frozen=True)
class Learned:
    """The best permutations of each pair at any look."""

    found: Found
    step: Tensor
    """When they were found, [pair] int64."""
    score: Tensor
    """How bad they are, [pair] float64."""

    def state(self) -> dict[str, Tensor]:
        """Every tensor of it by name."""
        permutations, signs = (under(name, of) for name, of in zip(FOUND, self.found, strict=True))
        return permutations | signs | {"best/step": self.step, "best/score": self.score}

    @classmethod
    def restored(cls, state: Tensors) -> Learned:
        """What a state holds."""
        permutations, signs = (below(name, state) for name in FOUND)
        return cls((permutations, signs), state["best/step"], state["best/score"])


FOUND = ("best/permutations", "best/signs")


def under(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    """The tensors of a part of a state, with its name before theirs."""
    return {f"{prefix}/{name}": t for name, t in tensors.items()}


def below(prefix: str, state: Tensors) -> dict[str, Tensor]:
    """The tensors of a part of a state by their own names."""
    return {name.removeprefix(f"{prefix}/"): t for name, t in state.items() if name.startswith(f"{prefix}/")}


class Learning(Protocol):
    """Permutations being learned."""

    def begin(self) -> None:
        """Gets ready for the first step."""

    def step(self, number: int) -> None:
        """Takes the step of a number from 0."""

    def found(self) -> Found:
        """The permutations as they stand, copied."""

    def score(self, found: Found) -> Tensor:
        """How bad permutations as they stand are, [pair] float64; told to the watch as the loss."""

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a step changes, by name."""

    def restore(self, state: Tensors) -> None:
        """Takes up a state in place of the beginning."""


def learn(learning: Learning, steps: int, watch: Watch) -> Learned:
    """Takes steps, or those that are left, and keeps of each pair what scored lowest at any look.

    Raises:
        StoppedError: if the watch said so; its keeper has the state.
    """

    def look(done: int) -> Learned:
        found = learning.found()
        scores = learning.score(found)
        watch.on_look(0, done, scores)
        return Learned(found, torch.full((len(scores),), done), scores)

    def state() -> dict[str, Tensor]:
        going = learning.state() if done < steps else {}
        return going | best.state() | {"step": torch.tensor(done)}

    if kept := watch.keeper.kept():
        best, done = Learned.restored(kept), int(kept["step"])
        if done < steps:
            learning.restore(kept)
    else:
        learning.begin()
        best, done = look(0), 0
    while done < steps:
        with watch.keeper.at(state):
            watch.on_progress(done, steps, f"step {done} of {steps}")
            if watch.stopping():
                raise StoppedError
        learning.step(done)
        done += 1
        if done % LOOK == 0 or done == steps:
            best = _better(best, look(done))
    watch.keeper.keep(state())
    return best


def _better(kept: Learned, other: Learned) -> Learned:
    """The better of two for each pair; the first where they do not differ."""
    better = other.score < kept.score

    def choose(first: Tensors, second: Tensors) -> dict[str, Tensor]:
        return {name: torch.where(better[:, None], second[name], p) for name, p in first.items()}

    permutations, signs = (choose(old, new) for old, new in zip(kept.found, other.found, strict=True))
    return Learned(
        (permutations, signs),
        torch.where(better, other.step, kept.step),
        torch.where(better, other.score, kept.score),
    )


def minibatch(images: Dataset | None, batch: int) -> int:
    """Images that a step sees: as many as are asked for, or all nodes of a graph."""
    return len(images.splits["train"].images) if images and images.graph else batch


def bytes_each(network: nn.Module, example: Tensor, batch: int) -> int:
    """Memory that learning takes for a pair, about: copies of its weights, and activations of a minibatch."""
    shapes = output_shapes(network, layers(network), example)
    activations = sum(shape.numel() for shape in shapes.values()) // len(example)
    parameters = sum(p.numel() for p in network.parameters())
    return 80 * parameters + 8 * batch * activations
