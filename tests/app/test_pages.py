"""Every page draws in every state of a lab, says what is so, and what to do next where there is nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_up
import pyarrow as pa
import pytest
import streamlit as st
from conftest import NoWorkers, Visit
from streamlit.testing.v1 import AppTest

from app import navigation
from app.queries import treatment as treatment_of
from jobs import queries, records, service
from jobs.kinds import interpolate
from jobs.kinds.align import Spec as AlignSpec
from jobs.ledger import Move
from jobs.service import Service
from jobs.specs import spec_hash
from jobs.states import State, UnknownError
from jobs.store import StoreFailedError
from jobs.studies import lmc
from symcore.networks.resnet import ResNetSpec

SMOKE = lmc.PRESETS["smoke"]


def words(page: AppTest) -> str:
    """Everything that a page says."""
    said = [
        *page.markdown,
        *page.title,
        *page.subheader,
        *page.caption,
        *page.html,
        *page.error,
        *page.warning,
    ]
    return "\n".join(str(element.value if hasattr(element, "value") else element.proto) for element in said)


def labels(page: AppTest) -> list[str]:
    return [button.label for button in page.button]


def test_every_page_module_says_what_navigation_needs() -> None:
    found = navigation.modules()
    assert {"", "launch", "runs", "run", "studies", "study"} <= set(found)
    for url, module in found.items():
        assert url == module.URL
        assert module.TITLE
        assert module.ICON.startswith(":material/")


def test_pages_of_one_run_or_study_are_found_by_address_only() -> None:
    assert {url for url, module in navigation.modules().items() if module.GROUP is None} == {"run", "study"}


@pytest.mark.parametrize(
    ("url", "way_on"),
    [("", "Start the demo study"), ("runs", "Launch a study"), ("studies", "Launch the first one")],
)
def test_an_empty_lab_says_what_to_do_next(visit: Visit, url: str, way_on: str) -> None:
    assert way_on in labels(visit(url))


@pytest.mark.parametrize("url", ["study", "run"])
@pytest.mark.parametrize("name", ["", "nonesuch"])
def test_an_address_that_names_nothing_says_so(visit: Visit, url: str, name: str) -> None:
    page = visit(url, id=name) if name else visit(url)
    assert f"No such {url}" in words(page)
    assert name in words(page)


def test_the_demo_button_queues_the_demo_study(lab: Service, visit: Visit) -> None:
    page = visit()
    next(button for button in page.button if button.label == "Start the demo study").click().run()
    (study,) = queries.studies(lab.store).to_pylist()
    assert lmc.Spec.model_validate_json(study["spec"]) == lmc.PRESETS["laptop"]


@pytest.mark.parametrize("preset", lmc.PRESETS)
def test_launch_starts_exactly_the_preset_it_shows(lab: Service, visit: Visit, preset: str) -> None:
    page = visit("launch", preset=preset)
    next(button for button in page.button if button.label == "Start").click().run()
    (study,) = queries.studies(lab.store).to_pylist()
    assert lmc.Spec.model_validate_json(study["spec"]) == lmc.PRESETS[preset]


def test_a_wrong_field_names_itself_and_what_is_accepted_and_nothing_is_queued(
    lab: Service, visit: Visit
) -> None:
    page = visit("launch", preset="smoke")
    next(number for number in page.number_input if number.label == "Width").set_value(0).run()
    assert "network.width: 0; accepted: an integer from 1 to 8192" in words(page)
    start = next(button for button in page.button if button.label == "Start")
    assert start.disabled
    assert queries.studies(lab.store).num_rows == 0


def test_launch_asks_each_kind_of_network_for_its_own_settings(lab: Service, visit: Visit) -> None:
    page = visit("launch", preset="smoke")
    kind = next(box for box in page.selectbox if box.label == "Network")
    assert kind.options[:2] == ["MLP", "ResNet"]
    page = kind.select("resnet").run()
    depth, width = (
        next(field for field in some if field.label == label)
        for some, label in ((page.number_input, "Depth"), (page.text_input, "Width"))
    )
    assert (depth.value, width.value) == (20, "1")
    page = depth.set_value(9).run()
    assert "depth: 9 is not 6 n + 2; accepted: 8, 14, 20" in words(page)
    next(field for field in page.number_input if field.label == "Depth").set_value(8)
    next(field for field in page.text_input if field.label == "Width").input("0.25")
    page = page.run()
    next(button for button in page.button if button.label == "Start").click().run()
    (study,) = queries.studies(lab.store).to_pylist()
    assert lmc.Spec.model_validate_json(study["spec"]).network == ResNetSpec(depth=8, width=0.25)


def test_launch_says_what_a_study_takes_and_what_is_done_already(lab: Service, visit: Visit) -> None:
    assert "<dd>12</dd>" in words(visit("launch", preset="smoke"))
    made_up.finish(lab, lab.submit(SMOKE))
    assert "8, all of them done" in words(visit("launch", preset="smoke"))


def test_clone_with_edits_fills_the_form_with_the_study(lab: Service, visit: Visit) -> None:
    study = lab.submit(SMOKE.model_copy(update={"seed": 77}))
    page = visit("launch", **{"from": study})
    assert next(number for number in page.number_input if number.label == "Seed").value == 77
    next(number for number in page.number_input if number.label == "Mask seed").set_value(5).run()
    next(button for button in page.button if button.label == "Start").click().run()
    specs = [lmc.Spec.model_validate_json(text) for text in queries.studies(lab.store)["spec"].to_pylist()]
    assert SMOKE.model_copy(update={"seed": 77, "mask_seed": 5}) in specs


@pytest.mark.parametrize("quantity", ["loss", "accuracy"])
@pytest.mark.parametrize("split", ["test", "train"])
def test_a_finished_study_shows_its_answer_and_table(
    lab: Service, visit: Visit, quantity: str, split: str
) -> None:
    study = lab.submit(SMOKE)
    made_up.finish(lab, study)
    page = visit("study", id=study, quantity=quantity, split=split)
    said = words(page)
    assert said.count('class="lab-card"') == 4
    assert said.count("n = 2") == 4
    assert "Midpoint barrier" in said
    assert "Why σ-Asymmetric can lie above Standard" in said
    assert {"Clone with edits", "Resume", "Cancel"} & set(labels(page)) == {"Clone with edits"}
    assert [button.label for button in page.download_button][-2:] == ["CSV", "LaTeX"]


def test_a_study_on_its_way_shows_what_is_done_and_can_be_cancelled(lab: Service, visit: Visit) -> None:
    study = lab.submit(SMOKE)
    made_up.finish(lab, study, lambda role: role.startswith("standard"))
    page = visit("study", id=study)
    assert words(page).count("n = 2") == 1
    assert words(page).count("0 of 2 pairs") == 3
    next(button for button in page.button if button.label == "Cancel").click().run()
    states = {run["role"]: run["state"] for run in queries.study(lab.store, study)["runs"]}
    assert {state for role, state in states.items() if role.startswith("standard")} == {"done"}
    assert {state for role, state in states.items() if not role.startswith("standard")} == {"cancelled"}
    assert "Resume" in labels(page)


def test_a_study_whose_last_run_ends_while_the_page_reads_it_is_shown_as_done(
    lab: Service, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is read before those of its runs."""
    study = lab.submit(SMOKE)
    made_up.finish(lab, study)
    read, late = queries.study, iter([{"state": "running"}])
    monkeypatch.setattr(queries, "study", lambda *given: read(*given) | next(late, {}))
    page = visit("study", id=study)
    assert "8 runs done" in words(page)
    assert "Cancel" not in labels(page)


def test_a_study_made_of_finished_runs_says_so(lab: Service, visit: Visit) -> None:
    made_up.finish(lab, lab.submit(SMOKE))
    again = lab.submit(SMOKE)
    assert "8 of them reused" in words(visit("study", id=again))


def test_the_paper_stands_beside_mnist_only(lab: Service, visit: Visit) -> None:
    for spec, beside in ((lmc.PRESETS["paper"], True), (SMOKE, False)):
        study = lab.submit(spec.model_copy(update={"pairs": 2}))
        made_up.finish(lab, study)
        said = words(visit("study", id=study))
        assert ("Beside the paper" in said) is beside
        assert ("0.188" in said) is beside


@pytest.mark.parametrize("role", ["w/train/0", "rebasin/align/0", "rebasin/path/0"])
def test_a_run_of_any_kind_has_a_page(lab: Service, visit: Visit, role: str) -> None:
    study = lab.submit(SMOKE)
    run = queries.study(lab.store, study)["roles"][role]
    assert "waits" in words(visit("run", id=run))
    made_up.finish(lab, study)
    page = visit("run", id=run)
    assert "test accuracy 98 %" in words(page)
    assert "epoch 2" in "".join(code.value for code in page.code)
    assert "unknown" in words(page)


def test_a_failed_run_shows_its_error_and_can_be_resumed(lab: Service, visit: Visit) -> None:
    run = queries.study(lab.store, lab.submit(SMOKE))["roles"]["standard/train/0"]
    made_up.start(lab, run)
    lab.ledger.move([Move(run, State.FAILED, {"error": "the disk is full"})])
    page = visit("run", id=run)
    assert "the disk is full" in words(page)
    assert not page.get("skeleton"), "places are kept for charts that will not come"
    next(button for button in page.button if button.label == "Resume").click().run()
    assert queries.run(lab.store, run)["state"] == "queued"


def test_a_failed_study_says_why_its_first_run_failed(lab: Service, visit: Visit) -> None:
    study = lab.submit(SMOKE)
    first = queries.study(lab.store, study)["roles"]["w/train/0"]
    made_up.start(lab, first)
    lab.ledger.move([Move(first, State.FAILED, {"error": "the disk is full"})])
    lab.cancel([study])
    page = visit("study", id=study)
    assert "the disk is full" in words(page)
    assert "has recorded anything" in page.info[0].value
    assert not page.get("skeleton")
    assert first in "".join(str(link.proto) for link in page.get("page_link"))


def test_an_imported_run_names_what_it_reads_though_it_is_elsewhere(
    lab: Service, visit: Visit, tmp_path: Path
) -> None:
    study = lab.submit(SMOKE)
    made_up.finish(lab, study)
    roles = queries.study(lab.store, study)["roles"]
    path = lab.export([roles["rebasin/align/0"]], tmp_path / "one")
    service.stop()
    there = service.start(tmp_path / "another lab", executor=NoWorkers())
    there.import_folder(path)
    said = words(visit("run", id=roles["rebasin/align/0"]))
    assert f"{roles['standard/train/0']}`, which is not in this lab" in said


def test_the_files_and_log_of_a_run_can_be_downloaded(lab: Service, visit: Visit) -> None:
    study = lab.submit(SMOKE)
    run = queries.study(lab.store, study)["roles"]["w/train/0"]
    rows = [
        {"name": name, "path": name, "sha256": "0" * 64, "bytes": 3} for name in ("a weight.bin", "gone.bin")
    ]
    lab.store.ingest(
        run, 0, [("artifact", pa.RecordBatch.from_pylist(rows, schema=records.ARTIFACT))]
    ).result()
    made_up.finish(lab, study)
    (lab.run_folder(run) / "a weight.bin").write_bytes(b"abc")
    links = {link.proto.url: link.proto.disabled for link in visit("run", id=run).get("link_button")}
    folder = f"/api/v1/runs/{run}"
    assert links == {
        f"{folder}/log": False,
        f"{folder}/artifacts/a%20weight.bin": False,
        f"{folder}/artifacts/gone.bin": True,
    }


@pytest.mark.parametrize(
    ("refusal", "reason"), [(UnknownError, "gone"), (StoreFailedError, "the disk is full")]
)
def test_a_button_that_fails_says_why(
    lab: Service, visit: Visit, refusal: type[Exception], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = queries.study(lab.store, lab.submit(SMOKE))["roles"]["standard/train/0"]
    page = visit("run", id=run)

    def fails(_ids: list[str]) -> None:
        raise refusal(reason)

    monkeypatch.setattr(lab, "cancel", fails)
    next(button for button in page.button if button.label == "Cancel").click().run()
    assert not page.exception
    assert [toast.value for toast in page.toast] == [reason]


def test_runs_are_filtered_by_the_address(lab: Service, visit: Visit) -> None:
    made_up.finish(lab, lab.submit(SMOKE), lambda role: role == "standard/train/0")
    assert "8 runs" in words(visit("runs"))
    assert "1 run" in words(visit("runs", state="done"))
    assert "3 runs" in words(visit("runs", kind="train"))
    assert "No run fits" in str(visit("runs", q="nonesuch").info[0].value)


@pytest.mark.parametrize("url", ["", "study", "studies", "runs", "run"])
def test_pages_poll_while_something_goes_on_and_then_no_more(
    lab: Service, visit: Visit, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = lab.submit(SMOKE)
    name = queries.study(lab.store, study)["roles"]["w/train/0"] if url == "run" else study
    intervals: list[float | None] = []
    fragment = st.fragment

    def noted(draw: Any, *, run_every: float | None) -> Any:
        intervals.append(run_every)
        return fragment(draw, run_every=run_every)

    monkeypatch.setattr(st, "fragment", noted)
    visit(url, id=name)
    assert intervals
    assert all(intervals)
    made_up.finish(lab, study)
    intervals.clear()
    visit(url, id=name)
    assert not any(intervals)


def test_studies_are_listed_with_their_answers(lab: Service, visit: Visit) -> None:
    study = lab.submit(SMOKE, title="My first")
    made_up.finish(lab, study)
    page = visit("studies")
    assert "8 of 8 runs" in words(page)
    assert words(page).count('class="lab-strip"') == 1
    assert [link.label for link in page.page_link] == ["My first"]


def test_a_run_that_is_a_study_of_its_own_has_a_page_for_both(lab: Service, visit: Visit) -> None:
    spec = lmc.expand(SMOKE)[0].spec
    study = lab.submit(spec)
    (run,) = queries.study(lab.store, study)["runs"]
    visit("study", id=study)
    visit("run", id=run["run"])
    visit("studies")
    visit()


def test_a_single_run_has_the_treatment_of_what_it_reads(lab: Service, visit: Visit) -> None:
    made_up.finish(lab, lab.submit(SMOKE))
    known = {run.role: run.spec for run in lmc.expand(SMOKE)}
    align = known["rebasin/align/0"]
    assert isinstance(align, AlignSpec)
    reading: dict[str, dict[str, Any]] = {
        "standard": {"source": spec_hash(known["standard/train/0"])},
        "w": {"source": spec_hash(known["w/train/0"])},
        "rebasin": {"source": align.source, "alignment": spec_hash(align)},
    }
    for treatment, reads in reading.items():
        study = lab.submit(interpolate.Spec(data="digits", pairs=align.pairs, points=5, **reads))
        (run,) = queries.study(lab.store, study)["runs"]
        assert treatment_of(queries.run(lab.store, run["run"])) == treatment
    page = visit("study", id=study)
    assert "recorded anything" not in words(page)
    links = {link.proto.label: link.proto.query_string for link in page.get("page_link")}
    assert run["run"] in links["See what this run finds"]
