"""The command line keeps its promises: exit codes, errors of one line, presets, tables, and nothing left behind."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from jobs import registry
from jobs.cli.command import app, run
from jobs.folder import LabFolder
from jobs.headline import spread
from jobs.lab import Lab, running

Say = Callable[..., tuple[int, str, str]]
Start = Callable[..., subprocess.Popen[str]]
COMMANDS = [
    "up",
    "demo",
    "ls",
    "show",
    "cancel",
    "resume",
    "export",
    "import",
    "delete",
    "purge",
    "run",
    "doctor",
]
PRESETS = [(kind, name) for kind, study in registry.studies().items() for name in study.PRESETS]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Carries out `symlab ...` in this process: exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = run([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("cli") / "lab", slots=2) as served:
        yield served


def spec_of(words: str) -> Any:
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    bound.apply_defaults()
    return bound.arguments["spec"]


def test_every_command_explains_itself(say: Say) -> None:
    assert {name for name in app if not name.startswith("-")} == set(COMMANDS)
    for command in COMMANDS:
        code, out, _ = say(command, "--help")
        assert code == 0
        assert f"Usage: symlab {command}" in out


def test_the_list_of_commands_says_what_each_does(say: Say) -> None:
    _, listed, _ = say("--help")
    for command in COMMANDS:
        _, own, _ = say(command, "--help")
        said = own.splitlines()[2].strip()
        assert said.endswith(".")
        assert re.search(rf"│ {command} +{re.escape(said)} ", listed), command


@pytest.mark.parametrize(("kind", "preset"), PRESETS)
def test_a_preset_is_what_the_study_says_it_is(kind: str, preset: str) -> None:
    assert spec_of(f"run {kind} --preset {preset}") == registry.studies()[kind].PRESETS[preset]


def test_a_flag_wins_over_the_preset_and_leaves_the_rest() -> None:
    spec = spec_of(
        "run lmc --preset paper --seed 3 --training.epochs 2 --w.kappa 1 1 1 1 --treatments w standard"
    )
    paper = registry.studies()["lmc"].PRESETS["paper"]
    assert (spec.seed, spec.training.epochs, spec.w.kappa) == (3, 2, (1, 1, 1, 1))
    assert spec.treatments == ("standard", "w")
    assert (spec.data, spec.network, spec.w.n_fix, spec.sigma) == (
        paper.data,
        paper.network,
        paper.w.n_fix,
        paper.sigma,
    )


def test_dataset_is_another_word_for_data() -> None:
    assert spec_of("run lmc --dataset mnist --pairs 5") == spec_of("run lmc --data mnist --pairs 5")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run lmc --pairs 0", ["--pairs 0", "greater than or equal to 1"]),
        ("run lmc --pairs -1 --network.width wide", ["--pairs -1", "--network.width wide", "valid integer"]),
        ("run lmc --dataset cifar", ["--data cifar", "'digits', 'digits-noisy', 'mnist'"]),
        ("run lmc --w.n-fix 70 16 16 64", ["--w.n-fix 70 16 16 64", "0 to 64"]),
        (
            "run lmc --treatments w0 --network.kind resnet --network.width 8",
            ["--w.n-fix: n_fix: 9 of 9", "128 rows of conv.weight", "accepted: at most 126 rows"],
        ),
        ("run lmc --preset huge", ["--preset", "huge", "smoke", "laptop", "paper"]),
        ("run lmc --pears 3", ["--pears", "--pairs"]),
        ("run lcm", ["lcm"]),
        ("up --port 70000", ["--port", "70000", "65535"]),
        ("up --slots 0", ["--slots", "0"]),
        ("ls --limit 0", ["--limit", "0"]),
        ("ls --state nonsense", ["--state", "nonsense", "queued", "done"]),
        ("cancel", ["IDS"]),
        ("run lmc --detach", ["--detach", "symlab up"]),
    ],
)
def test_a_wrong_word_is_named_with_what_is_accepted_and_starts_nothing(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = say(*words.split())
    assert code == 2
    assert not out
    assert all(part in err for part in said), err
    assert all(line.startswith("symlab: ") for line in err.splitlines())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_a_lab_is_one_line(say: Say, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    code, _, err = say("ls", "--lab", blocked / "lab")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert str(blocked / "lab") in err


def test_what_does_not_exist_is_one_line(say: Say, lab: Lab) -> None:
    for words in (("cancel", "r7"), ("show", "s7"), ("show", "r7"), ("export", "s7"), ("import", "/nowhere")):
        code, _, err = say(*words, "--lab", lab.lab.path)
        assert code == 2, words
        assert len(err.splitlines()) == 1, err
        assert words[1] in err, words


def test_the_doctor_names_what_is_missing_and_what_to_do(say: Say, tmp_path: Path) -> None:
    code, out, _ = say("doctor", "--lab", tmp_path / "lab")
    assert code == 0
    for name in (
        "Python",
        "torch",
        "devices",
        "threads",
        "lab folder",
        "disk",
        "database",
        "server",
        "data",
        "browser",
    ):
        assert f"ok   {name}" in out or f"warn {name}" in out, name
    assert "train-images-idx3-ubyte.gz" in out
    assert str(tmp_path / "lab" / "data" / "MNIST" / "raw") in out


def test_the_doctor_knows_a_database_of_a_newer_version(say: Say, tmp_path: Path) -> None:
    import duckdb

    with duckdb.connect(str(tmp_path / "lab.duckdb")) as connection:
        connection.execute("CREATE TABLE schema_version AS SELECT 99 AS version, now() AS time")
    _, out, _ = say("doctor", "--lab", tmp_path)
    assert "warn database" in out
    assert "version 99" in out
    assert "newer" in out


def test_a_spread_shows_the_deviation_only_where_there_is_one() -> None:
    assert spread(0.6214, 0.0936) == "0.621 ± 0.094"
    assert spread(0.6214, None) == "0.621"
    assert spread(None, None) == "–"


@pytest.mark.slow
def test_a_study_from_start_to_purge(say: Say, lab: Lab, tmp_path: Path) -> None:
    """Run, list, show, repeat (reused), export, import elsewhere, delete, purge: with the same numbers throughout."""
    where = ("--lab", lab.lab.path)
    code, out, _ = say("run", "lmc", "--preset", "smoke", "--seed", "7", "--title", "first", *where)
    assert code == 0
    study = out.split()[1]
    results = lab.results(study)
    for row in results["summary"]:
        if (row["split"], row["quantity"]) == ("test", "loss"):
            lines = out.splitlines()
            place = next(place for place, line in enumerate(lines) if line.startswith(row["label"]))
            assert lines[place].split()[-5] == f"{row['barrier_midpoint']:.3f}", (
                out
            )  # its spread stands below
            assert lines[place + 1].split()[:2] == ["±", f"{row['barrier_midpoint_std']:.3f}"], out

    again = say("run", "lmc", "--preset", "smoke", "--seed", "7", *where)[1]
    assert again.count("reused") == len(lab.study(study)["runs"])
    listed = json.loads(say("ls", "--json", *where)[1])
    assert {row["study"] for row in listed} == {study, again.split()[1]}
    assert study in say("ls", *where)[1]
    assert json.loads(say("show", study, "--json", *where)[1])["results"] == results

    archive = tmp_path / "study.zip"
    assert say("export", study, "--to", archive, *where)[0] == 0
    with Lab(tmp_path / "other") as other:
        assert say("import", archive, "--lab", other.lab.path)[0] == 0
        [imported] = other.studies()
        assert other.results(imported["study"]) == results

    run_folder = lab.lab.runs / lab.study(study)["runs"][0]["run"]
    assert say("delete", study, again.split()[1], *where)[0] == 0
    assert run_folder.exists()
    assert "removed the files of 8 runs" in say("purge", *where)[1]
    assert not run_folder.exists()


@pytest.mark.slow
def test_a_study_that_fails_says_why_and_ends_with_1(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "HTTPS_PROXY", "http://127.0.0.1:9"
    )  # nothing listens there, so nothing can be downloaded
    code, out, _ = say("run", "lmc", "--preset", "smoke", "--data", "mnist", "--lab", tmp_path / "lab")
    assert code == 1
    assert "failed" in out
    assert "train-images-idx3-ubyte.gz" in out


@pytest.fixture
def symlab() -> Iterator[Start]:
    """`symlab ...` as processes of their own."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str | Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "jobs.cli", *map(str, words)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=60)


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    """What a process says up to the first line with `wanted`."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if wanted in line:
            return line
    pytest.fail(f"{wanted!r} was not said, but: {said}")


def end(process: subprocess.Popen[str], number: int) -> int:
    """Sends a signal and waits: the process and all that it started must be gone."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    code = process.wait(60)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    return code


@pytest.mark.slow
def test_the_demo_serves_its_result_until_ctrl_c_and_leaves_nothing(symlab: Start, tmp_path: Path) -> None:
    process = symlab("demo", "--preset", "smoke", "--lab", tmp_path / "lab", "--port", "0", "--no-browser")
    link = read_until(process, "/login?").strip()
    address = link.partition("/login")[0]
    with httpx.Client(follow_redirects=True, trust_env=False) as visitor:
        page = visitor.get(link)
        assert page.status_code == 200
        assert page.url.path == "/study"
        [study] = visitor.get(f"{address}/api/v1/studies").json()
        assert study["state"] == "done"
        assert page.url.params["id"] == study["study"]
    assert httpx.get(link, trust_env=False).status_code == 401, "a link works once"
    assert end(process, signal.SIGINT) == 0


@pytest.mark.slow
def test_a_demo_stopped_half_way_leaves_nothing(symlab: Start, tmp_path: Path) -> None:
    process = symlab("demo", "--lab", tmp_path / "lab", "--port", "0", "--no-browser")
    read_until(process, "Study")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "lab" / "runs").glob("*/worker.json")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert end(process, signal.SIGINT) == 130


@pytest.mark.slow
def test_up_prints_a_fresh_link_to_a_lab_that_is_served_already(
    say: Say, symlab: Start, tmp_path: Path
) -> None:
    process = symlab("up", "--lab", tmp_path / "lab", "--port", "0", "--no-browser")
    first = read_until(process, "/login?").strip()
    while running(LabFolder(tmp_path / "lab")) is None:
        time.sleep(0.1)
    code, out, _ = say("up", "--lab", tmp_path / "lab", "--no-browser")
    assert code == 0
    second = out.strip()
    assert second.partition("/login")[0] == first.partition("/login")[0]
    assert second != first
    assert end(process, signal.SIGTERM) == 0
