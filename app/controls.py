"""How one value of a form is edited: what a widget shows of it, how that is read, and what is accepted, in words."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

SAFE_INTEGER = 2**53 - 1
"""Greatest integer that a browser's number keeps exactly."""


@dataclass(frozen=True)
class Number:
    """An integer, edited with steps where its range is small, or a real, edited as text so that 1e-3 can be typed."""

    integer: bool
    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    @property
    def typed(self) -> bool:
        """Whether it is edited as text."""
        return not self.integer or self.high is None or self.high > SAFE_INTEGER


@dataclass(frozen=True)
class Switch:
    """True or false."""


@dataclass(frozen=True)
class Text:
    """A line of text."""


@dataclass(frozen=True)
class Choice:
    """One of a few values, or several of them where `many`."""

    options: tuple[Any, ...]
    many: bool = False


@dataclass(frozen=True)
class Items:
    """Several numbers or words, edited as text with commas between them."""

    item: Number | Text


@dataclass(frozen=True)
class Json:
    """Anything else, edited as JSON."""


@dataclass(frozen=True)
class Models:
    """One of several models, told apart by their `kind`; a lone model is the only one of its kind."""

    members: dict[str, type[BaseModel]]


Control = Number | Switch | Text | Choice | Items | Json | Models


def accepted(control: Control) -> str:
    """What a control accepts, in words."""
    match control:
        case Number():
            return _accepted_number(control)
        case Choice(options, many):
            return ("some of " if many else "one of ") + ", ".join(map(str, options))
        case Models(members):
            return "one of " + ", ".join(members)
        case Items(item):
            return f"a list, each {accepted(item)}"
        case _:
            return {Switch: "true or false", Json: "JSON", Text: "text"}[type(control)]


def show(control: Control, value: Any) -> Any:  # noqa: ANN401
    """What the widget holds for a value."""
    match control:
        case Number(integer) if control.typed:
            return "" if value is None else str(value) if integer else shortest(value)
        case Choice(_, True):
            return list(value or ())
        case Items(item):
            typed = Number(item.integer) if isinstance(item, Number) else item
            return ", ".join(show(typed, part) for part in value or ())
        case Json():
            return "" if value is None else json.dumps(value)
        case Text():
            return value or ""
        case _:
            return value


def read(control: Control, shown: Any) -> Any:  # noqa: ANN401
    """The value of what the widget holds; text that cannot be read stays text, for validation to refuse."""
    match control:
        case Items(item):
            parts = re.split(r"[,;\s]+", (shown or "").strip("()[] \n"))
            return [read(item, part) for part in parts if part] or None
        case Number(integer) if isinstance(shown, str):
            text = shown.strip().replace("−", "-")
            return _parsed(int if integer else float, text) if text else None
        case Json():
            return _parsed(json.loads, shown) if shown else None
        case Text():
            return shown or None
        case _:
            return shown


def _accepted_number(number: Number) -> str:
    name = "an integer" if number.integer else "a number"
    low = None if number.low is None else shortest(number.low)
    high = None if number.high is None else shortest(number.high)
    if low is not None and high is not None and not number.open_low and not number.open_high:
        return f"{name} from {low} to {high}"
    limits = []
    if low is not None:
        limits.append(f"{'above' if number.open_low else 'at least'} {low}")
    if high is not None:
        limits.append(f"{'below' if number.open_high else 'at most'} {high}")
    return " ".join([name, " and ".join(limits)]).strip()


def _parsed(read: Any, text: str) -> Any:  # noqa: ANN401
    try:
        return read(text)
    except ValueError:
        return text


def shortest(value: float) -> str:
    """The shortest text that reads back as the same number: 0.001, 1e-05, 25."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e16 else repr(float(value))
