"""The base of every settings model: immutable, closed, with the docstring under a field as its description."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Immutable settings that refuse unknown fields and describe themselves.

    The docstring under a field is its description in forms, `--help` and the API's schema.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
