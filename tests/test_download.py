"""Downloads against a small server of our own."""

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from gim_sfm.download import download, fault, git_blob_sha1
from gim_sfm.errors import DownloadError, OutputError

CONTENT = np.random.default_rng(0).bytes(700_000)
PAGE = b"\n <!doctype HTML><html><body>Too many users have downloaded this file.</body></html>"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    requests: list[str | None]
    cut_at: int | None
    most: int
    ranges: bool
    kind: str
    told_length: bool
    stall_after: int | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append(asked)
        if self.path == "/moved":
            self.send_response(301)
            self.send_header("Location", self.server.url)
            self.end_headers()
            return
        if self.path == "/circle":
            self.send_response(302)
            self.send_header("Location", "/circle")
            self.end_headers()
            return
        if self.path == "/page":
            self.send_response(200)
            self.send_header("Content-Type", self.server.kind)
            self.end_headers()
            self.wfile.write(PAGE)
            return
        if self.path != "/file.bin":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if self.server.told_length:
            self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        if self.server.stall_after is not None:
            self.wfile.write(CONTENT[start : start + self.server.stall_after])
            self.wfile.flush()
            time.sleep(1)
            return
        self.wfile.write(CONTENT[start : self.server.cut_at][: self.server.most])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        made.requests, made.cut_at, made.most, made.ranges = [], None, len(CONTENT), True
        made.kind, made.told_length, made.stall_after = "text/html; charset=utf-8", True, None
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_whole_file_then_no_second_request(server: Server, tmp_path: Path) -> None:
    received: list[int] = []
    target = tmp_path / "new folder" / "file.bin"
    download(server.url, target, sha256=SHA256, size=len(CONTENT), advance=received.append)
    assert target.read_bytes() == CONTENT
    assert sum(received) == len(CONTENT)
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]
    download(server.url, target, sha256=SHA256)
    assert len(server.requests) == 1


def test_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    server.cut_at = 300_000
    with pytest.raises(DownloadError, match="could not be fetched"):
        download(server.url, target, sha256=SHA256)
    assert not target.exists()
    assert (tmp_path / "file.bin.part").stat().st_size == 300_000
    server.cut_at = None
    download(server.url, target, sha256=SHA256)
    assert server.requests[-1] == "bytes=300000-"
    assert target.read_bytes() == CONTENT


def test_broken_connections_are_opened_again(server: Server, tmp_path: Path) -> None:
    server.most = 300_000
    download(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert server.requests == [None, "bytes=300000-", "bytes=600000-"]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_stale_part_of_another_file(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.ranges = ranges
    (tmp_path / "file.bin.part").write_bytes(b"another" * 50)
    target = download(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert target.read_bytes() == CONTENT


def test_complete_part_needs_no_bytes(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    download(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_wrong_content_never_lands(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="SHA-256"):
        download(server.url, tmp_path / "file.bin", sha256="0" * 64)
    with pytest.raises(DownloadError, match="bytes long"):
        download(server.url, tmp_path / "file.bin", sha256=SHA256, size=5)
    assert list(tmp_path.iterdir()) == []


def test_damaged_target_is_replaced(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(b"damaged")
    assert "bytes long" in fault(target, size=len(CONTENT))
    download(server.url, target, sha256=SHA256)
    assert target.read_bytes() == CONTENT


def test_missing_address(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="404") as caught:
        download(server.url + ".other", tmp_path / "file.bin", sha256=SHA256)
    assert str(tmp_path / "file.bin") in caught.value.remedy


def test_target_folder_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        download(server.url, tmp_path / "taken" / "file.bin", sha256=SHA256)


def test_addresses_that_moved_are_followed(server: Server, tmp_path: Path) -> None:
    moved = server.url.replace("file.bin", "moved")
    assert download(moved, tmp_path / "file.bin", sha256=SHA256).read_bytes() == CONTENT
    with pytest.raises(DownloadError, match="circle"):
        download(server.url.replace("file.bin", "circle"), tmp_path / "other.bin", sha256=SHA256)


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_instead_of_the_file_is_told(server: Server, tmp_path: Path, kind: str) -> None:
    server.kind = kind
    with pytest.raises(DownloadError, match="a web page instead of the file") as caught:
        download(server.url.replace("file.bin", "page"), tmp_path / "file.bin", sha256=SHA256)
    assert str(tmp_path / "file.bin") in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_web_page_spoils_no_part(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    with pytest.raises(DownloadError, match="a web page"):
        download(server.url.replace("file.bin", "page"), tmp_path / "file.bin", sha256=SHA256)
    download(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert server.requests[-1] == "bytes=1000-"


def test_stalled_servers_are_given_up_and_gone_on_with(server: Server, tmp_path: Path) -> None:
    server.stall_after = 0
    begun = time.monotonic()
    with pytest.raises(DownloadError, match="timed out"):
        download(server.url, tmp_path / "file.bin", sha256=SHA256, timeout=0.2)
    assert time.monotonic() - begun < 5
    server.stall_after = None
    download(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_servers_that_tell_no_length(server: Server, tmp_path: Path) -> None:
    server.told_length = False
    received: list[int] = []
    download(server.url, tmp_path / "file.bin", sha256=SHA256, advance=received.append)
    assert sum(received) == len(CONTENT)
    server.cut_at = 1000  # nothing but the checksum can tell
    with pytest.raises(DownloadError, match="SHA-256"):
        download(server.url, tmp_path / "cut.bin", sha256=SHA256)
    assert not (tmp_path / "cut.bin").exists()


def test_a_check_of_ones_own_stands_for_a_checksum(server: Server, tmp_path: Path) -> None:
    def wrong_end(path: Path) -> str:
        return "" if path.read_bytes().endswith(CONTENT[-4:]) else "ends in the wrong way"

    target = tmp_path / "file.bin"
    target.write_bytes(b"another")
    download(server.url, target, check=wrong_end)
    assert target.read_bytes() == CONTENT
    download(server.url, target, check=wrong_end)
    assert len(server.requests) == 1
    with pytest.raises(DownloadError, match="is no weight file"):
        download(server.url, tmp_path / "other.bin", check=lambda path: "is no weight file")
    assert not (tmp_path / "other.bin.part").exists()


def test_unchecked_download_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checksum"):
        download("http://127.0.0.1/", tmp_path / "file.bin")


def test_git_blob_sha1(tmp_path: Path) -> None:
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert (
        git_blob_sha1(tmp_path / "hello") == "ce013625030ba8dba906f756967f9e9ca394464a"
    )  # git's own example
