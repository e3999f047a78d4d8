"""Writes the parts of docs/ that follow from the code: `make docs`; tests/test_docs.py checks that they are current."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jobs import registry
from jobs.cli.command import app
from jobs.cli.help import as_typed
from jobs.specs import changes

MARK = "<!-- From here on written by `make docs`. -->\n"
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}

Schema = dict[str, Any]


def commands() -> str:
    """Every command of `symlab` with its options, less the discriminators that can have one value only."""
    text = app.generate_docs(output_format="markdown", usage_name="symlab")
    body = text[text.index("\n## symlab ") :]
    body = re.sub(r"\* `--(\S+\.)?kind CHOICE`:.*\*\[choices: [^,\]]*\]\*.*\n", "", body)
    return re.sub(r" \*\[default: (.*)\]\*", _default, body)


def _default(found: re.Match[str]) -> str:
    default = as_typed(found[1])
    return "" if default is None else f" *[default: {default}]*"


def settings() -> str:
    """A table of every field of every study and every kind of run."""
    studies = "".join(_section("Study", name, module) for name, module in registry.studies().items())
    runs = "".join(_section("Run", name, module) for name, module in registry.kinds().items())
    return studies + runs


def _section(what: str, name: str, module: registry.Kind | registry.Study) -> str:
    schema = module.Spec.model_json_schema()
    table = "\n".join(_rows(schema, schema.get("$defs", {}), ""))
    heading = f"\n## {what} `{name}`\n\n{schema['description']}\n"
    fields = f"\n| setting | accepted | default | meaning |\n| --- | --- | --- | --- |\n{table}\n"
    return heading + fields + _presets(getattr(module, "PRESETS", {}))


def _rows(schema: Schema, definitions: dict[str, Schema], prefix: str, whose: str = "") -> Iterator[str]:
    """One row for each leaf; a nested model's fields follow under its name, those of each member of a union too."""
    for name, field in schema["properties"].items():
        members = [_resolve(member, definitions) for member in field.get("oneOf", [field])]
        if all("properties" in member for member in members):
            kinds = [member["properties"]["kind"]["const"] for member in members if len(members) > 1]
            if kinds:
                accepted = ", ".join(f"`{known}`" for known in kinds)
                default = field.get("default", {}).get("kind", "required")
                yield f"| `{prefix}{name}.kind` | {accepted} | {default} | {_cell(field['description'])} |"
            for member, kind in zip_longest(members, kinds):
                yield from _rows(member, definitions, f"{prefix}{name}.", f"{kind}: " if kind else "")
        elif "const" not in field:
            default = _plain(field["default"]) or "empty" if "default" in field else "required"
            accepted = _accepted(field, definitions)
            meaning = _cell(whose + field.get("description", ""))
            yield f"| `{prefix}{name}` | {accepted} | {default} | {meaning} |"


def _resolve(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    return definitions[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def _accepted(field: Schema, definitions: dict[str, Schema]) -> str:
    """What a field takes, in words."""
    field = _resolve(field, definitions)
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(_accepted(member, definitions) for member in field["anyOf"])
    if "prefixItems" in field:
        return "[" + ", ".join(_accepted(item, definitions) for item in field["prefixItems"]) + "]"
    holder, of = {"array": ("list", "items"), "object": ("JSON object", "additionalProperties")}.get(
        field["type"], ("", "")
    )
    if holder:
        return f"{holder} of {_accepted(field[of], definitions)}"
    kind = {"null": "none", "string": "text", "boolean": "true, false"}.get(field["type"], field["type"])
    bounds = [f"{sign} {_number(field[bound])}" for bound, sign in BOUNDS.items() if bound in field]
    return " ".join([kind, ", ".join(bounds)]).strip()


def _number(bound: float) -> str:
    """A bound in digits, or as the power of two that a seed ends at."""
    exponent = int(bound).bit_length() - 1
    return f"2^{exponent}" if exponent > 16 and bound == 2**exponent else f"{bound:g}"


def _presets(presets: dict[str, Any]) -> str:
    """What each preset changes from the defaults."""
    if not presets:
        return ""
    lines = [f"| `{name}` | {_changes(changes(spec))} |" for name, spec in presets.items()]
    return "\n| preset | changes from the defaults |\n| --- | --- |\n" + "\n".join(lines) + "\n"


def _changes(values: Schema, prefix: str = "") -> str:
    parts = [
        _changes(value, f"{prefix}{name}.")
        if isinstance(value, dict)
        else f"`{prefix}{name}` {_plain(value)}"
        for name, value in values.items()
    ]
    return ", ".join(parts) or "none"


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_plain(item) for item in value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


GENERATED = {"cli.md": commands, "settings.md": settings}
"""The pages with a generated part, which begins at the mark."""


def main() -> None:
    """Writes every generated part anew."""
    for name, generate in GENERATED.items():
        path = Path(__file__).parent / name
        path.write_text(path.read_text().split(MARK)[0] + MARK + generate())


if __name__ == "__main__":
    main()
