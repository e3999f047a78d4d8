"""The lab's token, and the keys of workers, cookies and links that are derived from it."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import threading
import time
from pathlib import Path

from jobs.files import write_whole
from jobs.folder import LabUnusableError

LINK_SECONDS = 600.0
"""How long a login link waits to be used."""
COOKIE_SECONDS = 30 * 24 * 3600
"""How long a browser stays logged in."""
SHORTEST_TOKEN = 16
"""Characters of the shortest `$SYMLAB_TOKEN`."""
_NUMBER = re.compile("[0-9]{1,15}")
"""The open part of a cookie or worker token; more digits were not written here, and `int` refuses thousands."""


def proof(token: str, challenge: str) -> str:
    """What only a holder of the token can answer to a challenge; whoever asks learns nothing of the token."""
    return hmac.new(token.encode(), f"proof {challenge}".encode(), hashlib.sha256).hexdigest()


class Keys:
    """All secrets of a lab. Comparisons take the same time whatever is wrong."""

    def __init__(self, token: str) -> None:
        self.token = token
        """What the API of people accepts as Bearer token."""
        self._links: dict[str, float] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: Path) -> Keys:
        """The keys of `$SYMLAB_TOKEN`, else of the file, which is made where it is missing.

        Raises:
            LabUnusableError: The token is too short to be one, or the file cannot be read or written.
        """
        token = os.environ.get("SYMLAB_TOKEN")
        if token is None:
            try:
                if not path.exists():
                    write_whole(path, secrets.token_urlsafe(32), mode=0o600)
                path.chmod(0o600)
                token = path.read_text(encoding="utf-8").strip()
            except OSError as error:
                message = f"the token file {path} cannot be used: {error.strerror}"
                raise LabUnusableError(message) from error
        if len(token) < SHORTEST_TOKEN:
            where = "$SYMLAB_TOKEN" if "SYMLAB_TOKEN" in os.environ else str(path)
            message = f"{where} holds {len(token)} characters; accepted: at least {SHORTEST_TOKEN}"
            raise LabUnusableError(message)
        return cls(token)

    @property
    def cookie_name(self) -> str:
        """Name of this lab's cookie: browsers share cookies between the ports of a host, so each lab has its own."""
        return f"symlab_{self._derive('cookie name')[:8]}"

    def is_token(self, given: str) -> bool:
        """Whether this is the lab's token."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def worker_token(self, run: str, attempt: int) -> str:
        """What one attempt at one run shows; it says its attempt in the open."""
        return f"{attempt}.{self._derive(f'worker {run} {attempt}')}"

    def prove(self, challenge: str, run: str = "", attempt: int = 0) -> str:
        """Shows one who holds the lab's token, or an attempt's, that this is the lab; see `proof`."""
        return proof(self.worker_token(run, attempt) if run else self.token, challenge)

    def worker_attempt(self, run: str, given: str) -> int | None:
        """The attempt at this run that a worker's token is for; none if it is not for this run."""
        number = given.partition(".")[0]
        if _NUMBER.fullmatch(number) is None:
            return None
        expected = self.worker_token(run, int(number))
        return int(number) if hmac.compare_digest(given.encode(), expected.encode()) else None

    def cookie(self) -> str:
        """A cookie's value: when it ends, and a signature of that."""
        end = str(int(time.time()) + COOKIE_SECONDS)
        return f"{end}.{self._derive(f'cookie {end}')}"

    def is_cookie(self, given: str) -> bool:
        """Whether this cookie's value was signed here and has not ended."""
        end = given.partition(".")[0]
        if _NUMBER.fullmatch(end) is None or int(end) < time.time():
            return False
        return hmac.compare_digest(given.encode(), f"{end}.{self._derive(f'cookie {end}')}".encode())

    def link_code(self) -> str:
        """A new code for a login link, good for one use within `LINK_SECONDS`."""
        code = secrets.token_urlsafe(24)
        now = time.monotonic()
        with self._lock:
            self._links = {known: end for known, end in self._links.items() if end > now}
            self._links[code] = now + LINK_SECONDS
        return code

    def use_link_code(self, code: str) -> bool:
        """Use up a code; whether it was good."""
        with self._lock:
            return self._links.pop(code, 0.0) > time.monotonic()

    def _derive(self, purpose: str) -> str:
        """A key for one purpose."""
        return hmac.new(self.token.encode(), purpose.encode(), hashlib.sha256).hexdigest()
