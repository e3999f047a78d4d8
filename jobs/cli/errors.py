"""Errors as a person at a terminal needs them: one line each, naming the flag, its value and what is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import pydantic


class ExitCode(IntEnum):
    """What `symlab` says to the shell."""

    OK = 0
    FAILED = 1
    """A study failed or was cancelled."""
    USAGE = 2
    """A command or the machine is not as it must be; nothing was started."""
    INTERRUPTED = 130
    """Ctrl-C, as shells count it."""


def flag(location: Sequence[str | int]) -> str:
    """The flag of a spec's field: ("training", "batch_size") -> "--training.batch-size"; list positions are left out."""
    return "--" + ".".join(str(part).replace("_", "-") for part in location if not isinstance(part, int))


def lines(error: Exception) -> list[str]:
    """The lines to print for an error; every wrong field of a spec has its own."""
    if isinstance(error.__cause__, pydantic.ValidationError):
        return lines(error.__cause__)
    if isinstance(error, pydantic.ValidationError):
        return [_field_line(details["loc"], details["input"], details["msg"]) for details in error.errors()]
    text = str(error) or type(error).__name__
    return [" ".join(text.split())]


def _field_line(location: Sequence[str | int], value: object, message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not location:
        return message
    if value is None:  # the default, which nobody typed
        return f"{flag(location)}: {message}"
    typed = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return f"{flag(location)} {typed}: {message}"
