"""A person's own networks: registered under a name by a file of theirs, and named by specs.

Runs are carried out by other processes, so each process imports the files that `$SYMLAB_NETWORKS` names when it first
meets a registered network. A spec holds a checksum of the file that builds the network, so that other code makes
another hash.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from torch import nn

from symcore.networks.adopted import adopt
from symcore.networks.checks import NetworkError, check
from symcore.networks.layout import Layout, record
from symcore.settings import Settings, is_stored

VARIABLE = "SYMLAB_NETWORKS"
"""Environment variable: modules, or paths of .py files, with commas between them."""

Build = Callable[..., nn.Module]
"""`build(input_shape, classes, **settings)`: a freshly initialised network; `input_shape` has no batch axis."""


@dataclass(frozen=True)
class Registration:
    """One registered network."""

    build: Build
    title: str
    code: str
    """Checksum of the file that defines `build`."""


_registrations: dict[str, Registration] = {}
_imported: set[str] = set()
_lock = threading.RLock()


def register(name: str, build: Build, *, title: str = "") -> None:
    """Makes a network of one's own known under a name; call it in a file that `$SYMLAB_NETWORKS` names.

    Args:
        name: what specs call it: `{"kind": "registered", "name": name, "settings": {...}}`.
        build: `build(input_shape, classes, **settings)` returns a freshly initialised module that maps
            [batch, *input_shape] to logits [batch, class] and draws from torch's generator alone.
        title: what people see; without it the name.

    Raises:
        NetworkError: if the name is taken by code in another file, or the source of `build` cannot be read.
    """
    found = Registration(build, title or name, _checksum(build))
    known = _registrations.get(name)
    if known is not None and _file(known.build) != _file(build):
        msg = f"name: {name!r} is registered by {_file(known.build)} already; accepted: another name"
        raise NetworkError(msg)
    _registrations[name] = found


def _file(build: Build) -> str:
    return inspect.getsourcefile(inspect.unwrap(build)) or "<unknown>"


def _checksum(build: Build) -> str:
    """Names the content of the file that defines a function; of one that is typed in a notebook, its own source."""
    try:
        path = Path(_file(build))
        source = path.read_bytes() if path.exists() else inspect.getsource(inspect.unwrap(build)).encode()
    except (OSError, TypeError) as error:
        msg = f"build: the source of {build!r} cannot be read ({error}); accepted: a function that a .py file defines"
        raise NetworkError(msg) from error
    return hashlib.sha256(source).hexdigest()[:16]


def registered() -> dict[str, Registration]:
    """All registered networks by name, those in the files of `$SYMLAB_NETWORKS` among them.

    Raises:
        NetworkError: if one of those cannot be imported.
    """
    with _lock:
        for entry in filter(None, (part.strip() for part in os.environ.get(VARIABLE, "").split(","))):
            if entry not in _imported:
                _import(entry)
                _imported.add(entry)
    return dict(_registrations)


def _import(entry: str) -> None:
    """Runs a module, or a .py file."""
    try:
        if entry.endswith(".py"):
            _run(Path(entry).expanduser().resolve())
        else:
            importlib.import_module(entry)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        msg = f"{VARIABLE}: {entry} cannot be imported ({reason}); accepted: modules or paths of .py files, with commas between"
        raise NetworkError(msg) from error


def _run(path: Path) -> None:
    name = f"symlab_networks_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        msg = f"{path} is no Python file"
        raise ImportError(msg)
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # where dataclasses and torch.export look for what the file defines
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def named(name: str) -> Registration:
    """The registration of a name.

    Raises:
        NetworkError: if there is none, naming those that there are.
    """
    known = registered()
    if name not in known:
        here = os.environ.get(VARIABLE)
        where = f"{VARIABLE} is {here}" if here else f"{VARIABLE} names no file"
        msg = f"{name!r} is not registered; accepted: {', '.join(known) or 'none'} ({where})"
        raise NetworkError(msg)
    return known[name]


def title(name: str) -> str:
    """What people call a registered network; its name where it is not here."""
    try:
        return named(name).title
    except NetworkError:
        return name


def _as_typed(given: object) -> object:
    """Flags are text: what reads as a number, or as true or false, is one."""
    if isinstance(given, str):
        with suppress(ValueError):
            read: object = json.loads(given)
            return read if isinstance(read, int | float) else given
    return given


Argument = Annotated[int | float | bool | str, BeforeValidator(_as_typed)]


class RegisteredSpec(Settings):
    """A network of one's own, registered by a file that `$SYMLAB_NETWORKS` names (docs/own-networks.md)."""

    label: ClassVar[str] = "registered network"

    kind: Literal["registered"] = "registered"
    name: str = Field(default="", validate_default=True)
    """Name under which it is registered."""
    settings: dict[str, Argument] = Field(default={})
    """Arguments of its build function beside input shape and classes; those left out have its defaults."""
    code: str = ""
    """Checksum of the file that builds it; runs fill it in, and refuse another."""

    def __hash__(self) -> int:
        return hash(json.dumps(self.model_dump(mode="json"), sort_keys=True))

    @field_validator("name")
    @classmethod
    def _is_registered(cls, name: str, info: ValidationInfo) -> str:
        if not is_stored(info):
            named(name)
        return name

    @field_validator("settings")
    @classmethod
    def _are_arguments(cls, settings: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "name" in info.data and not is_stored(info):
            signature = inspect.signature(named(info.data["name"]).build)
            try:
                signature.bind((), 0, **settings)
            except TypeError as error:
                msg = (
                    f"{json.dumps(settings)}: {error}; accepted: arguments of {info.data['name']}{signature}"
                )
                raise ValueError(msg) from error
        return settings

    @field_validator("code")
    @classmethod
    def _is_present(cls, code: str, info: ValidationInfo) -> str:
        if code and "name" in info.data and not is_stored(info):
            _check_code(info.data["name"], code)
        return code

    def pinned(self) -> Self:
        """The same with its code's checksum, if it is registered here."""
        found = registered().get(self.name)
        return self if self.code or found is None else self.model_copy(update={"code": found.code})

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """A freshly initialised network for inputs of `input_shape`, [batch, *input_shape] -> [batch, class].

        Dropout does nothing in it, BatchNorm is the lab's own (`symcore.networks.adopted`), and the order of its layers is
        that of its graph (`symcore.networks.layout`).

        Raises:
            NetworkError: if it is not registered, is built by other code than the spec's, or is not what the lab can
                work with (`symcore.networks.checks`).
        """
        found = named(self.name)
        if self.code:
            _check_code(self.name, self.code)
        order = _checked(self.pinned(), input_shape, classes)
        return record(adopt(found.build(input_shape, classes, **self.settings)), order)


def _check_code(name: str, code: str) -> None:
    present = named(name).code
    if code != present:
        msg = (
            f"{code!r} is not the code that this process has of {name!r}: its file has changed; accepted: {present} "
            "(a running lab reads the file once: start it anew)"
        )
        raise NetworkError(msg)


@lru_cache(maxsize=256)
def _checked(spec: RegisteredSpec, input_shape: tuple[int, ...], classes: int) -> Layout:
    """Checks one form of a network, once in a process; it leaves torch's generator as it was."""
    build = named(spec.name).build
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return check(spec.name, lambda: build(input_shape, classes, **spec.settings), input_shape, classes)
