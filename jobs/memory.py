"""A plain no, with the numbers, to a run that its device cannot hold, before anything is allocated."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from jobs.estimates import Estimate

MEMINFO = Path("/proc/meminfo")
"""Where Linux says what is free. A worker has few packages, and none that knows."""


class TooLargeError(ValueError):
    """A run takes more memory than is free."""


def free(device: str) -> int:
    """Bytes that are free on a device, "cpu" or "cuda"; where the system does not say what is free, all that there are."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    if MEMINFO.exists():
        sizes = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(sizes["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


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
