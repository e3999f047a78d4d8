"""A plain no, with the numbers, to a run that its device cannot hold, before anything is allocated."""

from __future__ import annotations

import psutil
import torch

from jobs.estimates import Estimate


class TooLargeError(ValueError):
    """A run takes more memory than is free."""


def free(device: str) -> int:
    """Bytes that are free on a device, "cpu" or "cuda"."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def check(estimate: Estimate, device: str, accepted: str) -> None:
    """Makes sure that what a run takes is free.

    Args:
        estimate: of the run.
        device: where it is to be carried out.
        accepted: what takes less.

    Raises:
        TooLargeError: if it is not.
    """
    there = free(device)
    if estimate.bytes_memory > there:
        msg = (
            f"memory: the run takes about {estimate.bytes_memory / 1e9:.3g} GB, and {there / 1e9:.3g} GB are free on "
            f"{device}; accepted: {accepted}"
        )
        raise TooLargeError(msg)
