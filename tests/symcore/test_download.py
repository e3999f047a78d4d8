"""What broke off goes on, what is wrong does not stay, what is stopped keeps its bytes, and two never write one file."""

import hashlib
import http.server
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from symcore.checkpoints import StoppedError
from symcore.data import download
from symcore.data.published import DataUnavailableError, Published

CONTENT = np.random.default_rng(0).bytes(3_000_000)
CUT = 30 * download.CHUNK
"""About two of the three million bytes; of a chunk that breaks off nothing is kept."""
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Has one file, `CONTENT`, under every name; each request takes the next of its faults, if there are any left.

    A fault is after how many bytes the connection ends, or a status in place of the file.
    """

    ranges = True
    """Whether it heeds the header of that name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[int] = []
        self.asked: list[str] = []
        """The Range header of each request, empty where there was none."""
        self.open = threading.Event()
        """Answers wait until it is set."""
        self.open.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.asked.append(asked)
        self.server.open.wait(10)
        fault = self.server.faults.pop(0) if self.server.faults else len(CONTENT)
        if 400 <= fault < 600:
            self.send_error(fault)
            return
        first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0
        if first >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        self.wfile.write(CONTENT[first : first + fault])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.01)
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class Told:
    """What is told of bytes; ends the download when so many are here."""

    def __init__(self, stop_at: float = float("inf")) -> None:
        self.heard: list[tuple[str, int, int]] = []
        self.stop_at = stop_at

    def __call__(self, file: str, here: int, total: int) -> None:
        self.heard.append((file, here, total))
        if here >= self.stop_at:
            raise StoppedError


def fetched(server: Server, folder: Path, md5: str = MD5, told: Told | None = None) -> bytes:
    return download.fetch(server.url + "a.gz", folder, md5, told or Told()).read_bytes()


def starts(server: Server) -> list[int]:
    """From which byte each request wanted the file."""
    return [int(asked[len("bytes=") : -1]) if asked else 0 for asked in server.asked]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_connection_that_breaks_is_gone_on_with(server, tmp_path):
    server.faults, told = [CUT + 1, 503, 8 * download.CHUNK], Told()
    assert fetched(server, tmp_path, told=told) == CONTENT
    assert starts(server) == [0, CUT, CUT, CUT + 8 * download.CHUNK]
    assert names(tmp_path) == ["a.gz"]
    assert [here for _, here, _ in told.heard] == sorted(here for _, here, _ in told.heard)
    assert {(file, total) for file, _, total in told.heard} == {("a.gz", len(CONTENT))}
    assert told.heard[-1][1] == len(CONTENT)
    assert len(told.heard) > len(CONTENT) / download.CHUNK


def test_a_server_that_breaks_again_and_again_is_borne_while_bytes_come(server, tmp_path):
    server.faults = [200_000] * (2 * download.TRIES)
    assert fetched(server, tmp_path) == CONTENT


def test_a_server_that_knows_no_ranges_sends_the_whole_file_again(server, tmp_path):
    server.faults, server.ranges = [CUT], False
    assert fetched(server, tmp_path) == CONTENT
    assert starts(server) == [0, CUT]


def test_what_came_before_giving_up_is_where_the_next_download_begins(server, tmp_path):
    server.faults = [CUT] + [0] * (download.TRIES - 1)
    with pytest.raises(download.DownloadError, match=r"no connection: \w+"):
        fetched(server, tmp_path)
    assert (tmp_path / "a.gz.part").read_bytes() == CONTENT[:CUT]
    assert names(tmp_path) == ["a.gz.part"]
    server.asked.clear()
    assert fetched(server, tmp_path) == CONTENT
    assert starts(server) == [CUT]


def test_a_cancel_between_chunks_keeps_what_came(server, tmp_path):
    told = Told(stop_at=1_000_000)
    with pytest.raises(StoppedError):
        fetched(server, tmp_path, told=told)
    here = told.heard[-1][1]
    assert 1_000_000 <= here < 1_000_000 + download.CHUNK
    assert (tmp_path / "a.gz.part").read_bytes() == CONTENT[:here]
    assert names(tmp_path) == ["a.gz.part"]
    assert fetched(server, tmp_path) == CONTENT
    assert starts(server) == [0, here]


def test_a_cancel_is_obeyed_between_tries(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 60)
    server.faults = [503]
    with pytest.raises(StoppedError):
        fetched(server, tmp_path, told=Told(stop_at=0))


def test_a_file_with_the_wrong_checksum_goes_and_is_said_to(server, tmp_path):
    with pytest.raises(download.DownloadError, match=r"its MD5 should be 0{32}\), and was removed"):
        fetched(server, tmp_path, md5="0" * 32)
    assert names(tmp_path) == []
    assert len(server.asked) == 1


def test_what_a_server_has_not_is_asked_for_once(server, tmp_path):
    server.faults = [404]
    with pytest.raises(download.DownloadError, match="404"):
        fetched(server, tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize("more", [b"", b"more"], ids=["whole", "of another file"])
def test_a_part_as_long_as_the_file_is_the_file_and_a_longer_one_is_not(more, server, tmp_path):
    (tmp_path / "a.gz.part").write_bytes(CONTENT + more)
    assert fetched(server, tmp_path) == CONTENT
    assert starts(server) == [len(CONTENT + more), 0][: 2 if more else 1]


def test_of_two_at_once_one_downloads_and_both_read(server, tmp_path):
    """Locks are between open files, so that threads stand for processes here."""
    server.open.clear()
    published, told = Published("set", {"a": MD5}, server.url), [Told(), Told()]
    found: list[list[bytes]] = []
    both = [
        threading.Thread(
            target=lambda on: found.append(list(published.contents("noise", tmp_path, on))), args=[on]
        )
        for on in told
    ]
    for one in both:
        one.start()
    while ("noise", 0, 0) not in told[0].heard + told[1].heard:  # until one of them waits for the other
        assert all(one.is_alive() for one in both)
        time.sleep(0.01)
    server.open.set()
    for one in both:
        one.join()
    assert found == [[CONTENT], [CONTENT]]
    assert len(server.asked) == 1
    assert names(tmp_path / "set") == ["a"]


def test_who_waits_for_another_can_be_cancelled(tmp_path):
    published = Published("set", {"a": MD5}, "http://127.0.0.1:9/")
    with download.alone(tmp_path / "set", lambda: None), pytest.raises(StoppedError):
        list(published.contents("noise", tmp_path, Told(stop_at=0)))


def test_an_archive_without_a_checksum_that_is_harmed_is_named(server, tmp_path):
    published = Published("set", {"a": ""}, server.url + "set.zip")
    with pytest.raises(DataUnavailableError, match=r"set\.zip is harmed; remove it"):
        list(published.contents("noise", tmp_path))
