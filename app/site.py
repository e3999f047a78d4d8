"""The lab as one ASGI application: Streamlit's pages, the HTTP API and the guard before both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from streamlit.web import bootstrap

from app import theme
from jobs import service
from jobs.access import Access
from jobs.api import routes
from jobs.service import Service

SCRIPT = Path(__file__).parent / "script" / "main.py"
"""The script of the pages."""


OPTIONS: dict[str, Any] = {
    **theme.OPTIONS,
    "server.headless": True,
    "server.fileWatcherType": "none",
    "server.runOnSave": False,
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "none",
}
"""Streamlit's settings: the looks, nothing that phones home, no details of errors for visitors."""


def site(lab: Service, hosts: Sequence[str], address: str) -> st.App:
    """The application for the lab of this process.

    Args:
        lab: The lab. It is open already: what cannot be served was said before a port was taken.
        hosts: Names under which browsers may ask for it, beside localhost and plain addresses.
        address: Where this machine reaches it.
    """
    # The server is uvicorn on a socket of ours, not `App.run`: see `app.listening`.
    bootstrap.load_config_options(OPTIONS)

    @asynccontextmanager
    async def lifespan(_app: st.App) -> AsyncIterator[dict[str, Any]]:
        lab.announce(address)
        yield {}

    return st.App(
        SCRIPT,
        lifespan=lifespan,
        routes=routes(service.current, address),
        middleware=[Middleware(Access, keys=lab.keys, hosts=hosts)],
    )
