"""Training a population: every member takes its own minibatches, all take each step together, as one tensor program.

Weights are trained as effective weights F + D * W with D masking step and decay, and decay towards F where D is 1, which
is the same arithmetic as training W and rebuilds nothing in each step.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, ValidationInfo, field_validator
from safetensors import safe_open
from torch import Tensor
from torch.compiler import disable as uncompiled

from symcore.asymmetry import Asymmetry, Parameters
from symcore.checkpoints import StoppedError, write_tensors
from symcore.data import augment
from symcore.data.sources import Dataset
from symcore.gradients import Product, gradient_program, interleaved_gradient_program
from symcore.graphs import GraphedSteps
from symcore.interleaved.lowering import InterleavedNetwork, interleaved_form
from symcore.interleaved.turns import joined, side_by_side
from symcore.metrics import Array, Evaluator
from symcore.optimisers import adamw, blocks, sgd
from symcore.population import Population
from symcore.precision import Precision, arithmetic
from symcore.program import Program
from symcore.randomness import stream
from symcore.settings import Settings

MOMENTUM = 0.9
"""Default momentum of SGD."""


class TrainingSpec(Settings):
    """How networks are trained: by AdamW at a constant rate after a warm-up (Lim et al. 2024, appendix E.1), or by SGD; the rate may fall."""

    epochs: int = Field(default=60, ge=1, le=100_000)
    """Passes over the training set."""
    batch: int = Field(default=64, ge=1, le=65_536)
    """Images in a minibatch of one network; a graph's nodes are one batch, so an epoch there is one step."""
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    """Step size after the warm-up."""
    weight_decay: float = Field(default=0.03, ge=0, le=10)
    """AdamW's decoupled weight decay, per unit of learning rate; SGD adds so many parts of each weight to its gradient."""
    # what stands here since later is left out of a spec's JSON at its default, so that specs from before keep their hashes
    optimizer: Literal["adamw", "sgd"] = Field(
        default="adamw", exclude_if=lambda optimizer: optimizer == "adamw"
    )
    """What takes the steps: AdamW, or stochastic gradient descent with momentum."""
    momentum: float = Field(default=MOMENTUM, ge=0, lt=1, exclude_if=lambda momentum: momentum == MOMENTUM)
    """Part of SGD's last step that the next one repeats."""
    warmup_epochs: int = Field(default=0, ge=0, le=100_000)
    """Epochs at a lower learning rate, which grows after each of them; where they are more than `epochs`, training ends before the full rate is reached."""
    # left out of a spec's JSON where it is geometric, so that specs from before it was a choice keep their hashes
    warmup_shape: Literal["geometric", "linear"] = Field(
        default="geometric", exclude_if=lambda shape: shape == "geometric"
    )
    """How it grows: by one factor, or evenly, so that after n epochs n + 1 parts of `warmup_epochs` are reached."""
    warmup_start: float = Field(default=0.01, gt=0, le=1)
    """Learning rate of the first epoch of a geometric warm-up, in parts of the full one."""
    fall_epochs: int = Field(default=0, ge=0, le=100_000, exclude_if=operator.not_)
    """Epochs in which the learning rate falls evenly, to stay there until the end; 0: it does not fall."""
    fall_start: int = Field(default=0, ge=0, le=100_000, exclude_if=operator.not_, validate_default=True)
    """Epochs before that."""
    fall_to: float = Field(default=0.0, ge=0, le=1, exclude_if=operator.not_)
    """Learning rate after it, in parts of the full one."""
    augment: Literal["none", "crop_flip"] = "none"
    """What happens to a training image: nothing, or a random crop after padding by 4 pixels and a random mirroring."""

    @field_validator("momentum")
    @classmethod
    def _is_of_sgd(cls, momentum: float, info: ValidationInfo) -> float:
        if momentum != MOMENTUM and info.data.get("optimizer") == "adamw":
            msg = (
                f"{momentum:g} is SGD's, and the optimizer is adamw; accepted: {MOMENTUM:g}, or optimizer sgd"
            )
            raise ValueError(msg)
        return momentum

    @field_validator("fall_start", "fall_to")
    @classmethod
    def _says_something(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("fall_epochs") == 0:
            msg = f"{value:g}, and fall_epochs is 0, so that the learning rate does not fall; accepted: 0"
            raise ValueError(msg)
        return value

    @field_validator("fall_start")
    @classmethod
    def _falls_in_training(cls, start: int, info: ValidationInfo) -> int:
        """A fall begins after the warm-up, and is over when training is."""
        epochs, warmup, fall = (info.data.get(name) for name in ("epochs", "warmup_epochs", "fall_epochs"))
        if epochs is None or warmup is None or not fall:
            return start
        if not warmup <= start <= epochs - fall:
            room = max(0, epochs - warmup)
            accepted = f"{warmup} to {epochs - fall}" if fall <= room else f"fall_epochs up to {room}"
            msg = (
                f"from {start} over {fall} epochs, in {epochs} with {warmup} of warm-up; accepted: {accepted}"
            )
            raise ValueError(msg)
        return start

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0, in parts of the full one."""
        if self.fall_epochs and epoch >= self.fall_start:
            fallen = min(1.0, (epoch - self.fall_start) / self.fall_epochs)
            return 1.0 - (1.0 - self.fall_to) * fallen
        left = max(0, self.warmup_epochs - epoch)
        if not left:
            return 1.0
        if self.warmup_shape == "linear":
            return (epoch + 1) / self.warmup_epochs
        growth: float = self.warmup_start ** (left / self.warmup_epochs)
        return growth


class Draws(NamedTuple):
    """What is random in an epoch, drawn on the CPU from each member's own seed."""

    order: Tensor
    """The training images in the order of their use, int32 [member, image]."""
    choices: Tensor | None
    """What augmentation does to each of them, uint8 [member, image]; none without augmentation."""


@dataclass(frozen=True)
class Hooks:
    """What training tells and asks while it runs."""

    on_epoch: Callable[[int, dict[str, Array]], None] = lambda _epoch, _metrics: None
    """Called after each epoch (from 1) with metrics such as "train/loss", float64 [member]."""
    on_progress: Callable[[float], None] = lambda _epochs: None
    """Called now and then with the epochs done, fractions included."""
    on_checkpoint: Callable[[], str] = lambda: ""
    """Called just before a checkpoint is written; its text is stored inside and handed to `on_resume`."""
    on_resume: Callable[[str], None] = lambda _note: None
    """Called with the text stored in the checkpoint that training goes on from."""
    stopping: Callable[[], bool] = lambda: False
    """Asked several times a second; when true, training saves a checkpoint and raises StoppedError."""


class Trainer:
    """A population in training: its state, and the step that advances it."""

    def __init__(
        self,
        population: Population,
        dataset: Dataset,
        spec: TrainingSpec,
        learning_rates: Sequence[float] | None = None,
        weight_decays: Sequence[float] | None = None,
        precision: Precision = "float32",
    ) -> None:
        """Puts the population's weights into flat form on its device.

        Args:
            population: what to train; it is left as it is.
            dataset: with a "train" split, on the population's device.
            spec: epochs, batch, optimiser, learning rate and how it changes, weight decay, augmentation.
            learning_rates: one per member in place of the spec's.
            weight_decays: one per member in place of the spec's.
            precision: arithmetic of matrix products and convolutions.

        Raises:
            ValueError: if there is not one learning rate or weight decay per member, or a graph is to be augmented.
        """
        self.population, self.dataset, self.spec = population, dataset, spec
        self.samples = len(dataset.splits["train"])
        self.batch = self.samples if dataset.graph else spec.batch
        """Images, or nodes that count, in a step of one network."""
        if dataset.graph and spec.augment != "none":
            msg = f"augment: {spec.augment!r} changes images, and {dataset.source.name} is a graph; accepted: 'none'"
            raise ValueError(msg)
        self.precision = precision
        self.form = self._interleaved()
        self.epoch = self.step = 0
        device, (starting, asymmetry) = population.device, self.start()
        lr = _one_each("learning_rates", learning_rates, spec.learning_rate, population)
        decay = _one_each("weight_decays", weight_decays, spec.weight_decay, population)
        self.learning_rate = lr
        """Full learning rates, [member or 1]."""
        starts = blocks.starts(starting, lr, decay, asymmetry, channels_last=self.form is not None)
        self.blocks = [self.begun(block) for block in starts]
        views = {name: w for block in self.blocks for name, w in block.layout.views(block.weights).items()}
        self.weights = {name: views[name] for name in starting}
        self.updates = torch.zeros(1, device=device)
        drawn = 0 if dataset.graph else self.samples
        self.order = torch.zeros(population.size, drawn, dtype=torch.int32, device=device)
        self.choices = None if spec.augment == "none" else torch.zeros_like(self.order, dtype=torch.uint8)
        self.cursor = torch.zeros(1, dtype=torch.int64, device=device)
        self.loss_sum = torch.zeros(population.size, dtype=torch.float64, device=device)

    def start(self) -> tuple[Parameters, Asymmetry | None]:
        """What is trained, effective weights by name before the first step, and whose fixed entries stay."""
        return self.population.effective(), self.population.asymmetry

    def begun(self, start: blocks.Start) -> blocks.Block:
        """A block as the optimiser has it before the first update."""
        sgd_chosen = self.spec.optimizer == "sgd"
        return sgd.begin(start, self.spec.momentum) if sgd_chosen else adamw.begin(start)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0, in parts of the full one."""
        return self.spec.rate(epoch)

    def evaluated(self) -> Parameters:
        """The weights that an epoch's metrics are of."""
        return self.weights

    def mean_loss(self) -> Array:
        """Mean loss of an epoch's minibatches as they were trained on, in nats, float64 [member]."""
        losses: Array = (self.loss_sum / self.samples).cpu().numpy()
        return losses

    def measure(self, evaluator: Evaluator, splits: Sequence[str]) -> dict[str, tuple[Array, Array]]:
        """Mean loss (nats) and accuracy (0 to 1) on each split after an epoch, float64 [member]."""
        return evaluator.on(splits, self.evaluated(), self.population.buffers)

    @property
    def steps_per_epoch(self) -> int:
        """Minibatches of an epoch; the last one may be smaller."""
        return -(-self.samples // self.batch)

    def shuffled(self, epoch: int) -> Tensor:
        """Each member's order of the training images in one epoch, int32 [member, image]; it depends on its seed alone."""
        return self._of_each(
            lambda seed: stream(seed, "shuffle", epoch).permutation(self.order.shape[1]), torch.int32
        )

    def draw(self, epoch: int) -> Draws:
        """What is random in one epoch."""
        if self.choices is None:
            return Draws(self.shuffled(epoch), None)
        choices = self._of_each(
            lambda seed: augment.draw(stream(seed, "augment", epoch), self.samples), torch.uint8
        )
        return Draws(self.shuffled(epoch), choices)

    def _of_each(self, draw: Callable[[int], npt.NDArray[np.integer]], dtype: torch.dtype) -> Tensor:
        """What is drawn from the seed of each member, [member, image], ready to travel to the device."""
        drawn = torch.empty(self.order.shape, dtype=dtype, pin_memory=self.order.is_cuda)
        for row, seed in zip(drawn.numpy(), self.population.design.seeds, strict=True):
            row[:] = draw(seed)
        return drawn

    def begin(self, draws: Draws) -> None:
        """Takes up the epoch that `epoch` counts: its draws and its learning rate, in place."""
        self.order.copy_(draws.order, non_blocking=True)
        if self.choices is not None and draws.choices is not None:
            self.choices.copy_(draws.choices, non_blocking=True)
        rate = self.learning_rate * self.rate(self.epoch)
        for block in self.blocks:
            block.set_rate(rate)

    def minibatch(self, size: int) -> tuple[Tensor, Tensor]:
        """The next `size` images of each member, normalised and augmented, [member, size, *input_shape], and their labels.

        Of a graph all nodes, for all members: [node, feature] and [node].
        """
        train = self.dataset.splits["train"]
        if self.dataset.graph:
            return self.dataset.normalise(train.images), train.labels
        at = self.cursor + torch.arange(size, device=self.cursor.device)
        index = self.order.index_select(1, at).long()
        images = self.dataset.normalise(train.images[index])
        if self.choices is not None:
            images = augment.crop_flip(images, self.choices.index_select(1, at))
        return images, train.labels[index]

    def step_of(self, size: int, as_products: Collection[str] = ()) -> Callable[[], list[Product | None]]:
        """A step of every member on its next `size` images; no value leaves the device.

        What it gives back is left to do, by block: a gradient of `as_products` that it did not multiply out or apply.
        """
        gradients_of = self.gradients(size, as_products)

        def step() -> list[Product | None]:
            loss, *gradients = gradients_of()
            self.loss_sum.add_(loss, alpha=size)
            self.cursor.add_(size)
            self.updates.add_(1)
            return [self._apply(*each) for each in zip(self.blocks, gradients, strict=True)]

        return step

    def gradients(self, size: int, as_products: Collection[str]) -> Callable[[], list[Any]]:
        """What gives each member's mean loss on its next images, and the gradient of each block."""
        names, buffers = list(self.population.parameters), list(self.population.buffers.values())
        form, program = self.form, self._program(as_products)
        shared = range(len(names), len(names) + (0 if self.population.stacked else len(buffers)))

        def inputs() -> list[list[Tensor]]:
            """By turn of the members."""
            images, labels = self.minibatch(size)
            if form is None:
                return [[*self.point(), *buffers, images, labels]]
            given = [*form.leaves(self.point()), *buffers, form.maps(images), labels]
            return form.turns(given, shared)

        traced = program.trace(inputs()[0])

        def computed(turns: list[list[Tensor]]) -> list[tuple[Any, ...]]:
            return side_by_side(traced, turns)

        def gathered(turns: list[tuple[Any, ...]]) -> list[Any]:
            loss, *gradients = joined(turns)
            return [loss, *self.by_block(self.pulled(dict(zip(names, gradients, strict=True))))]

        if form is not None:
            # interleaved maps pass through kernels of their own, between which a compiler finds little, in minutes
            computed = uncompiled(computed)
            # and small gradients it copies one by one
            gathered = gathered if form.alone else uncompiled(gathered)
        return lambda: gathered(computed(inputs()))

    def by_block(self, gradients: dict[str, Any]) -> list[Tensor | Product]:
        """Each block's gradient, [member, entry], or the product that it is, from those of what is trained, by name."""
        return [_gathered(block.layout, gradients) for block in self.blocks]

    def keep(self) -> None:
        """Called after each epoch; a method that learns from where training passes by takes it up, in tensors of `state`."""

    def point(self) -> list[Tensor]:
        """Effective weights that a step takes gradients at, in the order of the population's."""
        return list(self.weights.values())

    def pulled(self, gradients: dict[str, Any]) -> dict[str, Any]:
        """The gradients of what is trained, by name, from those of the weights at `point`."""
        return gradients

    def _interleaved(self) -> InterleavedNetwork | None:
        """The network on interleaved maps, where bfloat16 was asked for on a GPU and there is such a form."""
        if self.precision != "bfloat16" or self.dataset.graph:
            return None
        return interleaved_form(self.population.network, self.dataset.source.input_shape)

    def _program(self, as_products: Collection[str]) -> Program:
        """Gradients of every member at `point`."""
        population, names = self.population, list(self.population.parameters)
        if self.form:
            return interleaved_gradient_program(self.form, names, list(population.buffers))
        return gradient_program(
            population.network,
            names,
            stacked_buffers=population.stacked,
            # of a graph no member has inputs of its own
            as_products=[name for name in as_products if name in names and not self.dataset.graph],
            graph=self.dataset.graph,
        )

    def _apply(self, block: blocks.Block, gradient: Tensor | Product) -> Product | None:
        """Updates a block, or gives back the product that its gradient is."""
        if isinstance(gradient, Product):
            return gradient
        block.update(gradient, self.updates)
        return None

    def trained(self) -> Population:
        """The population with the weights that metrics are of as they are now (a copy)."""
        weights = self.evaluated()
        copies = {name: w.clone(memory_format=torch.contiguous_format) for name, w in weights.items()}
        return self.population.with_effective(copies)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a step changes, by name, but for the cursor (epoch and step say where it stands)."""
        tensors = {name: t for block in self.blocks for name, t in block.tensors().items()}
        return tensors | {"updates": self.updates, "loss_sum": self.loss_sum}

    def save(self, path: Path, note: str) -> None:
        """Writes a checkpoint that `restore` goes on from bit for bit; a crash leaves the old one whole."""
        position = {"epoch": str(self.epoch), "step": str(self.step), "note": note}
        write_tensors(path, self.state(), position)

    def restore(self, path: Path) -> str:
        """Takes up a checkpoint in place and returns its note."""
        with safe_open(path, framework="pt") as file:
            position = file.metadata()
            for name, tensor in self.state().items():
                tensor.copy_(file.get_tensor(name))
        self.epoch, self.step = int(position["epoch"]), int(position["step"])
        return str(position["note"])


def _gathered(layout: blocks.Layout, gradients: dict[str, Any]) -> Tensor | Product:
    """A block's gradient, [member, entry], or the product that it is."""
    own = {name: gradients[name] for name in layout.shapes}
    first = next(iter(own.values()))
    return Product(*first) if isinstance(first, tuple) else layout.flatten(own)


def _one_each(field: str, given: Sequence[float] | None, shared: float, population: Population) -> Tensor:
    """A setting per member, [member], or the shared one, [1]."""
    if given is not None and len(given) != population.size:
        msg = f"{field}: got {len(given)} for {population.size} members; give one per member"
        raise ValueError(msg)
    return torch.tensor([shared] if given is None else list(given), device=population.device)


def fit(
    trainer: Trainer,
    *,
    train_accuracy: bool = False,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 20.0,
    hooks: Hooks | None = None,
) -> Population:
    """Trains to the end, or from where a checkpoint stands, and returns the trained population.

    Args:
        trainer: the population, data and settings.
        train_accuracy: whether every epoch ends with the accuracy on all training images too, as they are.
        checkpoint: file to save to now and then, and to go on from if it exists.
        checkpoint_seconds: time between checkpoints.
        hooks: what is told and asked on the way.

    Raises:
        StoppedError: when `hooks.stopping()` was true; the checkpoint is saved first.
    """
    hooks = hooks or Hooks()
    if checkpoint is not None and checkpoint.exists():
        hooks.on_resume(trainer.restore(checkpoint))
    watch = _Watch(trainer, checkpoint, checkpoint_seconds, hooks)
    population = trainer.population
    evaluator = Evaluator(
        population.network,
        trainer.dataset,
        stacked_buffers=population.stacked,
        in_bfloat16=trainer.precision == "bfloat16",
    )
    with arithmetic(trainer.precision), ThreadPoolExecutor(1, "shuffle") as pool:
        advance = stepper(trainer)
        upcoming = pool.submit(trainer.draw, trainer.epoch)
        while trainer.epoch < trainer.spec.epochs:
            trainer.begin(upcoming.result())
            if trainer.epoch + 1 < trainer.spec.epochs:
                upcoming = pool.submit(trainer.draw, trainer.epoch + 1)
            _run_epoch(trainer, advance, watch)
            hooks.on_epoch(trainer.epoch, _epoch_metrics(trainer, evaluator, train_accuracy=train_accuracy))
            trainer.loss_sum.zero_()
            watch.look()
    return trainer.trained()


def stepper(trainer: Trainer) -> Callable[[int], None]:
    """What takes a step of a given size: on a GPU compiled and captured, on a CPU the plain operations."""
    if trainer.population.device.type == "cuda":
        return GraphedSteps(trainer)
    steps: dict[int, Callable[[], object]] = {}

    def advance(size: int) -> None:
        if size not in steps:
            steps[size] = trainer.step_of(size)
        with torch.no_grad():
            steps[size]()

    return advance


def _run_epoch(trainer: Trainer, advance: Callable[[int], None], watch: _Watch) -> None:
    batch = trainer.batch
    trainer.cursor.fill_(trainer.step * batch)
    while trainer.step < trainer.steps_per_epoch:
        advance(min(batch, trainer.samples - trainer.step * batch))
        trainer.step += 1
        if trainer.step < trainer.steps_per_epoch:
            watch.look()
    trainer.epoch, trainer.step = trainer.epoch + 1, 0
    trainer.keep()


def _epoch_metrics(trainer: Trainer, evaluator: Evaluator, *, train_accuracy: bool) -> dict[str, Array]:
    """Mean minibatch loss of the epoch, and loss and accuracy on the splits that are not trained on.

    The accuracy on the training images, where it is wanted, is that of the network as it is after the epoch.
    """
    metrics = {"train/loss": trainer.mean_loss()}
    measured = [split for split in trainer.dataset.splits if split != "train" or train_accuracy]
    for split, (loss, accuracy) in trainer.measure(evaluator, measured).items():
        metrics |= {f"{split}/loss": loss} if split != "train" else {}
        metrics |= {f"{split}/accuracy": accuracy}
    return metrics


class _Watch:
    """Looks up from the work a few times a second: reports progress, saves checkpoints, obeys a stop."""

    INTERVAL = 0.1
    STEPS_IN_FLIGHT = 100
    """A GPU runs behind by up to twice so many steps: enough to be never idle, few enough for a prompt stop."""

    def __init__(self, trainer: Trainer, checkpoint: Path | None, seconds: float, hooks: Hooks) -> None:
        self._trainer, self._checkpoint, self._seconds, self._hooks = trainer, checkpoint, seconds, hooks
        self._looked = self._saved = time.monotonic()
        self._passed: torch.cuda.Event | None = None

    def look(self) -> None:
        """Called after every step.

        Raises:
            StoppedError: after saving a checkpoint, if a stop was asked for.
        """
        trainer = self._trainer
        if trainer.population.device.type == "cuda" and trainer.step % self.STEPS_IN_FLIGHT == 0:
            self._wait(trainer.population.device)
        now = time.monotonic()
        if now - self._looked < self.INTERVAL:
            return
        self._looked = now
        self._hooks.on_progress(trainer.epoch + trainer.step / trainer.steps_per_epoch)
        stopping = self._hooks.stopping()
        if self._checkpoint is not None and (stopping or now - self._saved > self._seconds):
            trainer.save(self._checkpoint, self._hooks.on_checkpoint())
            self._saved = time.monotonic()
        if stopping:
            msg = f"stopped after {trainer.epoch} epochs and {trainer.step} steps"
            raise StoppedError(msg)

    def _wait(self, device: torch.device) -> None:
        """Waits until the GPU has done what it had been given at the last call."""
        if self._passed is not None:
            self._passed.synchronize()
        self._passed = torch.cuda.current_stream(device).record_event()
