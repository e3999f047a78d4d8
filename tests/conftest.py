"""What every test stands on: one thread per process, no lab of the developer's, a real browser where there is one."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tests run in parallel processes, so each takes one thread; it also fixes the order of sums, which some tests
# compare bit for bit. Set before torch is imported, so that the processes a test starts inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
for name in ("SYMLAB_LAB", "SYMLAB_DATA", "SYMLAB_TOKEN", "SYMLAB_NETWORKS"):
    os.environ.pop(name, None)

import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

torch.set_num_threads(1)
torch.manual_seed(0)  # of networks that are drawn when tests are collected
settings.register_profile("lab", deadline=None)  # tests do not time
settings.load_profile("lab")

# A shell that starts tests in the background has them ignore Ctrl-C, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APPLICATIONS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
HOW = "no Chromium found: install your system's, or run `make browser`, or set SYMLAB_CHROMIUM to its path"


def chromium(downloaded: str) -> str | None:
    """The browser to drive: `$SYMLAB_CHROMIUM`, else one on this machine, else Playwright's own download."""
    named = os.environ.get("SYMLAB_CHROMIUM")
    if named:
        return named
    found = [path for name in NAMES if (path := shutil.which(name))]
    return next((path for path in (*found, *APPLICATIONS, downloaded) if Path(path).exists()), None)


@pytest.fixture(scope="module", autouse=True)
def seeded_once() -> None:
    """What tests share is drawn the same each time, whatever ran before."""
    torch.manual_seed(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Likewise what a test draws for itself."""
    torch.manual_seed(2)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """A headless Chromium driven by Playwright (`playwright.sync_api.Browser`).

    For one module only, since Playwright's event loop, while it runs, forbids others in the same thread.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = chromium(playwright.chromium.executable_path)
        if path is None:
            (pytest.fail if os.environ.get("SYMLAB_REQUIRE_BROWSER") else pytest.skip)(HOW)
        quiet = [
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
        ]
        # Chromium refuses its sandbox to root, which is who runs tests in a container.
        browser = playwright.chromium.launch(
            executable_path=path, args=quiet, chromium_sandbox=os.geteuid() != 0
        )
        yield browser
        browser.close()
