"""A whole visit in a real browser: log in, launch a study, watch it, open it elsewhere, take the table away."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from pyarrow import parquet

from app import theme
from jobs import registry
from jobs.lab import Lab

pytestmark = pytest.mark.slow
PATIENCE = 240.0
"""Seconds that a smoke study, or anything that a page is waited for with, may take on a busy machine."""
expect.set_options(timeout=1000 * PATIENCE)
PLACES = """() => {
    const main = document.querySelector('[data-testid="stMain"]');
    const headings = [...main.querySelectorAll('h1, h3')];
    return Object.fromEntries(headings.map(
        (heading) => [heading.innerText, Math.round(heading.getBoundingClientRect().top + main.scrollTop)]
    ));
}"""
"""Where each heading of a page stands, in pixels from its top."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of its own, with its server on a free port; two slots, so that a run takes one of two cores and not both."""
    with Lab(tmp_path_factory.mktemp("lab"), slots=2) as lab:
        yield lab


@contextmanager
def visitor(
    lab: Lab, browser: Browser, to: str = "/", scheme: Literal["light", "dark"] = "light"
) -> Iterator[Page]:
    """A browser that comes with a one-time link; errors of the page's scripts fail the test."""
    with browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme) as context:
        context.set_default_timeout(1000 * PATIENCE)
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(lab.login_link(to))
        yield page
        assert not errors


@pytest.fixture(scope="module")
def study(lab: Lab, browser: Browser) -> str:
    """A smoke study, started on the Launch page and watched there until it is done; its id.

    The Launch page is the first that this server shows, by its address.
    """
    with visitor(lab, browser, "/launch?preset=smoke") as page:
        page.get_by_role("button", name="Start", exact=True).click()
        page.wait_for_url("**/study?id=*")
        expect(page.get_by_role("heading", name="Runs")).to_be_visible()
        # once it has been drawn whole, what the page before left behind is gone
        expect(page.locator("[data-test-script-state=notRunning]")).to_be_visible()
        before = page.evaluate(PLACES)
        end = time.monotonic() + PATIENCE
        while not page.get_by_text("8 runs done", exact=True).is_visible():
            assert time.monotonic() < end, page.locator("body").inner_text()
            assert page.evaluate(PLACES) == before, "the page jumped while it updated"
            time.sleep(0.05)
        expect(page.locator(".lab-card", has_text="n = 2")).to_have_count(4)
        assert page.evaluate(PLACES) == before
        return page.url.partition("id=")[2]


def test_a_study_started_on_the_launch_page_is_done(lab: Lab, study: str) -> None:
    assert lab.study(study)["state"] == "done"


def test_its_address_shows_the_same_numbers_in_another_browser(
    lab: Lab, browser: Browser, study: str
) -> None:
    summary = lab.result(study, "summary").to_pandas()
    rows = summary[(summary["split"] == "train") & (summary["quantity"] == "loss")]
    with visitor(lab, browser, f"/study?id={study}&split=train") as page:
        expect(page.locator(".lab-card")).to_have_count(4)
        shown = [text.partition(" ")[0] for text in page.locator(".lab-card .value").all_inner_texts()]
    assert shown == [f"{value:.3f}".replace("-", "−") for value in rows["barrier_midpoint"]]


def test_the_downloaded_table_is_the_results(lab: Lab, browser: Browser, study: str) -> None:
    with visitor(lab, browser, f"/study?id={study}") as page:
        with page.expect_download() as download:
            page.get_by_role("button", name="CSV", exact=True).click()
        text = download.value.path().read_text(encoding="utf-8")
    results = lab.result(study, "summary").to_pandas()
    pd.testing.assert_frame_equal(
        pd.read_csv(io.StringIO(text)), results, check_dtype=False, check_exact=True
    )


def taken(page: Page, button: Locator) -> tuple[str, bytes]:
    """The name and the content of the file that a button hands out."""
    with page.expect_download() as download:
        button.click()
    return download.value.suggested_filename, download.value.path().read_bytes()


def test_every_chart_and_grid_is_handed_out_as_files(lab: Lab, browser: Browser, study: str) -> None:
    assert lab.study(study)["state"] == "done"
    matrix = lab.submit({"kind": "matrix"} | registry.studies()["matrix"].PRESETS["smoke"].model_dump())
    for _ in lab.watch(matrix):
        pass
    pairs = lab.result(matrix, "pairs")
    with visitor(lab, browser, f"/study?id={matrix}") as page:
        expect(page.locator(".st-key-place-matrices svg.marks")).to_be_visible()
        files = dict(
            taken(page, page.get_by_role("button", name=form, exact=True)) for form in ("SVG", "PNG")
        )
        page.get_by_role("button", name="Export").click()
        for label in ("each pair (CSV)", "each pair (Parquet)", "arrays (NPZ)"):
            button = page.get_by_test_id("stPopoverBody").get_by_role("button", name=label)
            files |= dict([taken(page, button)])
    lab.delete([matrix])
    assert b"Git Re-Basin</text>" in files[f"{matrix}-matrices.svg"]
    assert files[f"{matrix}-matrices.png"].startswith(b"\x89PNG")
    read = pd.read_csv(io.BytesIO(files[f"{matrix}-pairs.csv"]))
    pd.testing.assert_frame_equal(read, pairs.to_pandas(), check_dtype=False, check_exact=True)
    assert parquet.read_table(io.BytesIO(files[f"{matrix}-pairs.parquet"])).equals(pairs)
    with np.load(io.BytesIO(files[f"{matrix}-pairs.npz"])) as arrays:
        grid = arrays["w/test/loss/barrier_midpoint"]
    np.testing.assert_array_equal(grid, grid.T)
    assert np.isfinite(grid).sum() == grid.size - len(grid)


@pytest.mark.parametrize(("scheme", "palette"), [("light", theme.LIGHT), ("dark", theme.DARK)])
def test_charts_take_the_colours_of_the_theme_that_shows(
    lab: Lab, browser: Browser, study: str, scheme: Literal["light", "dark"], palette: theme.Palette
) -> None:
    colours = dict(zip(theme.ROLES, theme.colours(palette), strict=True))
    with visitor(lab, browser, f"/study?id={study}", scheme) as page:
        chart = page.locator(".st-key-place-paths")
        words = chart.locator("text", has_text="W-Asymmetric").last
        expect(words).to_have_attribute("fill", colours[theme.words("w")])
        expect(chart.locator("text", has_text="test loss (nats)")).to_have_attribute("fill", colours["muted"])
        expect(chart.locator(f'path[stroke="{colours["w"]}"]').first).to_be_attached()


def test_a_wrong_field_is_told_under_it_and_cannot_be_started(lab: Lab, browser: Browser, study: str) -> None:
    with visitor(lab, browser, "/launch?preset=smoke") as page:
        page.get_by_role("spinbutton", name="Width").fill("0")
        page.keyboard.press("Tab")
        expect(page.get_by_role("alert")).to_have_text(
            "network.width: 0; accepted: an integer from 1 to 8192"
        )
        expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()
    assert [found["study"] for found in lab.studies()] == [study]


def test_picked_runs_are_deleted_together(lab: Lab, browser: Browser, study: str) -> None:
    copy = lab.submit(lab.study(study)["spec"], fresh=True)
    lab.cancel([copy])
    for _ in lab.watch(copy):
        pass
    _, total = lab.runs()
    with visitor(lab, browser, "/runs?state=cancelled&state=done") as page:
        table = page.get_by_test_id("stDataFrame")
        expect(table).to_be_visible()
        page.wait_for_timeout(1000)
        for row in (0, 1):
            table.click(position={"x": 17, "y": 54 + 36 * row})
        page.get_by_role("button", name="Delete", exact=True).click()
        page.get_by_role("button", name="Delete 2", exact=True).click()
        expect(page.get_by_text(f"{total - 2} runs", exact=True)).to_be_visible()
    assert lab.runs()[1] == total - 2
