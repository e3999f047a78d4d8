"""Training inside a job: metrics recorded after each epoch, progress reported, stopped and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from jobs.checkpoints import checkpoint_seconds
from jobs.job import Job, RecordsLostError
from symcore.metrics import Array
from symcore.training import Hooks, Trainer, fit

T = TypeVar("T", bound=Trainer)


def checkpoint(job: Job) -> Path:
    """The file that training is saved to now and then."""
    return job.folder / "checkpoint.safetensors"


def train(
    begin: Callable[[], T],
    job: Job,
    on_epoch: Callable[[T, int], None] = lambda _trainer, _epoch: None,
    *,
    train_accuracy: bool = False,
) -> T:
    """Trains to the end, or on from the checkpoint in the job's folder, which stays there.

    Args:
        begin: makes what is trained, as it is before the first step.
        job: takes records and progress, and may ask to stop.
        on_epoch: called after each epoch, from 1.
        train_accuracy: whether every epoch ends with the accuracy on all training images too, as they are.

    Raises:
        StoppedError: if the job was asked to stop; the checkpoint is saved first.
    """
    _drop_unreadable(job)
    fitted = partial(_fit, train_accuracy=train_accuracy, job=job, on_epoch=on_epoch)
    try:
        return fitted(begin())
    except RecordsLostError as lost:
        job.log(f"{lost}; training begins again")
        checkpoint(job).unlink()
        return fitted(begin())


def _drop_unreadable(job: Job) -> None:
    """Removes a checkpoint that a dying disk or machine left damaged, so that training begins again."""
    path = checkpoint(job)
    if not path.exists():
        return
    try:
        with safe_open(path, framework="pt"):
            return
    except (SafetensorError, OSError) as error:
        job.log(f"the checkpoint cannot be read ({error}); training begins again")
        path.unlink()


def _fit(trainer: T, *, train_accuracy: bool, job: Job, on_epoch: Callable[[T, int], None]) -> T:
    epochs, members = trainer.spec.epochs, trainer.population.size
    state = {"note": ""}

    def recorded(epoch: int, metrics: dict[str, Array]) -> None:
        record(job, epoch, metrics)
        on_epoch(trainer, epoch)
        state["note"] = f"epoch {epoch} of {epochs}, train loss {metrics['train/loss'].mean():.4g}"

    def on_progress(done: float) -> None:
        job.progress(done * members, epochs * members, state["note"])

    def on_resume(mark: str) -> None:
        job.rewind(int(mark))
        job.log(f"going on from the checkpoint after {mark} batches of records")

    hooks = Hooks(
        on_epoch=recorded,
        on_progress=on_progress,
        on_checkpoint=lambda: str(job.mark()),
        on_resume=on_resume,
        stopping=job.stopping,
    )
    on_progress(0)
    fit(
        trainer,
        train_accuracy=train_accuracy,
        checkpoint=checkpoint(job),
        checkpoint_seconds=checkpoint_seconds(),
        hooks=hooks,
    )
    on_progress(epochs)
    return trainer


def record(job: Job, step: int, metrics: Mapping[str, Array]) -> None:
    """One batch of the metric table: every metric of every member, [member], at one step."""
    members = len(next(iter(metrics.values())))
    job.emit(
        "metric",
        member=np.tile(np.arange(members, dtype=np.int32), len(metrics)),
        name=[name for name in metrics for _ in range(members)],
        step=np.full(members * len(metrics), step, dtype=np.int64),
        value=np.concatenate([np.asarray(values, dtype=np.float64) for values in metrics.values()]),
    )
