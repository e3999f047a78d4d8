"""Finds the kinds of runs and studies by looking into their packages, and reads specs of any of them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol, cast

import pyarrow as pa
import pydantic_core
from pydantic import ValidationError
from pydantic_core import InitErrorDetails

import jobs.kinds
import jobs.studies
from jobs.estimates import Estimate
from jobs.headline import Headline, Rows
from jobs.job import Job
from jobs.records import COMMON
from jobs.specs import PlannedRun, RunSpec, SpecHash, StudySpec, refusal
from symcore.settings import STORED


class Kind(Protocol):
    """What a module in `jobs.kinds` offers."""

    Spec: type[Any]
    TABLES: dict[str, pa.Schema]

    def execute(self, spec: Any, job: Job) -> dict[str, float]:  # noqa: ANN401 - each kind has its own spec
        """Carries the run out and returns its headline numbers."""
        ...

    def check_inputs(self, spec: Any, upstream: Mapping[SpecHash, RunSpec]) -> None:  # noqa: ANN401
        """Raises a ValidationError if a run that it reads does not fit it; of some the spec may not be known."""
        ...

    def estimate(self, spec: Any, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:  # noqa: ANN401
        """What the run costs, given the specs of the runs that it reads."""
        ...

    def title(self, spec: Any) -> str:  # noqa: ANN401
        """One line for people."""
        ...


class Study(Protocol):
    """What a module in `jobs.studies` offers."""

    Spec: type[Any]
    PRESETS: dict[str, Any]
    RECORDS: tuple[str, ...]

    def expand(self, spec: Any) -> list[PlannedRun]:  # noqa: ANN401
        """The study's runs, each after its inputs."""
        ...

    def results(
        self,
        spec: Any,  # noqa: ANN401
        roles: Mapping[str, str],
        tables: Mapping[str, pa.Table],
    ) -> dict[str, pa.Table]:
        """Result tables by name, from the runs that play each role and their records."""
        ...

    def headline(self, tables: Mapping[str, Rows]) -> Headline:
        """The answer in a few columns, from result tables as rows; they may be empty."""
        ...


def _modules(package: Any) -> dict[str, Any]:  # noqa: ANN401 - a module object
    """Modules of a package that define a `Spec`, by the value of its `kind`."""
    found = {}
    for entry in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{entry.name}")
        if hasattr(module, "Spec"):
            found[module.Spec.model_fields["kind"].default] = module
    return found


@cache
def kinds() -> dict[str, Kind]:
    """Every kind of run by name."""
    return cast("dict[str, Kind]", _modules(jobs.kinds))


@cache
def studies() -> dict[str, Study]:
    """Every study by name, in the order in which people see them."""
    found = cast("dict[str, Study]", _modules(jobs.studies))
    return dict(sorted(found.items(), key=lambda named: (named[1].Spec.order, named[0])))


@cache
def tables() -> dict[str, pa.Schema]:
    """Every record table by name, without the run column that the store adds."""
    return COMMON | {name: schema for kind in kinds().values() for name, schema in kind.TABLES.items()}


def kind_of(spec: RunSpec) -> Kind:
    """The module that carries out a spec."""
    return kinds()[spec.kind]


def study_of(spec: StudySpec) -> Study:
    """The module that knows a study."""
    return studies()[spec.kind]


def run_spec(data: str | Mapping[str, Any], *, stored: bool = False) -> RunSpec:
    """The run spec in JSON text or a dictionary.

    Args:
        data: What it is read from.
        stored: It was accepted once, so that what lies outside it is not asked again (`symcore.settings.STORED`).

    Raises:
        ValidationError: naming each wrong field, its value and what is accepted.
    """
    return cast("RunSpec", _parse(data, kinds(), stored=stored))


def study_spec(data: str | Mapping[str, Any], *, stored: bool = False) -> StudySpec:
    """The study spec in JSON text or a dictionary; arguments and errors as `run_spec`."""
    return cast("StudySpec", _parse(data, studies(), stored=stored))


def spec(data: str | Mapping[str, Any], *, stored: bool = False) -> RunSpec | StudySpec:
    """The spec of a study or of a single run, whichever its `kind` names; arguments and errors as `run_spec`."""
    return _parse(data, {**studies(), **kinds()}, stored=stored)


def _parse(
    data: str | Mapping[str, Any], known: Mapping[str, Kind | Study], *, stored: bool
) -> RunSpec | StudySpec:
    content = _from_json(data) if isinstance(data, str) else data
    name = content.get("kind") if isinstance(content, Mapping) else None
    if not isinstance(name, str) or name not in known:
        msg = f"kind: {name!r} is not known; accepted: {', '.join(sorted(known))}"
        raise _error(("kind",), name, msg)
    context = STORED if stored else None
    parsed: RunSpec | StudySpec = known[name].Spec.model_validate(content, context=context)
    return parsed


def _from_json(text: str) -> Any:  # noqa: ANN401
    try:
        return pydantic_core.from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise _error((), text[:200], f"not JSON: {error}") from error


def _error(at: tuple[str, ...], value: object, message: str) -> ValidationError:
    detail = InitErrorDetails(type=refusal(message), loc=at, input=value)
    return ValidationError.from_exception_data("Spec", [detail])
