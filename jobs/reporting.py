"""Sends a worker's records to the server and takes its commands; a server that is away is waited for, not needed."""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from jobs.execution import Outcome
from jobs.job import Job
from jobs.keys import proof
from jobs.spool import Spool

LARGEST_BODY = 4 * 2**20
"""Bytes of records in one request."""
LOOK_SECONDS = 0.2
"""How often it looks for new records; those of a moment travel together."""
HEARTBEAT_SECONDS = 1.0
AWAY_SECONDS = 2.0
"""Longest wait before a server that is away is tried again."""


class ForeignServerError(Exception):
    """What answers at the announced address is not the lab."""


class Disowned(Exception):  # noqa: N818 - not an error: the run belongs to another attempt, or was deleted
    """The server wants nothing more from this attempt, and nothing more may be written to the run's folder."""


class Server:
    """The connection to the lab's server, made anew from its address file after every failure."""

    def __init__(self, address_file: Path, run: str, attempt: int, token: str) -> None:
        """Prepares for one run.

        Args:
            address_file: the lab's server.json.
            run: the run's id.
            attempt: the attempt at it.
            token: of this attempt.
        """
        self._address_file, self._run, self._attempt, self._token = address_file, run, attempt, token
        self._headers = {"Authorization": f"Bearer {token}"}
        self._client: httpx.Client | None = None

    def post(self, verb: str, **content: Any) -> dict[str, Any]:  # noqa: ANN401 - httpx's own arguments
        """Posts to one of the run's verbs and returns the answer.

        Raises:
            Disowned: if the server wants nothing more from this attempt.
            httpx.HTTPError: if it cannot be reached or does not take it.
            OSError, ValueError, LookupError: if its address is not known.
            ForeignServerError: if something else answers there.
        """
        if self._client is None:
            self._client = self._connect()
        path = f"/api/v1/runs/{self._run}/{verb}"
        response = self._client.post(path, headers=self._headers, **content)
        if response.status_code == httpx.codes.CONFLICT and _object(response).get("command") == "stop":
            raise Disowned
        response.raise_for_status()
        return _object(response)

    def _connect(self) -> httpx.Client:
        """A connection to what has proved that it is the lab; until then it is shown no token."""
        address = json.loads(self._address_file.read_text(encoding="utf-8"))["address"]
        # No proxy of the environment may stand between a worker and its own machine.
        client = httpx.Client(base_url=address, timeout=10.0, trust_env=False)
        try:
            self._check(client)
        except BaseException:
            client.close()
            raise
        return client

    def _check(self, client: httpx.Client) -> None:
        """Has what answers prove that it is the lab which gave this attempt its token."""
        challenge = secrets.token_urlsafe(24)
        asked: dict[str, str | int] = {"challenge": challenge, "run": self._run, "attempt": self._attempt}
        shown = str(_object(client.get("/api/ready", params=asked)).get("proof", ""))
        if not hmac.compare_digest(shown.encode(), proof(self._token, challenge).encode()):
            msg = f"what answers at {client.base_url} is not this lab"
            raise ForeignServerError(msg)

    def forget(self) -> bool:
        """Closes the connection; says whether there was one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        return client is not None


def _object(response: httpx.Response) -> dict[str, Any]:
    """The JSON object that a lab answers with.

    Raises:
        ForeignServerError: if the answer is something else.
    """
    try:
        content = response.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        msg = f"{response.url} answered no JSON object"
        raise ForeignServerError(msg)
    return content


class Reporter(threading.Thread):
    """Posts what the spool holds and how far the run is, from its own thread beside the work."""

    def __init__(self, job: Job, spool: Spool, server: Server, *, disown: Callable[[], None]) -> None:
        """Prepares to report; `start()` begins.

        Args:
            job: whose progress is told, and which is stopped on command.
            spool: whose frames are sent.
            server: where they go.
            disown: called from this thread when the server wants nothing more from this attempt.
        """
        super().__init__(name="reporter", daemon=True)
        self._job, self._spool, self._server, self._disown = job, spool, server, disown
        self._acknowledged: int | None = None  # not known before the server's first answer
        self._next_try = self._last_beat = 0.0
        self._wait = LOOK_SECONDS
        self._finished = threading.Event()

    def run(self) -> None:
        """Reports until `finish`; the thread's own loop."""
        while not self._finished.is_set():
            self._try(self._report)
            self._finished.wait(LOOK_SECONDS)

    def finish(self, outcome: Outcome, seconds: float) -> bool:
        """Sends what is left and the outcome, for a limited time; says whether the server has it all."""
        self._finished.set()
        self.join()
        deadline = time.monotonic() + seconds
        self._next_try = 0.0
        while time.monotonic() < deadline:
            if self._try(lambda: self._hand_over(outcome)):
                return True
            time.sleep(LOOK_SECONDS)
        return False

    def _try(self, send: Callable[[], None]) -> bool:
        """Runs a sending step unless the server is being waited for; says whether it went through."""
        if time.monotonic() < self._next_try:
            return False
        try:
            send()
        except (httpx.HTTPError, ForeignServerError, OSError, ValueError, LookupError) as error:
            self._away(error)
            return False
        except Disowned:
            self._disown()
            return False
        self._wait = LOOK_SECONDS
        return True

    def _away(self, error: Exception) -> None:
        """Forgets the connection; the next try reads the address again, later each time."""
        if self._server.forget():
            self._job.log(f"the server does not answer ({type(error).__name__}: {error}); working on")
        self._acknowledged = None
        self._next_try = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, AWAY_SECONDS)

    def _report(self) -> None:
        self._send_records()
        if time.monotonic() - self._last_beat >= HEARTBEAT_SECONDS:
            latest = self._job.latest
            beat = {
                "done": latest.done,
                "total": latest.total,
                "note": latest.note,
            }
            self._obey(self._server.post("heartbeat", json=beat))
            self._last_beat = time.monotonic()

    def _send_records(self) -> None:
        """Posts all frames that the server lacks; the first request of a connection asks what it has."""
        while self._acknowledged is None or self._acknowledged < self._spool.count:
            first = self._acknowledged or 0
            body = b"" if self._acknowledged is None else self._spool.framed(first, LARGEST_BODY)[1]
            answer = self._server.post("records", params={"first": first}, content=body)
            self._acknowledged = int(answer["acknowledged"])
            self._obey(answer)

    def _hand_over(self, outcome: Outcome) -> None:
        self._send_records()
        self._server.post("outcome", json=outcome.model_dump(mode="json"))

    def _obey(self, answer: dict[str, Any]) -> None:
        if answer.get("command") == "cancel":
            self._job.stop("cancelled")
        elif answer.get("command") == "stop":
            self._job.stop("interrupted")
