"""The base of every settings model: immutable, closed, with the docstring under a field as its description."""

from __future__ import annotations

from typing import Any, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

STORED = {"stored": True}
"""Validation context of settings that were accepted once: what lies outside them may have changed since.

A study that was made with a person's own network can be looked at when the network is no longer there.
"""


def is_stored(info: ValidationInfo) -> bool:
    """Whether settings are read back, so that only their form is checked."""
    return bool(info.context and info.context.get("stored"))


class Settings(BaseModel):
    """Immutable settings that refuse unknown fields and describe themselves.

    The docstring under a field is its description in forms, `--help` and the API's schema.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _errors_name_fields_as_people_write_them(
        cls,
        given: Any,  # noqa: ANN401 - what came from outside
        handler: ModelWrapValidatorHandler[Self],
    ) -> Self:
        """In a union pydantic says `network.mlp.width`; the field is `network.width`."""
        try:
            return handler(given)
        except ValidationError as error:
            details = [_as_written(detail, cls) for detail in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(error.title, details) from error


def union_members(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """The models of a union that is discriminated by `kind`, by their kinds."""
    return {member.model_fields["kind"].default: member for member in get_args(field.annotation)}


def _as_written(detail: ErrorDetails, model: type[BaseModel]) -> InitErrorDetails:
    """An error with its field named without the kind that pydantic adds; an unknown kind is told at `kind` itself."""
    location, value, message = detail["loc"], detail["input"], detail["msg"]
    field = model.model_fields.get(str(location[0])) if location else None
    if field is not None and field.discriminator:
        if location[1:2] and location[1] in union_members(field):
            location = (location[0], *location[2:])
        elif detail["type"] == "union_tag_invalid":
            location, value = (*location, "kind"), detail["ctx"]["tag"]
            message = f"Input should be one of {detail['ctx']['expected_tags']}"
    return InitErrorDetails(
        type=PydanticCustomError(detail["type"], "{said}", {"said": message}),
        loc=location,
        input=value,
    )
