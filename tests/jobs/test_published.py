"""The measured results that ship with the project come into a lab, and say what docs/results.md says."""

from __future__ import annotations

import re
from pathlib import Path

from jobs.service import Service

DOCS = Path(__file__).parents[2] / "docs"
RECORDS = {"lmc_resnet20x8.zip": "ResNet20 8 times as wide, 5 pairs"}
"""An export, and the row of the table that it measured."""
SPREAD = re.compile(r"(\d*\.\d+) ± (\d*\.\d+)")


def test_every_published_record_is_in_a_table_that_says_the_same(lab: Service) -> None:
    assert {path.name for path in (DOCS / "records").iterdir()} == set(RECORDS)
    for name, title in RECORDS.items():
        [study] = lab.import_folder(DOCS / "records" / name).studies
        summary = lab.results(study)["summary"].to_pylist()
        measured = {
            row["treatment"]: row for row in summary if row["split"] == "test" and row["quantity"] == "loss"
        }
        [line] = re.findall(
            rf"^\| {re.escape(title)} \|(.*)\|$", (DOCS / "results.md").read_text(), re.MULTILINE
        )
        written = [SPREAD.search(cell) for cell in line.split("|")]
        assert len(written) == 4
        for treatment, cell in zip(("standard", "rebasin", "sigma", "w"), written, strict=True):
            assert cell
            for number, column in zip(
                cell.groups(), ("barrier_midpoint", "barrier_midpoint_std"), strict=True
            ):
                digits = len(number.partition(".")[2])
                assert abs(float(number) - measured[treatment][column]) <= 0.5001 * 10**-digits, treatment
