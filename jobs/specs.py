"""What a spec is: a pydantic model with one canonical JSON form and the hash of it.

A run is one spec executed. Its hash holds every field that can change a number and nothing else, so two runs
with one hash answer the same question and a finished one is reused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from symcore.data.sources import SOURCES
from symcore.networks.registered import RegisteredSpec
from symcore.networks.registry import NetworkSpec
from symcore.settings import Settings, is_stored

SpecHash = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
"""The first 32 hexadecimal digits of the SHA-256 of a spec's canonical JSON."""

if TYPE_CHECKING:
    DataName = str
else:
    DataName = Literal[tuple(SOURCES)]
    """Name of a data set, one of `SOURCES`."""


def refusal(message: str) -> PydanticCustomError:
    """What a validator raises about its own field; pydantic adds the field and the value."""
    return PydanticCustomError("refused", "{reason}", {"reason": message})


def in_order(known: tuple[str, ...]) -> AfterValidator:
    """Puts the names that were chosen of some into one order, and asks for at least one."""

    def sort(names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            msg = f"none is chosen; accepted: one or more of {', '.join(known)}"
            raise refusal(msg)
        return tuple(name for name in known if name in names)

    return AfterValidator(sort)


def _distinct(pairs: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    if len(set(pairs)) != len(pairs):
        msg = f"{list(pairs)} holds a pair twice; accepted: each pair once"
        raise refusal(msg)
    return pairs


Member = Annotated[int, Field(ge=0)]
Pairs = Annotated[tuple[tuple[Member, Member], ...], Field(min_length=1), AfterValidator(_distinct)]
"""Pairs of members of one population, by their place in it."""


class RunSpec(Settings):
    """Base of every kind of run. Subclasses fix `kind` and an integer `version` that a fix of the science raises."""

    kind: str
    version: int

    @field_validator("network", check_fields=False)
    @classmethod
    def _pin_code(cls, network: NetworkSpec) -> NetworkSpec:
        """A person's own network is named with the code that builds it, so that other code makes another hash."""
        return network.pinned() if isinstance(network, RegisteredSpec) else network

    def inputs(self) -> tuple[SpecHash, ...]:
        """Hashes of the runs whose results this run reads; they must be done before it starts."""
        return ()


def with_checksum(given: Any, field: str) -> Any:  # noqa: ANN401 - what came from outside
    """Settings with `{field}_checksum` filled in if they name a data set in `field` and no content of it."""
    checksum = f"{field}_checksum"
    if isinstance(given, dict) and not given.get(checksum) and given.get(field) in SOURCES:
        return given | {checksum: SOURCES[given[field]].checksum}
    return given


def checked_checksum(given: str, field: str, info: ValidationInfo) -> str:
    """The checksum, if it names what is read of the data set in `field` now; of stored settings it may name what was.

    Raises:
        PydanticCustomError: if it does not.
    """
    data = info.data.get(field)
    if data in SOURCES and not is_stored(info) and given != SOURCES[data].checksum:
        msg = f"{given!r} is not the content of {data}; accepted: {SOURCES[data].checksum}"
        raise refusal(msg)
    return given


class MaybeDataRunSpec(RunSpec):
    """Base of the kinds that may read a data set; its checksum is part of the spec, so other bytes make another hash."""

    data: DataName | None
    """Data set."""
    data_checksum: str = ""
    """Names the exact content; filled in when it is left out."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_checksum(cls, given: Any) -> Any:  # noqa: ANN401 - what came from outside
        return with_checksum(given, "data")

    @field_validator("data_checksum")
    @classmethod
    def _names_what_is_read(cls, given: str, info: ValidationInfo) -> str:
        return checked_checksum(given, "data", info)


class DataRunSpec(MaybeDataRunSpec):
    """Base of the kinds that always read a data set."""

    data: DataName
    """Data set."""


class StudySpec(Settings):
    """Base of every study: a recipe that expands into a graph of runs."""

    title: ClassVar[str]
    order: ClassVar[int] = 1
    """Place among the studies that people choose from; those of one place stand by name."""

    kind: str


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study and the part it plays there, say "standard/train/0"."""

    role: str
    spec: RunSpec


def changes(spec: Settings) -> dict[str, Any]:
    """The settings that differ from the defaults; with a union's member its kind, without which it would be another."""
    found = spec.model_dump(mode="json", exclude_defaults=True)
    for name, field in type(spec).model_fields.items():
        if field.discriminator and name in found:
            found[name] = {"kind": getattr(spec, name).kind} | found[name]
    return found


def canonical_json(spec: Settings) -> str:
    """The one JSON text of a spec: sorted keys, no spaces, defaults written out."""
    return json.dumps(spec.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)


def spec_hash(spec: RunSpec) -> SpecHash:
    """The hash that names what a run computes."""
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()[:32]
