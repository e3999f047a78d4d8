"""A socket to listen on: the port asked for, or the first free one."""

from __future__ import annotations

import errno
import os
import socket

DEFAULT_PORT = 8501
"""Where the search for a free port begins when none is asked for."""
PORTS_TRIED = 100
ANSWER_SECONDS = 0.5
"""How long a program of this machine is given to answer."""


class PortTakenError(Exception):
    """Nothing can listen where it was asked for; the message is one line."""


def listen(host: str, wanted: int | None) -> socket.socket:
    """A bound and listening socket.

    Args:
        host: Address or name of this machine.
        wanted: Port; 0 for any, none for the first free one from `DEFAULT_PORT` on.

    Raises:
        PortTakenError: The port is in use, or not ours to take, or the address is not one of this machine.
    """
    candidates = [wanted] if wanted is not None else range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED)
    for port in candidates:
        try:
            return _bound(host, port)
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            if in_use and wanted is None:
                continue
            reason = "is in use" if in_use else f"cannot be used: {error.strerror}"
            message = f"port {port} on {host} {reason}; name another with --port, or leave it out to take a free one"
            raise PortTakenError(message) from error
    last = DEFAULT_PORT + PORTS_TRIED - 1
    message = f"ports {DEFAULT_PORT} to {last} on {host} are in use; name one with --port"
    raise PortTakenError(message)


def address(host: str, listener: socket.socket) -> str:
    """The address under which this machine reaches what listens on `host`."""
    name = _reached(host)
    return f"http://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}"


def _reached(host: str) -> str:
    """The name under which this machine reaches what listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104  (compared only)


def _answers(host: str, port: int) -> bool:
    """Whether a program listens there already.

    With SO_REUSEADDR macOS lets 127.0.0.1 be taken beside a program that listens on all addresses, and would lead its
    visitors here.
    """
    try:
        with socket.create_connection((_reached(host), port), timeout=ANSWER_SECONDS) as there:
            # A connection to a free port may meet itself.
            return bool(there.getsockname() != there.getpeername())
    except OSError:
        return False


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket.

    It names its protocol, TCP: asyncio sends small answers at once (TCP_NODELAY) on such sockets only, and on others
    each answer waits 40 ms for the other side's acknowledgement of its first half.
    """
    if port and _answers(host, port):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(2048)
    except BaseException:
        listener.close()
        raise
    return listener
