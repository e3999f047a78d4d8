"""The table of results says the same on the page, in a spreadsheet and in a paper."""

from __future__ import annotations

import io
import math
import re

import made_up
import numpy as np
import pandas as pd
import pytest

from app.charts import tables
from app.charts.quantities import ACCURACY, LOSS, Quantity

ALL = list(made_up.HEIGHTS)


def html(summary: pd.DataFrame, quantity: Quantity, split: str) -> str:
    return tables.table(ALL, tables.columns(ALL, summary, quantity, split))


def latex(summary: pd.DataFrame, quantity: Quantity, split: str) -> str:
    return tables.booktabs(ALL, tables.columns(ALL, summary, quantity, split), "a note")


@pytest.fixture(scope="module")
def summary() -> pd.DataFrame:
    return made_up.results(paper=True)["summary"].to_pandas()


def test_the_csv_reads_back_as_the_results(summary: pd.DataFrame) -> None:
    read = pd.read_csv(io.StringIO(tables.csv(summary)))
    pd.testing.assert_frame_equal(read, summary, check_dtype=False, check_exact=True)


def test_page_and_latex_show_the_mean_and_sample_spread_over_pairs(summary: pd.DataFrame) -> None:
    pairs = made_up.results()["pairs"].to_pandas()
    own = pairs[(pairs["split"] == "test") & (pairs["quantity"] == "loss")]
    shown, paper = html(summary, LOSS, "test"), latex(summary, LOSS, "test")
    for _, values in own.groupby("treatment")["barrier_midpoint"]:
        mean, std = values.mean(), values.std(ddof=1)
        assert f"{mean:.3f} ".replace("-", "−") + f'<span class="spread">± {std:.3f}' in shown
        assert rf"${mean:.3f} \pm {std:.3f}$" in paper


def test_the_paper_stands_beside_what_compares_and_nothing_else(summary: pd.DataFrame) -> None:
    assert "0.188 " in html(summary, LOSS, "test")
    assert "−0.006" in html(summary, LOSS, "test")
    for quantity, split in ((LOSS, "train"), (ACCURACY, "test")):
        assert "Paper" not in html(summary, quantity, split)
    assert "Paper" not in html(made_up.results()["summary"].to_pandas(), LOSS, "test")


def test_latex_rows_have_as_many_cells_as_the_head(summary: pd.DataFrame) -> None:
    for quantity in (LOSS, ACCURACY):
        text = latex(summary, quantity, "test")
        columns = re.search(r"\{l(r+)\}", text)
        assert columns is not None
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len(rows) == 1 + 4
        assert {row.count(" & ") for row in rows} == {len(columns[1])}
        assert not re.search(r"(?<!\\)%", "\n".join(rows))


def test_accuracy_is_shown_in_percent(summary: pd.DataFrame) -> None:
    rows = tables.selected(summary, ACCURACY, "test")
    assert rows["endpoint"].between(50, 100).all()
    assert "percentage points" in html(summary, ACCURACY, "test")


@pytest.mark.parametrize(
    ("value", "text"),
    [(-0.0124, "−0.012"), (-0.0001, "0.000"), (0.5, "0.500"), (math.nan, "–"), (np.float64(2), "2.000")],
)
def test_numbers_have_a_typographic_minus_and_no_negative_zero(value: float, text: str) -> None:
    assert tables.number(value, 3) == text


def test_a_single_pair_has_no_spread() -> None:
    summary = made_up.results(pairs=1)["summary"].to_pandas()
    head = html(summary, LOSS, "test").split("</td>")[0]
    assert "±" not in head


def test_cards_count_pairs_while_a_study_goes_on(summary: pd.DataFrame) -> None:
    some = summary[summary["treatment"] != "w"]
    shown = tables.cards(ALL, some, LOSS, "test", "midpoint", planned=10)
    assert shown.count("5 of 10 pairs") == 3
    assert "0 of 10 pairs" in shown
    assert tables.cards(ALL, summary, LOSS, "test", "maximum", planned=5).count("n = 5") == 4


def test_the_table_has_its_rows_before_their_numbers(summary: pd.DataFrame) -> None:
    nothing, some = summary[:0], summary[summary["treatment"] != "w"]
    for part, dashes in ((nothing, 5 * 4), (some, 6), (summary, 0)):
        shown = html(part, LOSS, "test")
        assert shown.count('scope="row"') == 4
        assert shown.count(f">{tables.MISSING}<") == dashes


def test_what_networks_reach_has_its_units_and_no_unit_where_nothing_is_known() -> None:
    known = tables.reached("test", (0.0864, 0.0074), (97.5, math.nan))
    assert known.startswith('<br>test loss 0.086 <span class="spread">± 0.007</span> nats<br>')
    assert known.endswith("test accuracy 97.5 %")
    nothing = (math.nan, math.nan)
    assert tables.reached("test", nothing, nothing) == "<br>test loss –<br>test accuracy –"
