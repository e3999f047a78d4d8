"""The API from Python: the verbs of a lab over HTTP, with tables as Arrow and refusals as errors of one line."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import pyarrow as pa

from jobs.keys import proof

ARROW = "application/vnd.apache.arrow.stream"
Content = TypeVar("Content", dict[str, Any], list[dict[str, Any]])
CONNECT_SECONDS = 60.0
"""How long a lab may take to accept a request, and to answer one that moves no files."""


class RefusedError(Exception):
    """The lab refused a request; the message says why and what is accepted."""

    def __init__(self, status: int, message: str, errors: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status."""
        self.errors = list(errors)
        """Wrong fields, each with field, value and message."""


class UnreachableError(Exception):
    """No lab answers at the address; the message is one line."""


class Client:
    """A connection to a running lab. Dictionaries are as the API sends them, tables are Arrow."""

    def __init__(self, address: str, token: str | None, *, timeout: float = CONNECT_SECONDS) -> None:
        """Prepare a connection.

        Args:
            address: Where the lab is served, `http://host:port`.
            token: The lab's token; without one only `ready` is answered.
            timeout: Seconds to wait for an answer.
        """
        self.address = address
        # No proxy of the environment may stand between a program and a lab on its own machine.
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout, trust_env=False)

    def ready(self) -> dict[str, bool]:
        """Which parts of the lab are at work; `ready` is all of them."""
        state: dict[str, bool] = self._ready()
        return state

    def serves(self, token: str) -> bool:
        """Whether what answers is ready and proves that it is the lab of this token, which is not shown to it."""
        challenge = secrets.token_urlsafe(24)
        found = self._ready(challenge=challenge)
        shown = str(found.get("proof", "")).encode()
        return hmac.compare_digest(shown, proof(token, challenge).encode()) and found.get("ready") is True

    def schema(self) -> dict[str, Any]:
        """JSON schemas of the specs of studies and runs, and the presets of studies."""
        return self._get("/schema")

    def submit(self, spec: Mapping[str, Any], *, fresh: bool = False, title: str = "") -> str:
        """Queue a study or a single run; returns the study's id.

        Raises:
            RefusedError: Wrong fields are in its `errors`; nothing is queued.
        """
        return str(self._post("/studies", spec=dict(spec), fresh=fresh, title=title)["study"])

    def studies(self, *, limit: int = 50, offset: int = 0) -> list[dict[str, Any]]:
        """Studies, newest first; see `jobs.queries.studies`."""
        return self._rows("/studies", {"limit": limit, "offset": offset})

    def study(self, study: str) -> dict[str, Any]:
        """A study with its runs and its `progress` (fraction, eta, states, notes)."""
        return self._get(f"/studies/{study}")

    def results(self, study: str) -> dict[str, list[dict[str, Any]]]:
        """All result tables of a study as rows, by name."""
        return self._get(f"/studies/{study}/results")

    def result(self, study: str, table: str) -> pa.Table:
        """One result table of a study."""
        return self._table(f"/studies/{study}/results", {"table": table})

    def runs(self, **page: Any) -> tuple[list[dict[str, Any]], int]:  # noqa: ANN401  (those of queries.runs)
        """A page of the run table and how many runs all pages have; for the arguments see `jobs.queries.runs`."""
        answer = self._get("/runs", {name: value for name, value in page.items() if value is not None})
        return answer["runs"], answer["count"]

    def run(self, run: str) -> dict[str, Any]:
        """A run with events, artifacts, studies and `progress`."""
        return self._get(f"/runs/{run}")

    def metrics(self, run: str, names: Sequence[str] | None = None, max_points: int = 600) -> pa.Table:
        """Metric curves of a run; see `jobs.queries.metrics`."""
        wanted = {} if names is None else {"names": list(names)}
        return self._table(f"/runs/{run}/metrics", {"max_points": max_points, **wanted})

    def records(self, table: str, runs: Sequence[str]) -> pa.Table:
        """All rows of a record table that belong to some runs."""
        return self._table(f"/records/{table}", {"run": list(runs)})

    def log(self, run: str) -> str:
        """A run's log."""
        return self._request("GET", f"/api/v1/runs/{run}/log").text

    def artifact(self, run: str, name: str) -> bytes:
        """The content of a file that a run made."""
        return self._request("GET", f"/api/v1/runs/{run}/artifacts/{name}").content

    def cancel(self, ids: Sequence[str]) -> list[str]:
        """Cancel runs and studies; returns the ids of the runs that this ends."""
        return list(self._post("/runs/cancel", ids=list(ids))["runs"])

    def resume(self, ids: Sequence[str]) -> list[str]:
        """Queue cancelled and failed runs again; returns their ids."""
        return list(self._post("/runs/resume", ids=list(ids))["runs"])

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Delete finished runs and studies; returns the ids of the deleted runs."""
        return list(self._post("/runs/delete", ids=list(ids))["runs"])

    def purge(self) -> dict[str, int]:
        """Remove the files of deleted runs: how many runs, and bytes."""
        return self._post_long("/purge")

    def import_folder(self, path: str | Path) -> dict[str, Any]:
        """Store what the offline worker or an export wrote: `studies`, new `runs`, `known` runs, runs `left` unfinished."""
        return self._post_long("/import", path=str(Path(path).resolve()))

    def export(self, ids: Sequence[str], path: str | Path) -> Path:
        """Write studies and runs to a new folder, or a new file whose name ends in `.zip`; returns its path."""
        written = self._post_long("/export", ids=list(ids), path=str(Path(path).resolve()))
        return Path(written["path"])

    def login_link(self, target: str = "/") -> str:
        """A link that logs one browser in, once, and leads to a page."""
        return str(self._post("/login-links", next=target)["link"])

    def watch(self, study: str, seconds: float = 0.5) -> Iterator[dict[str, Any]]:
        """A study again and again, a pause apart, until it has ended; its last state comes last."""
        import time  # noqa: PLC0415  (only here)

        while True:
            found = self.study(study)
            yield found
            if found["ended"] is not None:
                return
            time.sleep(seconds)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ready(self, **asked: str) -> dict[str, Any]:
        return self._content(self._request("GET", "/api/ready", accepted=(200, 503), params=asked), dict)

    def _get(self, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._content(self._request("GET", f"/api/v1{path}", params=params), dict)

    def _rows(self, path: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        return self._content(self._request("GET", f"/api/v1{path}", params=params), list)

    def _post(self, path: str, /, **body: Any) -> dict[str, Any]:  # noqa: ANN401  (any JSON)
        return self._content(self._request("POST", f"/api/v1{path}", json=body), dict)

    def _post_long(self, path: str, /, **body: Any) -> dict[str, Any]:  # noqa: ANN401  (any JSON)
        """Posts what may take as long as copying many files does."""
        answer = self._request(
            "POST", f"/api/v1{path}", json=body, timeout=httpx.Timeout(CONNECT_SECONDS, read=None)
        )
        return self._content(answer, dict)

    def _content(self, answer: httpx.Response, kind: type[Content]) -> Content:
        """The JSON of an answer.

        Raises:
            UnreachableError: It is not what a lab answers.
        """
        try:
            content = answer.json()
        except ValueError:
            content = None
        if not isinstance(content, kind):
            message = f"no lab answers at {self.address}: what does is another program"
            raise UnreachableError(message)
        return content

    def _table(self, path: str, params: Mapping[str, Any]) -> pa.Table:
        answer = self._request("GET", f"/api/v1{path}", params=params, headers={"Accept": ARROW})
        with pa.ipc.open_stream(answer.content) as reader:
            return reader.read_all()

    def _request(
        self,
        method: str,
        path: str,
        *,
        accepted: Sequence[int] = (),
        **content: Any,  # noqa: ANN401  (httpx's)
    ) -> httpx.Response:
        """Send a request.

        Raises:
            RefusedError: The lab refused it.
            UnreachableError: No lab answers.
        """
        try:
            answer = self._http.request(method, path, **content)
        except httpx.RequestError as error:
            message = f"no lab answers at {self.address}: {error}"
            raise UnreachableError(message) from error
        if answer.is_success or answer.status_code in accepted:
            return answer
        raise _refused(answer)


def _refused(answer: httpx.Response) -> RefusedError:
    """An answer that is not a success as an error."""
    try:
        content = answer.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        content = {"error": answer.text.strip()[:200]}
    errors: list[dict[str, Any]] = content.get("errors", [])
    lines = [
        f"{error['field']}: {error['message']}" if error["field"] else error["message"] for error in errors
    ]
    message = "; ".join(lines) or content.get("error") or f"the lab answered {answer.status_code}"
    return RefusedError(answer.status_code, message, errors)
