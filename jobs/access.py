"""Who may in: a pure ASGI middleware in front of pages, WebSocket and API, so that nothing is trusted by being local.

People come with the lab's token (`Authorization: Bearer`) or with the cookie that a one-time link or the token sets;
workers come with a token for their attempt at their run. Health alone is open.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable
from html import escape
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request, cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from jobs.keys import COOKIE_SECONDS, Keys

OPEN = frozenset({"/api/ready", "/_stcore/health"})
"""Paths that anybody may ask."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
LARGEST_FORM = 16_384
"""Bytes of the largest login form."""
_WORKER_PATH = re.compile(r"/api/v1/runs/(?P<run>[^/]+)/(records|heartbeat|outcome)")

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Symmetry Lab</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
body {{ max-width: 34rem; margin: 15vh auto 0; padding: 0 1.5rem }}
input {{ font: inherit; width: 100%; box-sizing: border-box; margin: .25rem 0 .75rem; padding: .4rem }}
button {{ font: inherit; padding: .4rem 1rem }}
</style>
<h1>Symmetry Lab</h1>
<p>{reason}</p>
<p>For a link that logs this browser in, run <code>symlab up</code> on the machine that serves the lab, with the
same lab folder. A link works once.</p>
<form method="post" action="/login">
<label>Or paste the lab's token:<input name="token" type="password" autocomplete="off" required></label>
<input name="next" type="hidden" value="{target}"><button>Log in</button>
</form>
</html>
"""


class Access:
    """Middleware that lets through what has a right to pass, and says to the rest how to get in."""

    def __init__(self, app: ASGIApp, keys: Keys, hosts: Iterable[str] = ()) -> None:
        """Guard an application.

        Args:
            app: What is guarded.
            keys: The lab's token and what is derived from it.
            hosts: Names, beside localhost and plain addresses, under which browsers may ask for the lab. A page
                of another site can make its own name point here, but not an address.
        """
        self._app, self._keys = app, keys
        self._hosts = {"localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        # Who leaves in the middle of a request, a killed worker say, hears no answer, and it is nobody's fault.
        with contextlib.suppress(ClientDisconnect):
            await self._guard(scope, receive, send)

    async def _guard(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        answer = await self._answer(scope, receive)
        if answer is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "not logged in"})
        else:
            await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """The answer to those who may not pass; none for those who may."""
        headers, path = Headers(scope=scope), scope["path"]
        if not self._is_host(headers.get("host", "")):
            names = ", ".join(sorted(self._hosts))
            text = f"host: {headers.get('host', '')!r} is not a name of this lab; accepted: {names} and plain addresses\n"
            return PlainTextResponse(text, 400)
        if path in OPEN:
            return None
        if path == "/login" and scope["type"] == "http":
            return await self._login(Request(scope, receive))
        if self._may_pass(scope, headers):
            return None
        if path.startswith("/api/"):
            message = "give the lab's token as `Authorization: Bearer ...`; it is in the file `secret` of the lab folder"
            return JSONResponse({"error": message}, 401, {"WWW-Authenticate": "Bearer"})
        query = scope.get("query_string", b"").decode("latin-1")
        return _page("You are not logged in.", path + (f"?{query}" if query else ""), 401)

    def _may_pass(self, scope: Scope, headers: Headers) -> bool:
        """Whether a request shows the lab's token, a token for its attempt, or the cookie and no foreign origin."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        bearer = scheme.lower() == "bearer"
        worker = _WORKER_PATH.fullmatch(scope["path"])
        if worker is not None:
            scope["attempt"] = self._keys.worker_attempt(worker["run"], token) if bearer else None
            return scope["attempt"] is not None
        if bearer:
            return self._keys.is_token(token)
        # Not the standard library's parser, which gives up on what other programs of this host may have set.
        cookie = cookie_parser(headers.get("cookie", "")).get(self._keys.cookie_name, "")
        if not self._keys.is_cookie(cookie):
            return False
        # The cookie of this host is also sent by pages of its other ports: what acts must come from our own.
        acts = scope["type"] == "websocket" or scope["method"] not in SAFE
        return not acts or _same_origin(headers)

    async def _login(self, request: Request) -> Response:
        """Exchange a one-time code, or the token itself, for the cookie."""
        target = request.query_params.get("next", "/")
        if request.method == "POST":
            form = await _form(request)
            target = form.get("next", "/")
            good = self._keys.is_token(form.get("token", ""))
            reason = "This is not the lab's token."
        else:
            good = self._keys.use_link_code(request.query_params.get("code", ""))
            reason = "This link has been used, or is too old."
        if not (target.startswith("/") and not target.startswith(("//", "/\\"))):
            target = "/"
        if not good:
            return _page(reason, target, 401)
        answer = RedirectResponse(target, 303)
        answer.set_cookie(
            self._keys.cookie_name,
            self._keys.cookie(),
            max_age=COOKIE_SECONDS,
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",
        )
        return answer

    def _is_host(self, given: str) -> bool:
        """Whether a Host header is one of ours: a plain address, or an allowed name."""
        name = given.rsplit(":", 1)[0] if not given.endswith("]") else given
        name = name.strip("[]").lower()
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def login_link(address: str, keys: Keys, target: str = "/") -> str:
    """A link that logs one browser in, once, and leads to a page."""
    return f"{address}/login?{urlencode({'code': keys.link_code(), 'next': target})}"


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form; nothing of a large one, for anybody may send it."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_FORM:
            return {}
    return dict(parse_qsl(body.decode("utf-8", errors="replace")))


def _same_origin(headers: Headers) -> bool:
    """Whether the page that asks came from the host and port that it asks; browsers say so, other programs need not."""
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")


def _page(reason: str, target: str, status: int) -> Response:
    """What a browser sees that is not logged in."""
    text = PAGE.format(reason=escape(reason), target=escape(target, quote=True))
    return HTMLResponse(text, status, {"Cache-Control": "no-store"})
