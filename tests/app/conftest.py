"""A lab without workers, whose runs the tests move themselves, and pages drawn without a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from app.charts import images
from app.site import SCRIPT
from jobs import service
from jobs.executors import Slot, WorkerProcess
from jobs.service import Service

# A page drawn by AppTest has a runtime of its own, which would ask every installed package for components again.
manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)


class NoWorkers:
    """An executor with no room, so that what is queued stays queued."""

    def slots(self) -> list[Slot]:
        return []

    def warm(self) -> None:
        pass

    def ready(self) -> bool:
        return True

    def start(self, folder: Path, attempt: int) -> WorkerProcess:
        raise AssertionError(folder, attempt)

    def adopt(self, _folder: Path, _attempt: int) -> WorkerProcess | None:
        return None


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Service]:
    """An empty lab, served by this process."""
    yield service.start(tmp_path / "lab", executor=NoWorkers())
    service.stop()


Visit = Callable[..., AppTest]


@pytest.fixture
def visit(lab: Service) -> Visit:  # noqa: ARG001 - pages find the lab by themselves
    """Draws the page at a URL with a query, and makes sure that nothing went wrong there and no chart lacks its files."""

    def at(url: str = "", **query: str | list[str]) -> AppTest:
        page = AppTest.from_file(SCRIPT, default_timeout=120)
        page._page_hash = calc_hash(url) if url else ""
        for name, value in query.items():
            page.query_params[name] = value
        page.run()
        assert not page.exception, page.exception[0].stack_trace
        check_charts(page)
        return page

    return at


def check_charts(page: AppTest) -> None:
    """Every chart of a page can be taken away as a file of each format."""
    for form in images.MEDIA:
        offered = [button for button in page.download_button if button.label == form.upper()]
        assert sum(not button.disabled for button in offered) == len(page.get("vega_lite_chart"))
