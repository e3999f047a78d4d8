"""The house stands as it is drawn: arrows point down, and workers and notebooks need little to import a floor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parent.parent
SCIENCE = {
    "numpy",
    "pooch",
    "pydantic",
    "pydantic_core",
    "requests",
    "safetensors",
    "scipy",
    "sklearn",
    "torch",
    "triton",  # a part of torch where it is built for a GPU
}
WORKER = SCIENCE | {"httpx", "psutil", "pyarrow"}
HEAVY = ("altair", "cyclopts", "duckdb", "pandas", "starlette", "streamlit", "uvicorn")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("app", "jobs", "symcore", include_external_packages=True, cache_dir=None)


def external_imports(graph: grimp.ImportGraph, modules: set[str]) -> dict[str, set[str]]:
    """The packages that modules import directly, from outside the house and the standard library."""
    house = {"app", "jobs", "symcore"}
    found = {
        module: {name.split(".")[0] for name in graph.find_modules_directly_imported_by(module)}
        - house
        - set(sys.stdlib_module_names)
        for module in modules
    }
    return {module: packages for module, packages in found.items() if packages}


def test_imports_keep_every_contract_of_pyproject(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True, no_logo=True) == 0


def test_the_science_needs_only_its_own_libraries(graph: grimp.ImportGraph) -> None:
    modules = {"symcore"} | graph.find_descendants("symcore")
    assert modules > {"symcore.population", "symcore.training"}
    strangers = {module: packages - SCIENCE for module, packages in external_imports(graph, modules).items()}
    assert not any(strangers.values()), strangers


def test_what_a_worker_imports_needs_no_server(graph: grimp.ImportGraph) -> None:
    """Everything reachable from the worker, kinds and studies found at run time included."""
    entry = {"jobs.worker", "jobs.registry"}
    entry |= graph.find_descendants("jobs.kinds") | graph.find_descendants("jobs.studies")
    reached = entry.union(*(graph.find_upstream_modules(module) for module in entry))
    inside = {module for module in reached if module.split(".")[0] in {"app", "jobs", "symcore"}}
    strangers = {module: packages - WORKER for module, packages in external_imports(graph, inside).items()}
    assert not any(strangers.values()), strangers


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import jobs.worker, jobs.registry as r; r.kinds(), r.studies()", HEAVY),
        ("import jobs.cli.command", ("torch", "streamlit", "duckdb", "sklearn")),
        ("import symcore.population, symcore.training", (*HEAVY, "jobs", "app")),
    ],
    ids=["worker", "command line", "science"],
)
def test_an_import_stays_light(statement: str, absent: tuple[str, ...]) -> None:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not set(absent) & set(json.loads(done.stdout))
