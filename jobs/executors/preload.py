"""Imported once by the fork server: all that runs import, so that a worker starts in milliseconds instead of seconds."""

from __future__ import annotations

import sklearn.datasets
import torch._inductor.compile_fx  # torch.export imports it, and much with it, when it is first called
import torch.export

from jobs import registry
from jobs.executors import local

LOADED = (sklearn.datasets, torch._inductor.compile_fx, torch.export, local)  # noqa: SLF001  (named, not used)
registry.kinds()
