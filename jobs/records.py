"""What a run records: rows of typed tables, carried in numbered batches of one Arrow IPC stream each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Column = Sequence[object] | NDArray[np.generic]
"""Values of one column; numpy arrays are taken as they are."""

METRIC = pa.schema(
    [
        pa.field("member", pa.int32(), nullable=False),  # which network of the population
        pa.field("name", pa.string(), nullable=False),  # say "test/loss"
        pa.field("step", pa.int64(), nullable=False),  # epochs done
        pa.field("value", pa.float64(), nullable=False),  # NaN where training diverged
    ]
)
ARTIFACT = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),  # relative to the run's folder
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
    ]
)
COMMON: dict[str, pa.Schema] = {"metric": METRIC, "artifact": ARTIFACT}
"""Tables that every kind of run may fill; the run is a column that the store adds."""


class RecordError(ValueError):
    """A batch that does not fit its table."""


def encode(table: str, schema: pa.Schema, columns: Mapping[str, Column]) -> bytes:
    """One batch of rows as an Arrow IPC stream that names its table.

    Raises:
        RecordError: naming the column that is missing, unknown, of another length or type, or has gaps.
    """
    if set(columns) != set(schema.names):
        msg = f"{table}: got columns {sorted(columns)}; accepted: {sorted(schema.names)}"
        raise RecordError(msg)
    arrays = []
    for field in schema:
        try:
            arrays.append(pa.array(columns[field.name], type=field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            msg = f"{table}.{field.name}: {error}; accepted: {field.type}"
            raise RecordError(msg) from error
        if arrays[-1].null_count:
            msg = f"{table}.{field.name}: {arrays[-1].null_count} values are missing; accepted: {field.type}"
            raise RecordError(msg)
    lengths = {name: len(array) for name, array in zip(schema.names, arrays, strict=True)}
    if len(set(lengths.values())) > 1:
        msg = f"{table}: columns of different lengths {lengths}"
        raise RecordError(msg)
    batch = pa.record_batch(arrays, schema=schema.with_metadata({"table": table}))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def decode(payload: bytes) -> tuple[str, pa.RecordBatch]:
    """The table's name and the rows of one batch.

    Raises:
        RecordError: if the bytes are not one batch that names its table.
    """
    try:
        with pa.ipc.open_stream(payload) as reader:
            table = (reader.schema.metadata or {}).get(b"table", b"").decode()
            batches = list(reader)
    except (pa.ArrowInvalid, OSError) as error:  # a cut stream is an OSError
        msg = f"not an Arrow stream: {error}"
        raise RecordError(msg) from error
    if not table or len(batches) != 1:
        msg = f"a batch is one record batch with its table's name in the schema; got {len(batches)} for {table!r}"
        raise RecordError(msg)
    return table, batches[0]
