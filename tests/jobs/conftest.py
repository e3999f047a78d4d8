"""A lab whose workers are played by the test: what most tests of the jobs floor stand on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeExecutor

from jobs.service import Service


@pytest.fixture
def executor() -> FakeExecutor:
    return FakeExecutor()


@pytest.fixture
def lab(tmp_path: Path, executor: FakeExecutor) -> Iterator[Service]:
    with Service(tmp_path / "lab", executor=executor, grace=0.3) as opened:
        yield opened
