"""Fetching from a server on this machine that misbehaves in every way we have met."""

import hashlib
import io
import os
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rsepm_edu.data import download
from rsepm_edu.data.download import Archive, fetch, unpacked
from rsepm_edu.errors import UserError

CONTENT = bytes(range(256)) * 12_000  # three chunks


class _Server(ThreadingHTTPServer):
    """Serves CONTENT at paths that say how."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str | None]] = []
        self.closing = threading.Event()

    def url(self, how: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{how}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        how, ranged = self.path[1:], self.headers.get("Range")
        self.server.asked.append((how, ranged))
        start = int(ranged.removeprefix("bytes=").rstrip("-")) if ranged and how != "no-ranges" else 0
        body = CONTENT[start:]
        if how == "missing":
            self.send_error(404)
        elif how == "page":
            self._answer(b"<html>maintenance</html>", kind="text/html")
        elif how == "wrong-bytes":
            self._answer(body[::-1], start)
        elif how == "wrong-part":
            self._answer(body, start, place="bytes 5-9/10" if start else None)
        elif how == "promises-less":
            self._answer(body[:-1], start)
        elif how == "gives-more":
            self._answer(body + b"and more", start, length=None)
        elif how == "cuts":  # a little over a chunk each time
            self._answer(body[: download.CHUNK + 1000], start, length=len(body))
        elif how == "stalls":
            self._answer(body[:1000], start, length=len(body))
            self.server.closing.wait()
        else:
            self._answer(body, start)

    def _answer(
        self,
        body: bytes,
        start: int = 0,
        *,
        kind: str = "application/x-tar",
        length: int | None = -1,
        place: str | None = None,
    ) -> None:
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length == -1 else length))
        if start:
            self.send_header("Content-Range", place or f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def running() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def server(running: _Server) -> _Server:
    running.asked.clear()
    return running


def archive(*urls: str) -> Archive:
    md5 = hashlib.md5(CONTENT).hexdigest()
    return Archive("set.tar", urls, size=len(CONTENT), md5=md5, unpacked=10, licence="ours")


def get(server: _Server, folder: Path, *hows: str, **options: Any) -> Path:
    return fetch(archive(*map(server.url, hows)), folder, timeout=0.3, progress=False, **options)


def test_gives_the_published_bytes_under_their_name_and_nothing_else(server: _Server, tmp_path: Path) -> None:
    path = get(server, tmp_path / "new" / "folder", "good")
    assert path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["set.tar"]


def test_a_file_that_is_there_is_checked_and_not_asked_for_again(server: _Server, tmp_path: Path) -> None:
    path = get(server, tmp_path, "good")
    assert get(server, tmp_path, "good") == path
    assert len(server.asked) == 1
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(UserError, match="set.tar: expected set.tar, got another content .md5 .*remove it"):
        get(server, tmp_path, "good")


@pytest.mark.parametrize("bad", ["missing", "page", "wrong-bytes", "promises-less", "gives-more", "stalls"])
def test_a_bad_address_hands_over_to_the_next(server: _Server, tmp_path: Path, bad: str) -> None:
    assert get(server, tmp_path, bad, "good", attempts=1).read_bytes() == CONTENT
    assert [how for how, _ in server.asked] == [bad, "good"]


def test_a_cut_transfer_goes_on_where_it_broke(server: _Server, tmp_path: Path) -> None:
    assert get(server, tmp_path, "cuts", attempts=1).read_bytes() == CONTENT
    gained = download.CHUNK + 1000
    assert server.asked == [("cuts", None), ("cuts", f"bytes={gained}-"), ("cuts", f"bytes={2 * gained}-")]


def test_a_part_from_an_earlier_run_is_used(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "set.tar.part").write_bytes(CONTENT[:1234])
    assert get(server, tmp_path, "good").read_bytes() == CONTENT
    assert server.asked == [("good", "bytes=1234-")]


@pytest.mark.parametrize("how", ["no-ranges", "wrong-part"])
def test_a_server_that_cannot_resume_spoils_nothing(server: _Server, tmp_path: Path, how: str) -> None:
    (tmp_path / "set.tar.part").write_bytes(CONTENT[:1234])
    assert get(server, tmp_path, how, "good").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"x" * 1234, CONTENT + b"more"])
def test_a_wrong_part_is_thrown_away_once_it_is_known(server: _Server, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "set.tar.part").write_bytes(part)
    assert get(server, tmp_path, "good", "good").read_bytes() == CONTENT


def test_when_no_address_serves_all_reasons_are_told_and_what_came_is_kept(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        get(server, tmp_path, "missing", "page", "stalls", "promises-less", attempts=2)
    text = str(raised.value)
    for part in ("HTTP 404", "a web page", "timed out", f"a file of {len(CONTENT) - 1} bytes", "--from"):
        assert part in text
    assert "\n" not in text
    assert (tmp_path / "set.tar.part").read_bytes() == CONTENT[:2000]  # two tries, a thousand bytes each
    assert not (tmp_path / "set.tar").exists()


def test_nobody_listening_is_one_line_too(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected set.tar from one of 1 addresses, got .*refused"):
        fetch(archive("http://127.0.0.1:1/x"), tmp_path, timeout=0.3, progress=False)


def test_a_given_file_is_checked_and_used_where_it_lies(server: _Server, tmp_path: Path) -> None:
    mine = tmp_path / "mine.tar"
    with pytest.raises(UserError, match="mine.tar: expected set.tar, got no such file"):
        get(server, tmp_path, "good", given=mine)
    mine.write_bytes(CONTENT[:5])
    with pytest.raises(UserError, match=f"mine.tar: expected set.tar, got 5 bytes where it has {len(CONTENT)}"):
        get(server, tmp_path, "good", given=mine)
    mine.write_bytes(CONTENT)
    assert get(server, tmp_path, "good", given=mine) == mine
    assert server.asked == []


def test_a_disk_that_is_too_small_is_known_before(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=download.SPARE + len(CONTENT) + 9)  # one byte too few
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="expected 0.2 GB free for set.tar, unpacked too, got 0.2 GB"):
        get(server, tmp_path, "good")
    assert server.asked == []
    (tmp_path / "set.tar.part").write_bytes(CONTENT[:1])
    assert get(server, tmp_path, "good").read_bytes() == CONTENT


def test_a_full_disk_is_not_blamed_on_the_address(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match="set.tar.part: expected a file that can be written, got: No space left"):
        get(server, tmp_path, "good", "good")
    assert len(server.asked) == 1


def _tar(path: Path, name: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    return path


def _zip(path: Path, name: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "hello")
    return path


@pytest.mark.parametrize("make", [_tar, _zip])
def test_unpacks_beside_and_leaves_nothing_behind(tmp_path: Path, make: Any) -> None:
    path = make(tmp_path / "archive", "set/a.txt")
    with unpacked(path, tmp_path / "data" / "set") as folder:
        assert folder.parent == tmp_path / "data"
        os.replace(folder / "set", tmp_path / "data" / "set")
    assert os.listdir(tmp_path / "data") == ["set"]
    assert (tmp_path / "data" / "set" / "a.txt").read_text() == "hello"


def test_refuses_members_outside_and_broken_archives(tmp_path: Path) -> None:
    outside = _tar(tmp_path / "outside.tgz", "../evil.txt")
    with pytest.raises(UserError, match="outside.tgz: expected a tar or zip"), unpacked(outside, tmp_path / "set"):
        pass
    assert not list(tmp_path.rglob("evil.txt"))
    broken = tmp_path / "broken.tgz"
    broken.write_bytes(_tar(tmp_path / "whole.tgz", "a").read_bytes()[:40])
    with pytest.raises(UserError, match="broken.tgz: expected a tar or zip"), unpacked(broken, tmp_path / "set"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["broken.tgz", "outside.tgz", "whole.tgz"]
