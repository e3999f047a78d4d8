"""The chart of learned alignment: means and spreads over pairs, on an axis that stands still."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from app.charts import looks


def made_up(pairs: int) -> pd.DataFrame:
    steps = [0, 25, 50]
    return pd.DataFrame(
        [{"pair": p, "step": s, "value": 1.0 / (1 + s) + 0.1 * p} for p in range(pairs) for s in steps]
    )


def test_means_and_spreads_are_over_pairs() -> None:
    found = looks.summary(made_up(3))
    assert found["step"].tolist() == [0, 25, 50]
    assert found["mean"].to_numpy() == pytest.approx([1.1, 1 / 26 + 0.1, 1 / 51 + 0.1])
    spread = np.std([0, 0.1, 0.2], ddof=1)
    assert (found["high"] - found["mean"]).to_numpy() == pytest.approx([spread] * 3)
    assert found["pairs"].tolist() == [3, 3, 3]


@pytest.mark.parametrize("pairs", [1, 50])
def test_the_axis_holds_all_steps_while_some_are_missing_and_few_pairs_are_hairlines(pairs: int) -> None:
    drawn = looks.learning(made_up(pairs), "loss (nats)", 500, "sinkhorn").to_dict()
    domains = [layer["encoding"]["x"]["scale"]["domain"] for layer in drawn["layer"]]
    assert domains == [[0, 500]] * 4
    rows = [data for data in drawn["datasets"].values() if "pair" in data[0]]
    assert len({row["pair"] for row in rows[0]}) == min(pairs, looks.HAIRLINES)
    assert {row["role"] for row in rows[0]} == {"sinkhorn"}
