"""Where a run was computed: commit, package versions, platform, device and threads; stored beside its numbers."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

PACKAGE = "symmetry-lab"
PACKAGES = (PACKAGE, "torch", "numpy", "scipy", "safetensors", "pydantic", "pyarrow", "scikit-learn")


def environment(device: str) -> dict[str, Any]:
    """All that can explain why the same spec gave other numbers elsewhere; plain JSON values."""
    return {
        "commit": commit(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor(),
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def commit() -> str | None:
    """The commit of the code that runs: `$SYMLAB_COMMIT`, else its git checkout's, else the installed package's."""
    return os.environ.get("SYMLAB_COMMIT") or _checkout_commit() or _installed_commit()


def _checkout_commit() -> str | None:
    checkout = Path(__file__).resolve().parent.parent
    if not (checkout / ".git").exists() or not shutil.which("git"):
        return None
    head = _git(checkout, "rev-parse", "HEAD")
    changed = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    return f"{head} with changes" if head and changed else head


def _git(checkout: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(checkout), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed arguments
    return done.stdout.strip() or None if done.returncode == 0 else None


def _installed_commit() -> str | None:
    """What pip wrote down when it installed the package from a repository (PEP 610)."""
    try:
        written = importlib.metadata.distribution(PACKAGE).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    found: str | None = json.loads(written or "{}").get("vcs_info", {}).get("commit_id")
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Name of the CPU; Linux says it in /proc/cpuinfo."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
