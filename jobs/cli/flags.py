"""A spec as flags: what cyclopts reads where the members of a union share the names of fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Optional, Union, get_args, get_origin

from pydantic import BaseModel, Field, GetCoreSchemaHandler, create_model
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

from symcore.settings import union_members

Fields = dict[str, Any]
"""What `create_model` takes: for each name an annotation and a FieldInfo."""


def readable(spec: type[BaseModel]) -> type[BaseModel]:
    """A stand-in for cyclopts, which has one model in place of each union, and validates as the spec itself.

    Cyclopts refuses a union two of whose members have a field of one name, `width` say, that differs in anything.
    """

    class StandIn(BaseModel):
        @classmethod
        def __get_pydantic_core_schema__(cls, _source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
            return handler.generate_schema(spec)

    fields: Fields = {
        name: (_merged(info), Field(description=info.description))
        if info.discriminator
        else (info.annotation, info)
        for name, info in spec.model_fields.items()
    }
    return create_model(spec.__name__, __base__=StandIn, **fields)


def _merged(union: FieldInfo) -> type[BaseModel]:
    """One model with the fields of all members; each says whose it is."""
    infos: dict[str, dict[str, FieldInfo]] = {}
    for kind, member in union_members(union).items():
        for name, info in member.model_fields.items():
            infos.setdefault(name, {})[kind] = info
    kinds = infos.pop("kind")
    fields: Fields = {name: _of_several(of_kind) for name, of_kind in infos.items()}
    chosen = Field(default=getattr(union.default, "kind", None), description=union.description)
    return create_model("Members", kind=(_either(i.annotation for i in kinds.values()), chosen), **fields)


def _of_several(infos: Mapping[str, FieldInfo]) -> tuple[Any, Any]:
    """A field that some members have, by their kinds: annotation and FieldInfo."""
    if len(infos) == 1:
        ((kind, info),) = infos.items()
        return info.annotation, Field(default=info.default, description=f"{kind}: {info.description}")
    told = (f"{kind}: {info.description} Default: {info.default}." for kind, info in infos.items())
    annotation = _either(info.annotation for info in infos.values())
    return Optional[annotation], Field(default=None, description=" ".join(told))  # noqa: UP045 - made at run time


def _either(annotations: Iterable[Any]) -> Any:  # noqa: ANN401 - annotations are of any type
    """One annotation for values of any of these."""
    distinct = tuple(dict.fromkeys(annotations))
    if all(get_origin(annotation) is Literal for annotation in distinct):
        return Literal[tuple(value for annotation in distinct for value in get_args(annotation))]
    return Union[distinct]  # noqa: UP007 - as many as there are
