"""What the registry promises: a new experiment is a new file, and whatever a person sends is read or explained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

import jobs.kinds
import jobs.studies
from jobs import planning, registry
from jobs.records import COMMON

KIND = '''
"""A kind that counts."""
from typing import Literal
import pyarrow as pa
from jobs.estimates import Estimate
from jobs.specs import RunSpec

class Spec(RunSpec):
    kind: Literal["count"] = "count"
    version: Literal[1] = 1
    to: int = 3

TABLES = {"counted": pa.schema([pa.field("number", pa.int64(), nullable=False)])}

def title(spec): return f"Count to {spec.to}"
def estimate(spec, upstream): return Estimate(flop=spec.to, bytes_memory=1, steps=spec.to)
def execute(spec, job):
    job.emit("counted", number=range(spec.to))
    return {"last": spec.to}
'''
STUDY = '''
"""A study of one count."""
from typing import ClassVar, Literal
from jobs.headline import Headline
from jobs.kinds import count
from jobs.specs import PlannedRun, StudySpec

class Spec(StudySpec):
    title: ClassVar[str] = "Counting"
    kind: Literal["counting"] = "counting"
    to: int = 5

PRESETS = {"far": Spec(to=100)}
RECORDS = ("counted",)
def expand(spec): return [PlannedRun("count", count.Spec(to=spec.to))]
def results(spec, roles, tables): return {"counted": tables["counted"]}
def headline(tables): return Headline(("runs",), tuple((row["run"],) for row in tables["counted"]), "")
'''


def forget() -> None:
    for cached in (registry.kinds, registry.studies, registry.tables):
        cached.cache_clear()


@pytest.fixture
def one_more_file_on_each_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for package, name, text in ((jobs.kinds, "count", KIND), (jobs.studies, "counting", STUDY)):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    forget()
    yield
    forget()


@pytest.mark.usefixtures("one_more_file_on_each_floor")
def test_a_new_file_is_a_new_kind_and_study_with_no_other_edit() -> None:
    study = registry.study_spec('{"kind": "counting", "to": 7}')
    (run,) = planning.plan(study)
    assert registry.kind_of(run.spec).title(run.spec) == "Count to 7"
    assert planning.total(planning.estimates([run]).values()).flop == 7
    assert "counted" in registry.tables()
    assert registry.spec({"kind": "count", "to": 2}).to == 2
    assert registry.studies()["counting"].PRESETS["far"].to == 100


def test_every_kind_and_study_offers_what_the_lab_asks_of_it() -> None:
    for name, kind in registry.kinds().items():
        assert kind.Spec.model_fields["kind"].default == name
        assert all(callable(getattr(kind, verb)) for verb in ("execute", "estimate", "title"))
        assert not set(kind.TABLES) & set(COMMON)
    for name, study in registry.studies().items():
        assert study.Spec.model_fields["kind"].default == name
        assert all(callable(getattr(study, verb)) for verb in ("expand", "results", "headline"))
        assert set(study.RECORDS) <= set(registry.tables())
        assert study.PRESETS


@pytest.mark.parametrize("given", [{"kind": "divine"}, {"pairs": 3}, {"kind": ["lmc"]}, {}, "[]", "3"])
def test_an_unknown_kind_is_told_what_there_is(given: object) -> None:
    known = ", ".join(sorted({**registry.kinds(), **registry.studies()}))
    with pytest.raises(ValidationError, match=f"accepted: {known}") as caught:
        registry.spec(given)
    (error,) = caught.value.errors()
    assert error["loc"] == ("kind",)


def test_a_study_is_no_run() -> None:
    with pytest.raises(
        ValidationError, match=f"'lmc' is not known; accepted: {', '.join(sorted(registry.kinds()))}"
    ):
        registry.run_spec({"kind": "lmc"})
    with pytest.raises(ValidationError, match=f"accepted: {', '.join(sorted(registry.studies()))}"):
        registry.study_spec({"kind": "train"})


@pytest.mark.parametrize("text", ["{", "", '{"kind": NaN}', "kind: lmc"])
def test_text_that_is_not_json_says_so(text: str) -> None:
    with pytest.raises(ValidationError, match="not JSON"):
        registry.spec(text)
