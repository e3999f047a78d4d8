"""The port that a lab takes is one where nobody else answers."""

from __future__ import annotations

import socket

import pytest

from app import listening


def test_a_port_beside_another_program_on_all_addresses_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system would let both listen: macOS with SO_REUSEADDR, Linux with SO_REUSEPORT."""
    monkeypatch.setattr(socket, "SO_REUSEADDR", socket.SO_REUSEPORT)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(listening.PortTakenError, match=f"port {port} on 127.0.0.1 is in use"):
            listening.listen("127.0.0.1", port)
    with listening.listen("127.0.0.1", port) as free:
        assert free.getsockname()[1] == port
