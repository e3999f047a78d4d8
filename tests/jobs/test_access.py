"""Who gets in: nobody by being local; the token, the cookie of a one-time link, and a worker for its own attempt."""

from __future__ import annotations

import json
import socket
import stat
import time
import unittest
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving_tools import served
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from jobs.access import Access, login_link
from jobs.folder import LabUnusableError
from jobs.keys import Keys

KEYS = Keys("a token of more than sixteen characters")
TOKEN = {"Authorization": f"Bearer {KEYS.token}"}
PATHS = (
    "/",
    "/study?study=s1",
    "/api/v1/runs",
    "/_stcore/host-config",
    "/_stcore/metrics",
    "/media/x",
    "/static/x",
)


async def _inside(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"inside {request.method}")


async def _reading(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())} bytes")


async def _socket(visitor: WebSocket) -> None:
    await visitor.accept()
    await visitor.send_text("inside")
    await visitor.close()


@pytest.fixture
def browser() -> Iterator[httpx.Client]:
    inner = Starlette(
        routes=[
            WebSocketRoute("/_stcore/stream", _socket),
            Route("/read", _reading, methods=["POST"]),
            Route("/{path:path}", _inside, methods=["GET", "POST"]),
        ]
    )
    with (
        served(Access(inner, KEYS, ["lab.example.org"])) as address,
        httpx.Client(base_url=address) as client,
    ):
        yield client


def origin(browser: httpx.Client) -> str:
    """How a browser names the place that a page came from."""
    return str(browser.base_url).rstrip("/")


def socket_says(browser: httpx.Client, page: str) -> str:
    """What the WebSocket says to a page of some origin."""
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    url = origin(browser).replace("http", "ws") + "/_stcore/stream"
    with connect(url, additional_headers={"Cookie": cookies, "Origin": page}, proxy=None) as socket:
        return str(socket.recv())


def log_in(browser: httpx.Client, target: str = "/") -> str:
    """Follow a new login link; returns where it leads."""
    answer = browser.get(login_link("", KEYS, target))
    assert answer.status_code == 303
    return str(answer.headers["location"])


@pytest.mark.parametrize("path", PATHS)
def test_a_stranger_sees_nothing(browser: httpx.Client, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": f"{KEYS.cookie_name}=9999999999.0"}):
        answer = browser.get(path, headers=headers)
        assert answer.status_code == 401
        assert "inside" not in answer.text


def test_a_stranger_is_told_how_to_get_in(browser: httpx.Client) -> None:
    assert "symlab up" in browser.get("/study?study=s1").text
    assert "Bearer" in browser.get("/api/v1/runs").json()["error"]


def test_health_alone_is_open(browser: httpx.Client) -> None:
    assert browser.get("/api/ready").text == "inside GET"
    assert browser.get("/_stcore/health").text == "inside GET"
    assert browser.get("/api/ready/").status_code == 401
    assert browser.get("/_stcore/healthz").status_code == 401


def test_the_token_opens_everything(browser: httpx.Client) -> None:
    for path in PATHS:
        assert browser.get(path, headers=TOKEN).text == "inside GET"
    assert browser.post("/api/v1/studies", headers=TOKEN).text == "inside POST"


def test_a_link_logs_one_browser_in_once(browser: httpx.Client) -> None:
    link = login_link("", KEYS, "/study?study=s1&x=2")
    answer = browser.get(link)
    assert answer.headers["location"] == "/study?study=s1&x=2"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert browser.get("/").text == "inside GET"
    browser.cookies.clear()
    again = browser.get(link)
    assert again.status_code == 401
    assert "has been used" in again.text
    assert browser.get("/").status_code == 401


def test_a_person_may_paste_the_token_instead(browser: httpx.Client) -> None:
    assert browser.post("/login", data={"token": "wrong", "next": "/runs"}).status_code == 401
    answer = browser.post("/login", data={"token": KEYS.token, "next": "/runs"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs")
    assert browser.get("/runs").text == "inside GET"


@pytest.mark.parametrize(
    "target", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:1"]
)
def test_a_link_leads_nowhere_else(browser: httpx.Client, target: str) -> None:
    assert log_in(browser, target) == "/"


def test_the_page_for_strangers_repeats_nothing_unescaped(browser: httpx.Client) -> None:
    assert "<script>" not in browser.get('/x"><script>alert(1)</script>').text
    assert "<script>" not in browser.get('/login?code=x&next=/"><script>').text


def test_the_websocket_needs_the_cookie_too(browser: httpx.Client) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        socket_says(browser, origin(browser))
    log_in(browser)
    assert socket_says(browser, origin(browser)) == "inside"


def test_a_page_of_another_port_cannot_act_with_our_cookie(browser: httpx.Client) -> None:
    log_in(browser)
    foreign = {"Origin": "http://127.0.0.1:9999"}
    assert browser.post("/api/v1/runs/delete", headers=foreign).status_code == 401
    with pytest.raises(InvalidStatus, match="403"):
        socket_says(browser, "http://127.0.0.1:9999")
    assert browser.post("/api/v1/runs/delete", headers={"Origin": origin(browser)}).text == "inside POST"
    assert browser.post("/api/v1/runs/delete", headers=foreign | TOKEN).text == "inside POST"


@pytest.mark.parametrize(
    ("host", "welcome"),
    [
        ("localhost", True),
        ("LOCALHOST:8501", True),
        ("127.0.0.1:8501", True),
        ("192.168.1.7:8501", True),
        ("[::1]:8501", True),
        ("[::1]", True),
        ("lab.example.org:8501", True),
        ("evil.example", False),
        ("localhost.evil.example:8501", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_only_our_own_names_are_answered(browser: httpx.Client, host: str, welcome: bool) -> None:
    """A foreign page can point its name here (DNS rebinding), but not make the browser send one of ours."""
    assert browser.get("/api/ready", headers={"Host": host}).status_code == (200 if welcome else 400)


def test_a_worker_speaks_for_its_attempt_and_nothing_else(browser: httpx.Client) -> None:
    token = {"Authorization": f"Bearer {KEYS.worker_token('rabc', 2)}"}
    for verb in ("records", "heartbeat", "outcome"):
        assert browser.post(f"/api/v1/runs/rabc/{verb}", headers=token).text == "inside POST"
        assert browser.post(f"/api/v1/runs/rxyz/{verb}", headers=token).status_code == 401
        assert browser.post(f"/api/v1/runs/rabc/{verb}", headers=TOKEN).status_code == 401
    for path in ("/", "/api/v1/runs", "/api/v1/runs/rabc", "/api/v1/runs/rabc/records/more"):
        assert browser.get(path, headers=token).status_code == 401
    number, _, signature = KEYS.worker_token("rabc", 2).partition(".")
    assert KEYS.worker_attempt("rabc", f"3.{signature}") is None
    assert KEYS.worker_attempt("rabc", f"{number}.{signature}") == 2
    assert KEYS.worker_attempt("rabc", "x") is None


def test_labs_beside_each_other_do_not_overwrite_their_cookies() -> None:
    other = Keys("another token of sixteen characters")
    assert other.cookie_name != KEYS.cookie_name
    assert not other.is_cookie(KEYS.cookie())
    assert KEYS.is_cookie(KEYS.cookie())


@pytest.mark.parametrize("neighbour", ["a/b=1", "{x}=1", '{"json": "value, too"}', "x", 'half="open', "é=ü"])
def test_other_programs_of_this_host_may_set_what_cookies_they_like(
    browser: httpx.Client, neighbour: str
) -> None:
    cookie = f"{KEYS.cookie_name}={KEYS.cookie()}"
    for jar in (f"{neighbour}; {cookie}", f"{cookie}; {neighbour}"):
        assert browser.get("/", headers={"Cookie": jar.encode()}).text == "inside GET"
    assert browser.get("/", headers={"Cookie": neighbour.encode()}).status_code == 401


def test_a_number_of_thousands_of_digits_is_no_key(browser: httpx.Client) -> None:
    digits = "9" * 6000
    assert browser.get("/", headers={"Cookie": f"{KEYS.cookie_name}={digits}.x"}).status_code == 401
    worker = {"Authorization": f"Bearer {digits}.x"}
    assert browser.post("/api/v1/runs/rabc/outcome", headers=worker).status_code == 401


@pytest.mark.parametrize("run", ["rabc", "R-abc"])
def test_only_workers_report(browser: httpx.Client, run: str) -> None:
    log_in(browser)
    for verb in ("records", "heartbeat", "outcome"):
        assert browser.post(f"/api/v1/runs/{run}/{verb}").status_code == 401
        assert browser.post(f"/api/v1/runs/{run}/{verb}", headers=TOKEN).status_code == 401


def test_a_cookie_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    cookie, code = KEYS.cookie(), KEYS.link_code()
    monkeypatch.setattr("jobs.keys.time.time", lambda: 4e9)
    monkeypatch.setattr("jobs.keys.time.monotonic", lambda: 1e12)
    assert not KEYS.is_cookie(cookie)
    assert not KEYS.use_link_code(code)


def test_the_token_is_kept_where_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    token = Keys.load(path).token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Keys.load(path).token == token
    path.chmod(0o644)
    Keys.load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_container_may_name_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMLAB_TOKEN", "long enough to be a token")
    assert Keys.load(tmp_path / "secret").token == "long enough to be a token"
    assert not (tmp_path / "secret").exists()
    monkeypatch.setenv("SYMLAB_TOKEN", "short")
    with pytest.raises(LabUnusableError, match="at least 16"):
        Keys.load(tmp_path / "secret")


def test_refusals_of_the_api_are_json(browser: httpx.Client) -> None:
    assert json.loads(browser.get("/api/v1/anything").text).keys() == {"error"}


def test_who_leaves_in_the_middle_of_a_request_leaves_no_error_behind(browser: httpx.Client) -> None:
    """A worker that is killed while it sends its records."""
    head = f"POST /read HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {TOKEN['Authorization']}\r\nContent-Length: 9\r\n\r\n"
    with unittest.TestCase().assertNoLogs(level="WARNING"):
        with socket.create_connection((browser.base_url.host, browser.base_url.port)) as leaving:
            leaving.sendall(f"{head}half".encode())
            time.sleep(0.2)  # let the server wait for the rest
        assert browser.post("/read", content=b"whole", headers=TOKEN).text == "5 bytes"
