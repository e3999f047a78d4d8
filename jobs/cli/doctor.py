"""`symlab doctor`: what this machine has for the lab, and what to do about what it has not."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import torch
from rich.console import Console

from jobs.cli import browsing
from jobs.cli.errors import ExitCode
from jobs.cli.options import LabPath, Port
from jobs.folder import LabFolder
from jobs.lab import running
from jobs.migrations import MIGRATIONS
from symcore.data.sources import SOURCES

TESTED_TORCH = "2.13"
DEFAULT_PORT = 8501
ROOM_GB = 2.0
"""Free disk below which a study of many networks may not fit."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    found: str
    advice: str = ""
    """What to do; empty when all is well."""


def doctor(*, lab: LabPath = None, port: Port = None) -> int:
    """Check this machine and the lab folder, and say what to do about each thing that is not as it should be."""
    console = Console(highlight=False)
    findings = list(examine(LabFolder.find(lab), DEFAULT_PORT if port is None else port))
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = "[yellow]warn[/]" if finding.advice else "[green]ok[/]  "
        console.print(f"{mark} {finding.name:{width}}  {finding.found}", soft_wrap=True)
        if finding.advice:
            console.print(f"     {'':{width}}  {finding.advice}", soft_wrap=True)
    return ExitCode.OK


def examine(lab: LabFolder, port: int) -> Iterator[Finding]:
    """Every finding, in the order in which a person would fix them."""
    yield _python()
    yield _torch()
    yield _devices()
    yield _threads()
    yield _folder(lab.path)
    yield _disk(lab.path)
    yield _database(lab)
    yield _server(lab, port)
    yield from _data(lab.data)
    yield _browser()


def _python() -> Finding:
    return Finding("Python", f"{platform.python_version()} at {sys.executable}")


def _torch() -> Finding:
    tested = torch.__version__.startswith(TESTED_TORCH)
    advice = "" if tested else f"the lab is tested with torch {TESTED_TORCH}; `make clean demo` installs it"
    return Finding("torch", torch.__version__, advice)


def _devices() -> Finding:
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding("devices", ", ".join(["CPU", *names]))


def _threads() -> Finding:
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    forced = os.environ.get("OMP_NUM_THREADS")
    advice = f"OMP_NUM_THREADS is {forced}: unset it to use every core" if forced and threads < cores else ""
    return Finding("threads", f"{threads} of {cores} cores", advice)


def _folder(path: Path) -> Finding:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            "lab folder", str(path), f"{existing} cannot be written: name another folder with --lab"
        )
    return Finding("lab folder", f"{path}{'' if path.exists() else ' (will be made)'}")


def _disk(path: Path) -> Finding:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 1e9
    advice = (
        f"less than {ROOM_GB:g} GB: delete runs and `symlab purge`, or make room" if free < ROOM_GB else ""
    )
    return Finding("disk", f"{free:.1f} GB free", advice)


def _database(lab: LabFolder) -> Finding:
    """A running server holds the file open and has checked it; otherwise it is read here."""
    if not lab.database.exists():
        return Finding("database", "none yet")
    try:
        with duckdb.connect(str(lab.database), read_only=True) as connection:
            [(version,)] = connection.sql("SELECT max(version) FROM schema_version").fetchall()
    except duckdb.IOException:
        return Finding("database", "in use by a server")
    except duckdb.Error as error:
        advice = "restore the folder from a copy, or name another with --lab"
        return Finding("database", f"{lab.database} cannot be read: {str(error).splitlines()[0]}", advice)
    newer = version > len(MIGRATIONS)
    advice = "written by a newer Symmetry Lab: upgrade, or name another folder with --lab" if newer else ""
    return Finding("database", f"version {version} (this lab reads up to {len(MIGRATIONS)})", advice)


def _server(lab: LabFolder, port: int) -> Finding:
    address = running(lab)
    if address is not None:
        return Finding("server", f"at {address}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return Finding(
                "server", f"none; port {port} is taken, so `symlab up` will take the next free one"
            )
    return Finding("server", f"none; port {port} is free")


def _data(folder: Path) -> Iterator[Finding]:
    for name, source in SOURCES.items():
        if source.published.missing(folder):
            advice = (
                f"a study that needs it downloads it; without a network put {source.published.where(folder)}"
            )
            yield Finding("data", f"{name} is not here", advice)
        else:
            yield Finding("data", name)


def _browser() -> Finding:
    if browsing.available():
        return Finding("browser", "yes")
    return Finding("browser", "none here", "open the link that `symlab up` prints on a machine that has one")
