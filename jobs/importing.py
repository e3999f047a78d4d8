"""Stores what another machine made: a folder of the offline worker, or what `export` wrote. Twice gives no doubles."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
from pyarrow import parquet
from pydantic import ValidationError

from jobs import importing_offline
from jobs.exporting import FORMAT, RUN_TABLES, STUDY_TABLES
from jobs.folder import LabFolder
from jobs.importing_offline import Imported, ImportRefusedError, run_folders
from jobs.ledger import Ledger
from jobs.ledger_rows import Run, Study, new_id
from jobs.records import RecordError
from jobs.store import BatchRefusedError

DAMAGE = (
    OSError,
    KeyError,
    TypeError,
    ValueError,
    ValidationError,
    RecordError,
    BatchRefusedError,
    RuntimeError,
    pa.ArrowException,
    duckdb.Error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a folder or zip raises that is not as its writer left it."""


_ID = re.compile("[rs][a-z2-7]{10}")
"""What ids of runs and studies look like; they become names of folders."""


def import_path(ledger: Ledger, lab: LabFolder, path: Path) -> Imported:
    """Store a folder or zip in one commit; nothing is stored when something is wrong with it.

    Raises:
        ImportRefusedError: It holds neither kind of study, nothing that is finished, or something damaged.
    """
    if zipfile.is_zipfile(path):
        with tempfile.TemporaryDirectory(prefix="symlab-import-") as scratch:
            try:
                shutil.unpack_archive(path, scratch, "zip")
            except DAMAGE as error:
                raise _damaged(path, error) from error
            heads = list(Path(scratch).glob("*/export.json"))
            if len(heads) != 1:
                message = f"{path} is not an export of a lab: there is no export.json in it"
                raise ImportRefusedError(message)
            return import_path(ledger, lab, heads[0].parent)
    with ledger.transfer:
        try:
            if (path / "export.json").is_file():
                return _import_export(ledger, lab, path)
            if (path / "study.json").is_file():
                return importing_offline.import_out(ledger, lab, path)
        except ImportRefusedError:
            raise
        except DAMAGE as error:
            raise _damaged(path, error) from error
    message = f"{path} holds neither export.json nor study.json: name what `symlab export` or the offline worker wrote"
    raise ImportRefusedError(message)


def _damaged(path: Path, error: Exception) -> ImportRefusedError:
    """One line on what is wrong with what was to be read."""
    return ImportRefusedError(f"{path} is damaged: {type(error).__name__}: {' '.join(str(error).split())}")


def _import_export(ledger: Ledger, lab: LabFolder, path: Path) -> Imported:
    """Store what another lab exported, under the same ids; those that were deleted here get new ones."""
    head = json.loads((path / "export.json").read_text(encoding="utf-8"))
    if head["format"] != FORMAT:
        message = (
            f"{path} has format {head['format']}; this version of Symmetry Lab reads {FORMAT}: upgrade it"
        )
        raise ImportRefusedError(message)
    if not all(_ID.fullmatch(name) for name in [*head["runs"], *head["studies"]]):
        message = f"{path} names runs or studies that are none: it is not an export of a lab"
        raise ImportRefusedError(message)
    with ledger.lock:
        names = {run: new_id("r") if _is_deleted(ledger.runs.get(run)) else run for run in head["runs"]}
        names |= {
            study: new_id("s") if _is_deleted(ledger.studies.get(study)) else study
            for study in head["studies"]
        }
        fresh = [run for run in head["runs"] if names[run] not in ledger.runs]
        fresh_studies = [study for study in head["studies"] if names[study] not in ledger.studies]
    rows: dict[str, pa.Table] = {}
    for table in (*RUN_TABLES, *ledger.store.tables):
        rows[table] = _rows(path, table, "run", fresh, names)
    for table in STUDY_TABLES:
        rows[table] = _rows(path, table, "study", fresh_studies, names)
    with run_folders(lab, {names[run]: path / "runs" / run for run in fresh}) as place, ledger.lock:
        place()
        ledger.store.adopt({table: content for table, content in rows.items() if len(content)}).result()
        ledger.load()
    return Imported([names[study] for study in head["studies"]], len(fresh), len(head["runs"]) - len(fresh))


def _is_deleted(found: Run | Study | None) -> bool:
    """Whether a run or study was here and is deleted: its id stays its own."""
    return found is not None and found.deleted


def _rows(path: Path, table: str, column: str, ids: Sequence[str], names: Mapping[str, str]) -> pa.Table:
    """Rows of an exported table that belong to some ids, under the names that these get here, without `seq`."""
    file = path / "tables" / f"{table}.parquet"
    if not file.is_file():
        return pa.table({})  # a record table that the exporting version did not have
    content = parquet.read_table(file, filters=[(column, "in", list(ids))]) if ids else pa.table({})
    for name in {"run", "study"} & set(content.column_names):
        renamed = pa.array([names.get(old, old) for old in content[name].to_pylist()], pa.string())
        content = content.set_column(content.column_names.index(name), name, renamed)
    if "seq" in content.column_names:
        content = content.sort_by("seq").drop_columns("seq")
    if "inputs" in content.column_names:
        inputs = [json.loads(text) for text in content["inputs"].to_pylist()]
        texts = [json.dumps({key: names.get(run, run) for key, run in each.items()}) for each in inputs]
        content = content.set_column(
            content.column_names.index("inputs"), "inputs", pa.array(texts, pa.string())
        )
    return content
