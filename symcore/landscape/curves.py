"""Curves of low loss between networks: Bezier curves whose ends stay and whose bends are trained.

Garipov et al. (2018) minimise the expected loss at a point of the curve that is drawn uniformly for each minibatch. The
curves of many pairs are trained as one population, each on its own minibatches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from symcore.asymmetry import Asymmetry, Parameters
from symcore.data.sources import Dataset
from symcore.landscape.paths import PATHS_AT_ONCE, PathPoints
from symcore.metrics import Array, Evaluator
from symcore.population import Population
from symcore.precision import Precision
from symcore.randomness import stream
from symcore.training import Draws, Trainer, TrainingSpec

Tensors = Mapping[str, Tensor]


def bernstein(positions: Tensor, degree: int) -> Tensor:
    """What each control point counts at positions [*] on a Bezier curve of a degree, [*, control]; the sum is 1."""
    powers = [
        math.comb(degree, k) * positions**k * (1 - positions) ** (degree - k) for k in range(degree + 1)
    ]
    return torch.stack(powers, dim=-1)


def bezier(controls: Sequence[Tensors], positions: Array) -> Parameters:
    """Weights on Bezier curves, control points [pair, *shape] -> [pair * position, *shape], position fastest.

    At 0 and 1 they are those of the first and last control points, bit for bit.
    """
    like = next(iter(controls[0].values()))
    at = torch.as_tensor(positions, dtype=like.dtype, device=like.device)
    shares = bernstein(at, len(controls) - 1).t().unsqueeze(1)  # [control, 1, position]
    beside = {name: [control[name].unsqueeze(1) for control in controls] for name in controls[0]}
    return {name: _weighted(shares, each).flatten(0, 1) for name, each in beside.items()}


def _weighted(shares: Tensor, controls: Sequence[Tensor]) -> Tensor:
    """The sum of control points [*, *shape] with shares [control, *]; in full precision, unlike a GPU's TF32 product."""
    shaped = shares.view(*shares.shape, *[1] * (controls[0].ndim - shares.ndim + 1))
    total = shaped[0] * controls[0]
    for share, control in zip(shaped[1:], controls[1:], strict=True):
        total = total + share * control
    return total


def curve_path(
    evaluator: Evaluator,
    controls: Sequence[Tensors],
    buffers: Tensors,
    split: str,
    positions: Array,
) -> PathPoints:
    """Evaluates the curve of every pair on one split.

    Args:
        evaluator: for the module that all networks share.
        controls: effective weights of each control point from one end to the other, [pair, *shape].
        buffers: the module's buffers, shared or [pair, *shape].
        split: which part of the data set, say "test".
        positions: in [0, 1].
    """
    like = next(iter(controls[0].values()))
    pairs, many = len(like), len(positions)
    found = PathPoints(np.empty((pairs, many)), np.empty((pairs, many)))
    at_once = max(1, PATHS_AT_ONCE[like.device.type] // many)
    for first in range(0, pairs, at_once):
        part = slice(first, min(first + at_once, pairs))
        points = bezier([{n: w[part] for n, w in control.items()} for control in controls], positions)
        own = {
            n: v[part].repeat_interleave(many, 0) if evaluator.stacked_buffers else v
            for n, v in buffers.items()
        }
        loss, accuracy = evaluator(points, own, split)
        found.loss[part], found.accuracy[part] = loss.reshape(-1, many), accuracy.reshape(-1, many)
    return found


class CurveTrainer(Trainer):
    """The bends of many curves in training, each member a pair; a bend's weight is named "1/hidden.0.linear.weight".

    Every bend starts on the straight line between the ends. Of what D fixes, all points of a curve hold what the ends
    hold, since their networks share it.
    """

    def __init__(
        self,
        ends: tuple[Tensors, Tensors],
        first: Population,
        dataset: Dataset,
        spec: TrainingSpec,
        bends: int = 1,
        precision: Precision = "float32",
    ) -> None:
        """Puts the bends where they start.

        Args:
            ends: effective weights at 0 and at 1, [pair, *shape].
            first: the networks at 0, as many as pairs, with the masks and buffers that their pairs share; their seeds
                draw positions and minibatches.
            dataset: with a "train" split, on the networks' device.
            spec: how bends are trained.
            bends: control points between the ends; 1 makes a quadratic curve.
            precision: arithmetic of matrix products and convolutions.
        """
        self._ends, self._bends = ends, bends
        super().__init__(first, dataset, spec, precision=precision)
        self.positions = torch.zeros(first.size, self.steps_per_epoch, device=first.device)

    def start(self) -> tuple[Parameters, Asymmetry | None]:
        """The bends on the straight line, and their masks."""
        a, b = self._ends
        masks = self.population.asymmetry
        weights: Parameters = {}
        trainable: Parameters = {}
        fixed: Parameters = {}
        for bend in range(1, self._bends + 1):
            share = bend / (self._bends + 1)
            weights |= {f"{bend}/{name}": torch.lerp(w, b[name], share) for name, w in a.items()}
            if masks is not None:
                trainable |= {f"{bend}/{name}": d for name, d in masks.trainable.items()}
                fixed |= {f"{bend}/{name}": f for name, f in masks.fixed.items()}
        return weights, None if masks is None else Asymmetry(trainable, fixed, masks.stacked)

    def controls(self) -> list[Tensors]:
        """Ends and bends in order along the curve, [pair, *shape]; the bends share memory with what is trained."""
        a, b = self._ends
        bends = ({name: self.weights[f"{bend}/{name}"] for name in a} for bend in range(1, self._bends + 1))
        return [a, *bends, b]

    def begin(self, draws: Draws) -> None:
        """Takes up the epoch that `epoch` counts: its draws, its learning rate, and positions on the curves."""
        super().begin(draws)
        drawn = [
            stream(seed, "curve", self.epoch).random(self.steps_per_epoch, dtype=np.float32)
            for seed in self.population.design.seeds
        ]
        self.positions.copy_(torch.from_numpy(np.stack(drawn)))

    def point(self) -> list[Tensor]:
        """Weights at the next position of each curve, [pair, *shape]."""
        shares, controls = self._shares(), self.controls()
        return [_weighted(shares, [control[name] for control in controls]) for name in self._ends[0]]

    def pulled(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """The bends' gradients: each moves the point by its share."""
        shares = self._shares()
        return {
            f"{bend}/{name}": _weighted(shares[bend : bend + 1], [gradient])
            for name, gradient in gradients.items()
            for bend in range(1, self._bends + 1)
        }

    def _shares(self) -> Tensor:
        """What each control point counts at the next position, [control, pair]."""
        at = torch.div(self.cursor, self.batch, rounding_mode="floor")
        return bernstein(self.positions.index_select(1, at)[:, 0], self._bends + 1).t()

    def evaluated(self) -> Parameters:
        """The weights halfway along each curve, [pair, *shape]."""
        return bezier(self.controls(), np.array([0.5]))
