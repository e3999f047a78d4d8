"""A form made by walking a spec's fields: a widget per field, its help beside it, its error under it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import streamlit as st
from pydantic import BaseModel, ValidationError

from app import fields, theme
from app.controls import Choice, Models, Number, Switch, accepted
from app.fields import Field, Values

SELDOM = ("sigma_learning_rate", "block", "seed", "mask_seed", "precision")
"""Settings that stand after the others."""


class Form:
    """A form for one model, filled from a spec; what people type lives in the session under `name`."""

    def __init__(self, model: type[BaseModel], start: BaseModel | None, name: str) -> None:
        """Read what has been typed so far.

        Args:
            model: What the form makes.
            start: Fills the fields at first; none: the defaults.
            name: Keeps this form's widgets apart; another name is another form, filled afresh.
        """
        self._model, self._name = model, name
        values = fields.initial(model, start)
        self.values: Values = {
            key: st.session_state.get(self._key(key), value) for key, value in values.items()
        }
        self._given = values
        self.spec: BaseModel | None = None
        """The spec that the fields make, none while something is wrong."""
        self.errors: dict[str, str] = {}
        """A sentence per wrong field by its path; "" for what has no field."""
        try:
            self.spec = model.model_validate(fields.data(model, self.values))
        except ValidationError as error:
            self.errors = fields.problems(error, fields.chosen(model, self.values))

    def draw(self) -> None:
        """The widgets: first the model's own settings, then a box for each model inside it."""
        if "" in self.errors:
            st.error(self.errors[""], icon=":material/error:")
        self._draw(fields.fields(self._model), across=3)

    def _key(self, key: str) -> str:
        return f"{self._name}/{key}"

    def _draw(self, some: list[Field], across: int) -> None:
        """Single values `across` in a row, choices of several in a row of their own, then the boxes by twos."""
        wide = [field for field in some if isinstance(field.control, Choice) and field.control.many]
        boxes = [field for field in some if isinstance(field.control, Models)]
        plain = [field for field in some if field not in wide and field not in boxes]
        plain.sort(key=lambda field: SELDOM.index(field.path) + 1 if field.path in SELDOM else 0)
        for field in wide:
            self._widget(field)
        for start in range(0, len(plain), across):
            for field, column in zip(plain[start : start + across], st.columns(across), strict=False):
                with column:
                    self._widget(field)
        if boxes:
            for place, column in enumerate(st.columns(2)):
                with column:
                    for field in boxes[place::2]:
                        self._box(field)

    def _box(self, field: Field) -> None:
        """A bordered box for a nested model, with a choice of its kind where there are several."""
        assert isinstance(field.control, Models)
        with st.container(border=True):
            st.markdown(f"**{field.label}**", help=field.help or None)
            if len(field.control.members) > 1 or field.optional:
                names = {
                    kind: getattr(member, "label", kind) for kind, member in field.control.members.items()
                }
                self._choice(field, Choice(tuple(names)), lambda kind: names.get(kind) or _option(kind))
            member = self.values[field.key]
            if member is not None:
                self._draw(fields.subfields(field, member), across=2)
            self._error(field)

    def _widget(self, field: Field) -> None:
        """A field's widget, and under it what is wrong with its value."""
        common: dict[str, Any] = {"label": field.label, "key": self._key(field.key), "help": _help(field)}
        given = self._given[field.key]
        empty = "default" if field.optional else "required"
        match field.control:
            case Switch():
                st.space("xxsmall")
                st.toggle(**common, value=given)
            case Choice(many=False):
                self._choice(field, field.control)
            case Choice(options=options):
                st.pills(
                    **common,
                    options=options,
                    default=given,
                    format_func=_option,
                    selection_mode="multi",
                    wrap=True,
                )
            case Number() as number if not number.typed:
                st.number_input(**common, value=given, step=1, placeholder=empty)
            case _:
                st.text_input(**common, value=given, placeholder=empty)
        self._error(field)

    def _choice(self, field: Field, control: Choice, spoken: Callable[[Any], str] | None = None) -> None:
        given = self._given[field.key]
        options = [*([None] if field.optional else []), *control.options]
        st.selectbox(
            field.label,
            options,
            index=options.index(given),
            format_func=spoken or _option,
            key=self._key(field.key),
            help=_help(field),
        )

    def _error(self, field: Field) -> None:
        if field.path in self.errors:
            st.html(f'<p class="lab-error" role="alert">{escape(self.errors[field.path])}</p>')


def _help(field: Field) -> str:
    """A field's description and what it accepts."""
    return f"{field.help} Accepted: {accepted(field.control)}.".strip()


def _option(option: Any) -> str:  # noqa: ANN401 - any literal
    """A choice as people read it; treatments by their names."""
    if option is None:
        return "default"
    return theme.treatment(str(option)).label
