"""The arithmetic of products and convolutions, chosen for a block of code and restored after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Precision = Literal["float32", "tf32", "bfloat16"]
"""Arithmetic of products and convolutions on a GPU: IEEE single; TF32; or bfloat16 factors and maps where there are
convolutions and TF32 elsewhere, sums and statistics always single. A CPU computes all as single."""


@contextmanager
def arithmetic(precision: Precision) -> Iterator[None]:
    """Sets the arithmetic of float32 products and convolutions for a block, and restores it.

    A GPU's convolutions take TF32 unless told otherwise, and may add up in another order each time; here they do as told,
    in one order.
    """
    convolutions = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), convolutions.allow_tf32, convolutions.deterministic
    torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    convolutions.allow_tf32, convolutions.deterministic = precision != "float32", True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        convolutions.allow_tf32, convolutions.deterministic = before[1:]
