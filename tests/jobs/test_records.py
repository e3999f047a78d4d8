"""What a batch promises: what goes in comes out with its table's name, equal rows are equal bytes, bad rows are told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jobs.records import ARTIFACT, METRIC, RecordError, decode, encode

ROWS: dict[str, Any] = {
    "member": np.arange(3),
    "name": ["test/loss"] * 3,
    "step": [1, 2, 3],
    "value": np.array([0.5, np.inf, np.nan]),
}


def test_rows_come_back_with_their_table() -> None:
    table, batch = decode(encode("metric", METRIC, ROWS))
    assert table == "metric"
    assert batch.schema.names == METRIC.names
    found = batch.to_pydict()
    assert found["member"] == [0, 1, 2]
    assert found["name"] == ROWS["name"]
    np.testing.assert_array_equal(
        found["value"], ROWS["value"]
    )  # a diverged loss stays NaN, it does not go missing


def test_equal_rows_are_equal_bytes() -> None:
    as_lists = {name: list(column) for name, column in ROWS.items()}
    assert encode("metric", METRIC, ROWS) == encode("metric", METRIC, as_lists)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": None}, "got columns .*; accepted"),
        ({"extra": [1, 2, 3]}, "got columns .*'extra'"),
        ({"member": [1, 2]}, "different lengths"),
        ({"member": [1, 2, 2**40]}, "metric.member: .*; accepted: int32"),
        ({"step": [1, 2, "three"]}, "metric.step: .*; accepted: int64"),
        ({"name": ["a", "b", 3]}, "metric.name: .*; accepted: string"),
        ({"name": ["a", None, "c"]}, "metric.name: 1 values are missing"),
    ],
)
def test_rows_that_do_not_fit_name_the_column(change: dict[str, Any], message: str) -> None:
    columns = {name: column for name, column in (ROWS | change).items() if column is not None}
    with pytest.raises(RecordError, match=message):
        encode("metric", METRIC, columns)


def test_every_cut_of_a_batch_is_refused() -> None:
    whole = encode("artifact", ARTIFACT, {"name": ["w"], "path": ["w.st"], "sha256": ["0"], "bytes": [1]})
    for cut in range(0, len(whole) - 8, 7):  # the last 8 bytes only say that no more batches follow
        with pytest.raises(RecordError):
            decode(whole[:cut])
