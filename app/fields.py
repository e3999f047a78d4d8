"""From a pydantic model to form fields and back: one walk over `model_fields`, without a widget.

A form's values live in one flat dictionary: "training.epochs" -> 60, "treatment" -> "w_asymmetric",
"treatment[w_asymmetric].kappa" -> "1, 0.5". Every member of a union keeps its own values there, so that changing
the choice and changing it back loses nothing.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app import wording
from app.controls import Choice, Control, Items, Json, Models, Number, Switch, Text, accepted, read, show

Values = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """One field of a form."""

    key: str
    """Names its value among others, with the chosen member of each union: "treatment[w_asymmetric].kappa"."""
    path: str
    """Names it to people and in errors: "treatment.kappa"."""
    label: str
    help: str
    optional: bool
    """Whether it may be left out, which is stored as null."""
    default: Any
    control: Control


def fields(model: type[BaseModel], key: str = "", path: str = "") -> list[Field]:
    """The fields of a model that a person can set; those with a single possible value are left out."""
    found = []
    for name, info in model.model_fields.items():
        annotation, optional = _without_none(info.annotation)
        control = _control(annotation, info.metadata)
        if isinstance(control, Choice) and len(control.options) == 1 and not control.many:
            continue
        default = None if info.is_required() else info.get_default(call_default_factory=True)
        label = info.title or wording.label(name)
        text = " ".join((info.description or "").split())
        found.append(Field(_joined(key, name), _joined(path, name), label, text, optional, default, control))
    return found


def subfields(field: Field, member: str) -> list[Field]:
    """The fields of one member of a union."""
    assert isinstance(field.control, Models)
    return fields(field.control.members[member], f"{field.key}[{member}]", field.path)


def initial(model: type[BaseModel], spec: BaseModel | None = None) -> Values:
    """What the widgets hold for a spec; what it does not say, as other members of its unions, from the defaults."""
    return dict(_initial(fields(model), spec))


def data(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """The dictionary that a model validates, from what the widgets hold."""
    return _constants(model) | _data(fields(model), values)


def problems(error: ValidationError, shown: list[Field]) -> dict[str, str]:
    """A sentence per wrong field, naming it, its value and what is accepted; the key "" collects what has no field.

    Args:
        error: What validation said.
        shown: The fields on the page, unions followed by those of their chosen member.
    """
    by_path = {field.path: field for field in shown}
    found: dict[str, str] = {}
    for detail in error.errors(include_url=False, include_context=False):
        path = ".".join(str(part) for part in detail["loc"] if isinstance(part, str))
        path = path if path in by_path else _without_members(detail["loc"], by_path)
        said = detail["msg"].removeprefix("Value error, ")
        if path in by_path:
            said = _said(by_path[path], detail, said)
        found[path] = said if path not in found else f"{found[path]}\n\n{said}"
    return found


def chosen(model: type[BaseModel], values: Mapping[str, Any]) -> list[Field]:
    """All fields that a form shows for its present choices, in order."""
    return list(_flat(fields(model), values))


def _flat(some: list[Field], values: Mapping[str, Any]) -> Iterator[Field]:
    for field in some:
        yield field
        member = values.get(field.key)
        if isinstance(field.control, Models) and member is not None:
            yield from _flat(subfields(field, member), values)


def _joined(start: str, name: str) -> str:
    return f"{start}.{name}" if start else name


def _without_none(annotation: Any) -> tuple[Any, bool]:  # noqa: ANN401 - annotations are of any type
    """An annotation without its `None`, and whether it had one."""
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        if len(rest) < len(get_args(annotation)):
            return (rest[0] if len(rest) == 1 else Union[tuple(rest)]), True  # noqa: UP007
    return annotation, False


def _control(annotation: Any, metadata: list[Any]) -> Control:  # noqa: ANN401
    """How a field of some type is edited."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _control(arguments[0], [*metadata, *arguments[1:], *_bounds_inside(arguments[1:])])
    if origin is Literal:
        return Choice(arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is ...:
        return _list_control(_control(arguments[0], []))
    if origin in (Union, types.UnionType) and all(_is_model(part) for part in arguments):
        return Models({part.model_fields["kind"].default: part for part in arguments})
    if _is_model(annotation):
        kind = annotation.model_fields.get("kind", FieldInfo(default=annotation.__name__))
        return Models({str(kind.default): annotation})
    simple: dict[type, Control] = {
        bool: Switch(),
        str: Text(),
        int: _number(metadata, integer=True),
        float: _number(metadata, integer=False),
    }
    return simple.get(annotation, Json()) if isinstance(annotation, type) else Json()


def _list_control(item: Control) -> Control:
    if isinstance(item, Choice):
        return Choice(item.options, many=True)
    return Items(item) if isinstance(item, Number | Text) else Json()


def _bounds_inside(metadata: tuple[Any, ...]) -> list[Any]:
    """Bounds that `Field(ge=...)` carries inside an `Annotated`."""
    return [bound for part in metadata if isinstance(part, FieldInfo) for bound in part.metadata]


def _is_model(annotation: Any) -> bool:  # noqa: ANN401
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _number(metadata: list[Any], *, integer: bool) -> Number:
    bounds: dict[str, Any] = {}
    for bound in metadata:
        match bound:
            case Ge(ge=low):
                bounds |= {"low": low}
            case Gt(gt=low):
                bounds |= {"low": low, "open_low": True}
            case Le(le=high):
                bounds |= {"high": high}
            case Lt(lt=high):
                bounds |= {"high": high, "open_high": True}
    return Number(integer, **bounds)


def _initial(some: list[Field], spec: BaseModel | None) -> Iterator[tuple[str, Any]]:
    for field in some:
        name = field.path.rpartition(".")[2]
        value = field.default if spec is None else getattr(spec, name)
        if not isinstance(field.control, Models):
            yield field.key, show(field.control, value)
            continue
        members = field.control.members
        own = next((tag for tag, member in members.items() if type(value) is member), None)
        yield field.key, own if own or field.optional else next(iter(members))
        for tag in members:
            yield from _initial(subfields(field, tag), value if tag == own else None)


def _constants(model: type[BaseModel]) -> dict[str, Any]:
    """The fields with a single possible value, as `kind`."""
    return {
        name: get_args(info.annotation)[0]
        for name, info in model.model_fields.items()
        if get_origin(info.annotation) is Literal and len(get_args(info.annotation)) == 1
    }


_EMPTY: dict[type[Any], Any] = {Items: [], Text: ""}
"""What an empty widget means where a field may not be left out; for others it means that nothing was given."""


def _data(some: list[Field], values: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for field in some:
        name, shown = field.path.rpartition(".")[2], values.get(field.key)
        if not isinstance(field.control, Models):
            value = read(field.control, shown)
            made[name] = _EMPTY.get(type(field.control)) if value is None and not field.optional else value
        elif shown is None:
            made[name] = None
        else:
            member = field.control.members[shown]
            made[name] = _constants(member) | _data(subfields(field, shown), values)
    return made


def _without_members(location: tuple[int | str, ...], known: Mapping[str, Field]) -> str:
    """The longest known path that a location spells out, names of union members left out."""
    path = ""
    for part in location:
        path = longer if isinstance(part, str) and (longer := _joined(path, part)) in known else path
    return path


def _said(field: Field, detail: Mapping[str, Any], message: str) -> str:
    """A sentence with the field's name, its value and what is accepted; a check's own words are kept."""
    if "accepted" not in message:
        return f"{field.path}: {_told(detail)}; accepted: {accepted(field.control)}"
    name = field.path.rpartition(".")[2]
    return message if message.startswith(name) else f"{name}: {message}"


def _told(detail: Mapping[str, Any]) -> str:
    return (
        "nothing given"
        if detail["input"] in (None, PydanticUndefined) or detail["type"] == "missing"
        else repr(detail["input"])
    )
