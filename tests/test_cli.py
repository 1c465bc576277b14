"""The command line as a person uses it: happy paths, exit codes, messages without a traceback."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cloud_kit import yard

from gim_sfm import cli
from gim_sfm.bev.cloud_formats import write_cloud
from gim_sfm.matchers import MATCHERS

FAST = ["--matcher", "xfeat-lighterglue", "--image-size", "640", "--max-keypoints", "512"]


@pytest.fixture(autouse=True)
def _no_handlers_left() -> Iterator[None]:
    """The command line logs to the stderr of its moment, which is gone when the test is over."""
    yield
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["gim-sfm", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as left:
        code = int(left.code or 0)
    told = capsys.readouterr()
    return code, told.out, told.err


def test_matchers_lists_all_with_kind_licence_and_weights(monkeypatch, capsys) -> None:
    code, out, _ = run(monkeypatch, capsys, "matchers")
    assert code == 0
    assert all(name in out for name in MATCHERS)
    assert "semi-dense" in out
    assert "licence" in out


def test_reconstruct_and_dry_run(monkeypatch, capsys, drawn_photos, tmp_path, xfeat_weights) -> None:
    out_folder = tmp_path / "out"
    code, out, _ = run(monkeypatch, capsys, "reconstruct", drawn_photos, out_folder, "--dry-run", *FAST)
    assert code == 0
    assert "28" in out
    assert not out_folder.exists()
    code, out, _ = run(monkeypatch, capsys, "reconstruct", drawn_photos, out_folder, *FAST)
    assert code == 0
    assert "8 of 8 photos registered" in out
    assert str(out_folder / "report.html") in out


def test_flags_win_over_the_recipe_and_the_recipe_over_defaults(
    monkeypatch, capsys, drawn_photos, tmp_path, xfeat_weights
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[matching]\nmatcher = "xfeat-lighterglue"\nimage_size = 320\nmax_keypoints = 400\n')
    flags = ["--recipe", recipe, "--max-keypoints", "512"]
    code, _, _ = run(monkeypatch, capsys, "reconstruct", drawn_photos, tmp_path / "out", *flags)
    written = (tmp_path / "out" / "recipe.toml").read_text()
    assert code in (0, 1)
    assert "max_keypoints = 512" in written
    assert "image_size = 320" in written


def test_demo_prints_the_error_against_the_truth(monkeypatch, capsys, tmp_path, xfeat_weights) -> None:
    code, out, _ = run(monkeypatch, capsys, "demo", tmp_path / "demo", *FAST)
    assert code == 0
    assert "Rotation error" in out
    assert "report.html" in out


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["recontsruct"], 2, "reconstruct"),
        (["reconstruct", "photos", "out", "--trys", "3"], 2, "--tries"),
        (["reconstruct", "photos", "out", "--tries", "0"], 2, "tries"),
        (["reconstruct", "photos", "out", "--matcher", "aliked"], 2, "aliked-lightglue"),
        (["reconstruct", "no such folder", "out"], 1, "no such folder"),
    ],
)
def test_errors_name_the_remedy_without_a_traceback(monkeypatch, capsys, arguments, code, told) -> None:
    left, _, err = run(monkeypatch, capsys, *arguments)
    assert left == code
    assert told in err
    assert "Traceback" not in err


def test_the_installed_command_answers() -> None:
    command = Path(sys.executable).with_name("gim-sfm")
    if not command.exists():
        pytest.skip("the package is not installed with its command")
    assert (
        "reconstruct"
        in subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    )


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -c 'from gim_sfm.cli import main; main()' matchers | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("aliked-lightglue  (sparse)\n", "")


def test_an_interrupted_command_says_that_it_goes_on(monkeypatch, capsys, tmp_path) -> None:
    def interrupted(*_arguments: object, **_settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gim_sfm.demo.run_demo", interrupted)
    code, _, told = run(monkeypatch, capsys, "demo", tmp_path)
    assert code == 130
    assert "goes on from here" in told


def test_a_cloud_is_projected(monkeypatch, capsys, tmp_path) -> None:
    write_cloud(tmp_path / "scan.npz", yard(np.random.default_rng(0), points=8000))
    code, out, _ = run(monkeypatch, capsys, "bev", "project", tmp_path / "scan.npz", tmp_path / "out")
    assert code == 0
    assert "cells of" in out
    code, _, told = run(monkeypatch, capsys, "bev", "project", tmp_path / "none.ply", tmp_path / "out")
    assert code == 1
    assert "none.ply" in told
