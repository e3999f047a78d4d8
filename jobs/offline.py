"""Carries out a whole study in this process with no server: a GPU node, a batch queue. `symlab import` stores it.

OUT/study.json names the study and its runs; OUT/runs/<spec hash>/ is a run's folder, as a worker leaves it.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import torch
from pydantic import ValidationError

from jobs import planning, registry
from jobs.execution import Outcome, carry_out, resolve_device
from jobs.files import write_whole
from jobs.inputs import WEIGHTS
from jobs.job import Job
from jobs.progress_line import ProgressLine
from jobs.specs import PlannedRun, RunSpec, StudySpec, spec_hash
from jobs.spool import Spool, SpoolBusyError

STUDY = "study.json"
"""The file in OUT that names the study and its runs."""
FORMAT = 1
"""Version of the layout of OUT."""


class RefusedError(Exception):
    """What was asked cannot be done; the message says why and what is accepted."""


@dataclass
class Stop:
    """Takes SIGTERM and the first Ctrl-C as the wish to end: the run at work saves a checkpoint."""

    signal: int = 0
    job: Job | None = field(default=None, repr=False)

    def listen(self) -> None:
        """Begins to listen; a second Ctrl-C ends the process at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._heard)

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.take(number)

    def take(self, number: int) -> None:
        """Takes a signal: the study is to end soon."""
        self.signal = number
        if self.job is not None:
            self.job.stop("interrupted")


@dataclass(frozen=True)
class Place:
    """Where and on what a study is carried out."""

    out: Path
    data: Path
    device: str

    def folder(self, spec: RunSpec) -> Path:
        """A run's folder."""
        return self.out / "runs" / spec_hash(spec)


def study(spec: RunSpec | StudySpec, place: Place, stop: Stop, line: ProgressLine) -> Outcome:
    """Executes what is not done yet of a study, each run after its inputs.

    Returns:
        The outcome of the last run that was executed: "done" only if the whole study is.
    """
    planned = planning.plan(spec)
    costs = planning.estimates(planned)
    line.begin({run.role: costs[run.role].seconds(place.device) for run in planned})
    outcome = Outcome(state="done", batches=0)
    for run in planned:
        found = Outcome.read(place.folder(run.spec))
        if found is None or found.state != "done":
            found = _execute(run, place, stop, line)
        outcome = found
        if found.state != "done":
            break
        line.done(run.role, found)
    return outcome


def _execute(run: PlannedRun, place: Place, stop: Stop, line: ProgressLine) -> Outcome:
    folder = place.folder(run.spec)
    folder.mkdir(parents=True, exist_ok=True)
    with Spool(folder / "records.spool") as spool:
        job = Job(
            folder,
            spool,
            registry.tables(),
            device=place.device,
            data_folder=place.data,
            inputs={source: place.out / "runs" / source for source in run.spec.inputs()},
            on_progress=lambda progress: line.progress(run.role, progress),
        )
        stop.job = job
        if stop.signal:
            job.stop("interrupted")
        return carry_out(run.spec, job)


def prepare(spec: RunSpec | StudySpec, out: Path, *, resume: bool) -> None:
    """Writes study.json, or checks that it tells of the same study.

    Raises:
        RefusedError: if OUT holds something else, is to be resumed without saying so, or a run's input is missing.
    """
    planned = planning.plan(spec)
    runs = [{"role": run.role, "run": spec_hash(run.spec)} for run in planned]
    missing = {source for run in planned for source in run.spec.inputs()} - {run["run"] for run in runs}
    if missing:
        msg = f"SPEC: reads run {', '.join(sorted(missing))}, which is not in it; accepted: a study, or a run with no inputs"
        raise RefusedError(msg)
    named = spec.model_dump(mode="json") if isinstance(spec, StudySpec) else None
    content = {"format": FORMAT, "study": named, "runs": runs}
    path = out / STUDY
    if path.exists():
        if _json(path) != content:
            msg = f"OUT: {out} holds another study; accepted: an empty folder, or the study that it was made for"
            raise RefusedError(msg)
        if not resume:
            msg = f"OUT: {out} holds this study already; give --resume to go on with it"
            raise RefusedError(msg)
    elif out.exists() and any(out.iterdir()):
        msg = f"OUT: {out} is not empty and holds no study; accepted: an empty or new folder"
        raise RefusedError(msg)
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content, indent=1))


def _json(path: Path) -> Any:  # noqa: ANN401 - whatever is in it
    """A file's JSON; none where it is something else."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def hold(out: Path) -> BinaryIO:
    """Keeps other workers away from OUT until the answer is closed or the process ends.

    Raises:
        RefusedError: if another one is at work there.
    """
    held = (out / STUDY).open("r+b")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        held.close()
        msg = f"OUT: another worker is at work in {out}; accepted: a folder of its own for each"
        raise RefusedError(msg) from error
    return held


def drop_weights(out: Path) -> None:
    """Removes the networks of a finished study; records, permutations and outcomes stay."""
    for path in out.glob(f"runs/*/{WEIGHTS}"):
        path.unlink()


def read_spec(given: str) -> RunSpec | StudySpec:
    """The spec in a JSON file, or a preset such as "lmc:paper".

    Raises:
        RefusedError: naming each wrong field, its value and what is accepted.
    """
    study_name, _, preset = given.partition(":")
    known = registry.studies().get(study_name)
    if known and preset:
        if preset not in known.PRESETS:
            msg = f"SPEC: {study_name} has no preset {preset!r}; accepted: {', '.join(known.PRESETS)}"
            raise RefusedError(msg)
        chosen: StudySpec = known.PRESETS[preset]
        return chosen
    try:
        return registry.spec(Path(given).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        msg = f"SPEC: {given}: {reason}; accepted: a JSON file, or study:preset such as lmc:paper"
        raise RefusedError(msg) from error
    except ValidationError as error:
        lines = (
            f"{'.'.join(map(str, e['loc'])) or 'spec'}: {e['msg']}; got {e['input']!r}"
            for e in error.errors()
        )
        raise RefusedError("\n".join(lines)) from error


def command(arguments: Sequence[str]) -> int:
    """`python -m jobs.worker --offline SPEC OUT`; returns the exit status (128 + signal when it was stopped)."""
    options = _parser().parse_args(arguments)
    try:
        spec, device = _accept(options)
        prepare(spec, options.out, resume=options.resume)
        with hold(options.out):
            return _work(spec, device, options)
    except (RefusedError, SpoolBusyError) as refused:
        sys.stderr.write(f"{refused}\n")
    except OSError as error:
        sys.stderr.write(
            f"OUT: {error.filename or options.out}: {error.strerror}; accepted: a folder to write in\n"
        )
    return 2


def _accept(options: argparse.Namespace) -> tuple[RunSpec | StudySpec, str]:
    """The spec and the device that are asked for.

    Raises:
        RefusedError: naming what is wrong and what is accepted.
    """
    if options.threads < 1:
        msg = f"threads: {options.threads}; accepted: a whole number from 1"
        raise RefusedError(msg)
    try:
        return read_spec(options.spec), resolve_device(options.device)
    except ValueError as error:
        raise RefusedError(str(error)) from error


def _work(spec: RunSpec | StudySpec, device: str, options: argparse.Namespace) -> int:
    """Carries out what was asked for; returns the exit status."""
    torch.set_num_threads(options.threads)
    named = os.environ.get("SYMLAB_DATA")
    place = Place(options.out, options.data or Path(named or options.out / "data"), device)
    stop = Stop()
    stop.listen()
    line = ProgressLine(sys.stderr)
    outcome = study(spec, place, stop, line)
    line.end(outcome)
    if outcome.state == "done" and not options.weights:
        drop_weights(options.out)
    return {"done": 0, "failed": 1}.get(outcome.state, 128 + stop.signal)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.worker",
        description="Carries out a study, or a single run, in this process with no server. "
        "`symlab import OUT` stores what it made.",
    )
    parser.add_argument("--offline", action="store_true", required=True, help="work without a server")
    parser.add_argument("spec", metavar="SPEC", help="a JSON file, or study:preset such as lmc:paper")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to fill, empty or new")
    parser.add_argument("--data", type=Path, help="folder with the data sets ($SYMLAB_DATA, or OUT/data)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (auto)")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="CPU threads; the same number gives the same bits. More help large networks on idle cores, and cost "
        "much where other programs use them (1)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with what OUT holds")
    parser.add_argument(
        "--weights",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the networks; without them records and permutations remain (kept)",
    )
    return parser
