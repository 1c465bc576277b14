"""Files from the net: resumed where they stopped, checked, and put in place only when whole."""

import hashlib
import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from gim_sfm.errors import DownloadError, OutputError
from gim_sfm.progress import Advance

log = logging.getLogger(__name__)

CHUNK = 1 << 18
PARTIAL_SUFFIX = ".part"

Check = Callable[[Path], str]
"""Says what is wrong with a file, in words that go on a sentence about it; nothing where it is right."""

_PAGE = ("text/html", "application/xhtml+xml")
_PAGE_BEGINS = (b"<!doctype html", b"<html")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in lower-case hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def git_blob_sha1(path: Path) -> str:
    """The name git gives to a file's content: SHA-1 over a header that tells the length, and the bytes."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fault(path: Path, *, size: int | None = None, sha256: str = "", blob_sha1: str = "") -> str:
    """What is wrong with a file, in words; empty where it is what was asked for.

    Args:
        path: An existing file.
        size: Its length in bytes, where known.
        sha256: Its SHA-256, where known.
        blob_sha1: Its git blob SHA-1, where known.
    """
    found_size = path.stat().st_size
    if size is not None and found_size != size:
        return f"is {found_size} bytes long, not {size}"
    if sha256 and (found := file_sha256(path)) != sha256:
        return f"has SHA-256 {found}, not {sha256}"
    if blob_sha1 and (found := git_blob_sha1(path)) != blob_sha1:
        return f"has git blob SHA-1 {found}, not {blob_sha1}"
    return ""


def download(
    url: str,
    target: Path,
    *,
    sha256: str = "",
    blob_sha1: str = "",
    check: Check | None = None,
    size: int | None = None,
    timeout: float = 30.0,
    advance: Advance = lambda _count: None,
) -> Path:
    """Fetches one file, unless it lies there already and is right.

    The bytes gather in `TARGET.part`, which a later call goes on with; the target itself appears, in one
    step, only when its checksum is right, or the check finds nothing wrong. A web page that comes instead of
    the file, as from a log-in or Google Drive's warnings, is refused.

    Args:
        url: An http or https address.
        target: Where the file shall lie; folders are made.
        sha256: Its SHA-256. This, `blob_sha1` or `check` must be given: nothing unchecked is put in place.
        blob_sha1: Its git blob SHA-1.
        check: Looks at the file's content, where no checksum is known.
        size: Its length in bytes, where known.
        timeout: Seconds without an answer after which to give up.
        advance: Told the bytes received, for a progress bar.

    Returns:
        The target.

    Raises:
        DownloadError: The address does not answer, or what it serves is another file.
        OutputError: The target cannot be written.
    """
    if not (sha256 or blob_sha1 or check):
        raise ValueError("a download needs a checksum or a check")

    def wrong_with(path: Path) -> str:
        told = fault(path, size=size, sha256=sha256, blob_sha1=blob_sha1)
        return told or (check(path) if check else "")

    if target.is_file() and not wrong_with(target):
        return target
    partial = target.with_name(target.name + PARTIAL_SUFFIX)
    resumed = _receive(url, partial, timeout, advance)
    wrong = wrong_with(partial)
    if wrong and resumed:  # the older half may come from another version of the file
        partial.unlink()
        _receive(url, partial, timeout, advance)
        wrong = wrong_with(partial)
    if wrong:
        page = _is_page(partial)
        partial.unlink()
        raise _page_came(url, target) if page else _other_came(url, target, wrong)
    partial.replace(target)
    return target


def _is_page(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE_BEGINS)


def _page_came(url: str, target: Path) -> DownloadError:
    return DownloadError(
        f"{url} answers with a web page instead of the file.",
        remedy=f"It may ask for a log-in or consent, or its quota for today is spent: open it in a browser "
        f"and put the file at {target}, or try again tomorrow.",
    )


def _other_came(url: str, target: Path, wrong: str) -> DownloadError:
    return DownloadError(
        f"What {url} serves {wrong}.",
        remedy=f"Something between altered it: try another network, or put the file at {target}.",
    )


def _receive(url: str, partial: Path, timeout: float, advance: Advance) -> bool:
    """Appends what is missing to the partial file; true where it went on with an older part.

    A connection that breaks off after it brought something is opened again.
    """
    have = partial.stat().st_size if partial.exists() else 0
    try:
        return _receive_once(url, partial, timeout, advance)
    except DownloadError:
        if not partial.exists() or partial.stat().st_size <= have:
            raise
        log.info("%s broke off; going on.", url)
        _receive(url, partial, timeout, advance)
        return bool(have)


def _receive_once(url: str, partial: Path, timeout: float, advance: Advance) -> bool:
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        have = partial.stat().st_size if partial.exists() else 0
        response = _open(url, have, timeout)
        if response is None:
            return True
        with response:
            if response.headers.get_content_type() in _PAGE:
                raise _page_came(url, partial.with_suffix(""))
            resumed = response.status == http.client.PARTIAL_CONTENT
            with partial.open("ab" if resumed else "wb") as stream:
                _copy(response, stream, advance)
        _check_complete(response)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DownloadError(
            f"{url} could not be fetched: {error}.",
            remedy="Check the network (and the https_proxy setting) and run it again: it goes on where it "
            f"stopped. Or fetch it by other means and put it at {partial.with_suffix('')}.",
        ) from error
    except OSError as error:
        raise OutputError(
            f"{partial} cannot be written: {error.strerror or error}.",
            remedy="Free space on that disk, or choose a folder that can be written.",
        ) from error
    return resumed


def _open(url: str, have: int, timeout: float) -> http.client.HTTPResponse | None:
    """The response, or None where the server has nothing past the bytes already here."""
    request = urllib.request.Request(url, headers={"User-Agent": "gim_sfm"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                return None
            raise
    assert isinstance(response, http.client.HTTPResponse)
    return response


def _copy(response: http.client.HTTPResponse, stream: BinaryIO, advance: Advance) -> None:
    while chunk := response.read(CHUNK):
        stream.write(chunk)
        advance(len(chunk))


def _check_complete(response: http.client.HTTPResponse) -> None:
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
