"""Softmax temperatures: one number per network that divides its logits, fitted to a minimum of the loss.

Interpolated networks are often right and unsure, so that a path's loss rises where its accuracy does not. A
temperature fitted at each point takes that part of a barrier away (Guo et al. 2017; Ito et al. 2025). Accuracy stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from symcore.metrics import Array, cross_entropy

Chunks = Iterable[tuple[Tensor, Tensor]]
"""Logits [member, image, class] and labels [image], some images at a time."""

LEAST, MOST = 1 / 64, 64.0
"""Bounds of 1 / T; where every image is classified rightly the loss falls for ever as T falls."""
STEPS = 100
"""Most steps of Newton's method; bisection alone would need about 40."""
TOLERANCE = 1e-7
"""Relative change of 1 / T below which a fit has ended."""

NUMBERS = 2**24
"""Logits whose probabilities are held at once."""


@torch.no_grad()
def fit(logits: Tensor, labels: Tensor, on_step: Callable[[], None] = lambda: None) -> Tensor:
    """Inverse temperatures 1 / T that minimise the mean cross-entropy of each network, float64 [member].

    The loss is convex in b = 1 / T: its slope is the mean of E[z] - z_y and its curvature the mean of Var[z], both
    under softmax(b z). Newton's steps in all networks at once, kept within a bracket by bisection.

    Args:
        logits: [member, image, class].
        labels: [image].
        on_step: called before each step; may raise to stop.
    """
    members, device = len(logits), logits.device
    low = torch.full((members,), LEAST, dtype=torch.float64, device=device)
    high, sharpness = torch.full_like(low, MOST), torch.ones_like(low)
    for _ in range(STEPS):
        on_step()
        slope, curvature = _derivatives(logits, labels, sharpness)
        low = torch.where(slope < 0, sharpness, low)
        high = torch.where(slope < 0, high, sharpness)
        step = sharpness - slope / curvature.clamp(min=torch.finfo(torch.float64).tiny)
        inside = (step > low) & (step < high)
        following = torch.where(inside, step, (low * high).sqrt())
        settled = (following - sharpness).abs() <= TOLERANCE * sharpness
        sharpness = following
        if bool(settled.all()):
            break
    return sharpness


def _derivatives(logits: Tensor, labels: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and curvature of the mean cross-entropy in 1 / T, both [member]; some networks at a time."""
    slopes, curvatures = [], []
    chosen = torch.nn.functional.one_hot(labels, logits.shape[-1])
    at_once = max(1, NUMBERS // logits[0].numel())
    for part, b in zip(logits.split(at_once), sharpness.split(at_once), strict=True):
        z = part.double()
        p = torch.softmax(b.view(-1, 1, 1) * z, dim=-1)
        mean = (p * z).sum(-1)
        slopes.append((mean - (z * chosen).sum(-1)).mean(-1))
        curvatures.append(((p * z.square()).sum(-1) - mean.square()).mean(-1))
    return torch.cat(slopes), torch.cat(curvatures)


@torch.no_grad()
def measure(chunks: Chunks, sharpness: Tensor) -> tuple[Array, Array, Array]:
    """Mean loss, accuracy, and mean loss at given temperatures, float64 [member].

    Args:
        chunks: all images of a split.
        sharpness: inverse temperatures 1 / T, [member, fold]; an image's is that of the fold it is in, its place modulo
            the number of folds.
    """
    folds = sharpness.shape[1]
    totals, seen = torch.zeros(3, len(sharpness), dtype=torch.float64, device=sharpness.device), 0
    for logits, labels in chunks:
        fold = torch.arange(seen, seen + len(labels), device=labels.device) % folds
        scaled = logits.double() * sharpness[:, fold].unsqueeze(-1)
        totals[0] += _loss(logits, labels)
        totals[1] += (logits.argmax(-1) == labels).sum(-1)
        totals[2] += _loss(scaled, labels)
        seen += len(labels)
    loss, accuracy, calibrated = (totals / seen).cpu().numpy()
    return loss, accuracy, calibrated


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed cross-entropy, [member]."""
    return cross_entropy(logits, labels.expand(logits.shape[:-1])).sum(-1)
