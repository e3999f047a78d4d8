"""`Lab(path)`: a lab for a notebook or a command; uses the running server, or starts one and stops it again."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jobs.client import Client, RefusedError, UnreachableError
from jobs.folder import LabFolder, LabUnusableError
from jobs.keys import Keys

START_SECONDS = 120.0
"""How long a server may take to start."""
RACE_SECONDS = 30.0
"""How long the server of another process may take to answer, where that was first to own the folder."""
PROOF_SECONDS = 10.0
"""How long what answers at an announced address may take to prove that it is the lab."""
STOP_SECONDS = 60.0
"""How long a server may take to stop its workers at a checkpoint."""


class Lab(Client):
    """A connection to the lab in a folder. Use it as a context manager, or call `close`.

    A server that it started ends with it: also when this process is killed, since it watches the pipe to it.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        slots: int | None = None,
        options: Sequence[str] = ("--port=0",),
    ) -> None:
        """Connect, and start what is missing.

        Args:
            path: The lab's folder, else `$SYMLAB_LAB`, else `./lab`; made where it is missing.
            slots: Runs at once, where a server must be started; by default what the machine has room for.
            options: Where a server must be started, how it listens: options of `python -P -m app.server`.

        Raises:
            LabUnusableError: The lab cannot be served; one line.
        """
        self.lab = LabFolder.find(path)
        self._server: subprocess.Popen[bytes] | None = None
        address = running(self.lab)
        if address is None:
            chosen = [*options] if slots is None else [*options, f"--slots={slots}"]
            self._server, address = _start(self.lab, chosen)
        super().__init__(address, Keys.load(self.lab.secret).token)

    @property
    def started(self) -> bool:
        """Whether the server was started for this object, and ends with it."""
        return self._server is not None

    def wait(self) -> None:
        """Wait until the server that was started here ends, if one was."""
        if self._server is not None:
            self._server.wait()

    def close(self) -> None:
        """Close the connection, and stop the server if it was started here: its runs go on at the next start."""
        super().close()
        if self._server is not None:
            _stop(self._server)
            self._server = None


def running(lab: LabFolder) -> str | None:
    """The address of the server that serves a lab folder now; none when there is none.

    What a killed server announced may by now be the address of another program, so that the lab's token must not be
    shown there before it has proved what it is.
    """
    server = lab.server()
    if server is None or not lab.owned():
        return None
    address = str(server["address"])
    token = Keys.load(lab.secret).token
    not_ours = contextlib.suppress(UnreachableError, RefusedError)
    with not_ours, Client(address, None, timeout=PROOF_SECONDS) as client:
        if client.serves(token):
            return address
    return None


def _start(lab: LabFolder, options: Sequence[str]) -> tuple[subprocess.Popen[bytes] | None, str]:
    """Start a server as a child and wait until it is ready; it says what goes wrong in the lab's server.log.

    Returns:
        The child, and its address; no child when another process won the race for the folder.
    """
    try:
        lab.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = lab.log.open("wb")
    except OSError as error:
        message = f"lab folder {lab.path} cannot be used: {error.strerror}"
        raise LabUnusableError(message) from error
    command = [
        sys.executable,
        "-P",
        "-m",
        "app.server",
        "--lab",
        str(lab.path),
        *options,
        "--with-parent",
    ]
    with log:
        # A session of its own: Ctrl-C in this terminal is for this process, which then stops the server in order.
        server = subprocess.Popen(  # noqa: S603  (fixed words and a path)
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
    try:
        return _wait(lab, server)
    except BaseException:
        _stop(server)
        raise


def _wait(lab: LabFolder, server: subprocess.Popen[bytes]) -> tuple[subprocess.Popen[bytes] | None, str]:
    """Wait until a child serves the lab."""
    deadline = time.monotonic() + START_SECONDS
    ended = False
    while time.monotonic() < deadline:
        if not ended and server.poll() is not None:
            ended, deadline = True, time.monotonic() + RACE_SECONDS
        found = lab.server()
        if found is not None and (ended or found["pid"] == server.pid):
            address = running(lab)
            if address is not None:
                return (None if ended else server), address
        if ended and not lab.owned():
            break
        time.sleep(0.05)
    said = lab.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    unsaid = f"the server of lab folder {lab.path} did not start within {START_SECONDS:.0f} s; see {lab.log}"
    other = "; that one does not prove that its token is the one here ($SYMLAB_TOKEN, or the file secret)"
    raise LabUnusableError((said[-1] if said else unsaid) + (other if ended and lab.owned() else ""))


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End a child by closing the pipe that it watches; kill it when that takes too long."""
    assert server.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        server.stdin.close()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
