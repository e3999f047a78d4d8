"""Reliability: among predictions of about one confidence, how many are right; and calibration errors, the gap between the two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from symcore.metrics import Array

BINS = 15
"""Bins of Guo et al. 2017 and of Lim et al. 2024."""


@dataclass(frozen=True)
class Reliability:
    """What a reliability diagram shows (Niculescu-Mizil & Caruana 2005), by member and bin of confidence.

    Confidence is the probability of the top label. What is measured in a bin without images is NaN.
    """

    images: npt.NDArray[np.int64]
    """How many have a confidence in the bin, [member, bin]."""
    confidence: Array
    """Their mean confidence, [member, bin]."""
    accuracy: Array
    """Share of them whose top label is right, [member, bin]."""

    @property
    def calibration_error(self) -> Array:
        """Mean over images of their bin's |accuracy - confidence| (the L1 norm; Naeini et al. 2015), [member].

        Of a calibrated predictor it is above 0, as each bin's accuracy is a sample's: about sum_b sqrt(2 v_b n_b / pi) / n,
        where bin b has n_b of the n images and v_b is the mean of c (1 - c) over their confidences c.
        """
        gap = np.where(self.images > 0, np.abs(self.accuracy - self.confidence), 0)
        error: Array = (self.images * gap).sum(-1) / self.images.sum(-1)
        return error


def reliability(log_probabilities: Tensor, labels: Tensor, bins: int = BINS) -> Reliability:
    """In bins of equal width, ((b - 1) / bins, b / bins]; its calibration error is the ECE of Guo et al. 2017.

    torchmetrics 1.9 has [lower, upper) instead and sets a confidence of exactly 1 apart; otherwise its ECE is the same.

    Args:
        log_probabilities: [member, image, class].
        labels: [image].
        bins: how many, 1 or more.

    Raises:
        ValueError: if there is no bin, or not one label for each image.
    """

    def place(confidence: Tensor) -> Tensor:
        edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=confidence.device)
        return torch.bucketize(confidence, edges[1:-1])

    return _binned(log_probabilities, labels, bins, place)


def adaptive_reliability(log_probabilities: Tensor, labels: Tensor, bins: int = BINS) -> Reliability:
    """In bins of equally many images (Nguyen & O'Connor 2015); its calibration error is the adaptive ECE (Nixon et al. 2019).

    Where no two confidences are equal, sizes of bins differ by an image at most. Images of equal confidence share a bin,
    that of the first of them, so that the order of images does not count. Arguments and errors as of `reliability`.
    """

    def place(confidence: Tensor) -> Tensor:
        less_confident = torch.searchsorted(confidence.sort(-1).values, confidence)
        return less_confident * bins // confidence.shape[-1]

    return _binned(log_probabilities, labels, bins, place)


def _binned(
    log_probabilities: Tensor, labels: Tensor, bins: int, place: Callable[[Tensor], Tensor]
) -> Reliability:
    """Means in the bins that `place` gives to confidences [member, image], from 0."""
    check_labels(log_probabilities, labels)
    if bins < 1:
        msg = f"bins: {bins}; accepted: 1 or more"
        raise ValueError(msg)
    highest, top = log_probabilities.max(-1)
    confidence = highest.double().exp()
    # a network that diverged has no confidence; its NaN, which sorts last, may stand in any bin
    bin_of = place(confidence).clamp(max=bins - 1)

    def total(of_images: Tensor) -> Array:
        empty = of_images.new_zeros(len(of_images), bins)
        sums: Array = empty.scatter_add_(1, bin_of, of_images).cpu().numpy()
        return sums

    images = total(torch.ones_like(confidence))
    filled = np.where(images > 0, images, np.nan)
    return Reliability(
        images.astype(np.int64), total(confidence) / filled, total((top == labels).double()) / filled
    )


def check_labels(log_probabilities: Tensor, labels: Tensor) -> None:
    """Refuses labels that are not one for each image.

    Raises:
        ValueError: if their number is another, or there are no images.
    """
    images = log_probabilities.shape[1]
    if labels.shape != (images,) or not images:
        msg = f"labels: shape {tuple(labels.shape)} for {images} images; accepted: one for each of 1 or more images"
        raise ValueError(msg)
