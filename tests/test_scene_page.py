"""The page that shows clouds in three dimensions: what it is given comes back out of it, and it draws."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cloud_kit import move
from PIL import Image

from gim_sfm.bev.scene_page import MOST_IN_ALL, Fact, LineLayer, PointLayer, write_scene

BLUE, ORANGE = (0, 114, 178), (230, 159, 0)


def points(count: int = 500, *, far: float = 0.0) -> np.ndarray:
    return np.random.default_rng(0).normal(far, (20, 10, 2), (count, 3)).astype(np.float32)


def content(page: Path) -> Any:
    found = re.search(
        r'<script type="application/json" id="scene">(.*?)</script>', page.read_text(), re.DOTALL
    )
    assert found is not None
    return json.loads(found[1])


def unpacked(layer: Any) -> np.ndarray:
    steps = np.frombuffer(base64.b64decode(layer["places"]), "<u2").reshape(-1, 4)[:, :3]
    return steps * layer["step"] + layer["low"]


def test_points_lines_colours_and_states_come_back(tmp_path: Path) -> None:
    cloud, path = points(), np.arange(18, dtype=np.float64).reshape(3, 2, 3)
    colours = np.random.default_rng(1).integers(0, 256, (500, 3)).astype(np.uint8)
    moved = move(yaw=40, shift=(412_345.25, 5_678_901.5, 3))
    layers = [PointLayer("map", cloud, BLUE, colours), LineLayer("path", path, ORANGE)]
    write_scene(tmp_path / "view.html", layers, title="Two", states={"after": {"map": moved}, "before": {}})
    scene = content(tmp_path / "view.html")
    shown, line = scene["layers"]
    assert np.abs(unpacked(shown) - cloud).max() <= 0.51 * shown["step"]
    assert shown["step"] < 1e-4 * np.ptp(cloud, axis=0).max()
    np.testing.assert_allclose(unpacked(line), path.reshape(-1, 3), atol=line["step"])
    assert (shown["lines"], line["lines"], shown["colour"]) == (False, True, list(BLUE))
    paint = np.frombuffer(base64.b64decode(shown["paint"]), np.uint8).reshape(-1, 4)
    np.testing.assert_array_equal(paint[:, :3], colours)
    assert list(scene["states"]) == ["after", "before"]
    np.testing.assert_array_equal(scene["states"]["after"]["map"], moved)


def test_the_fitted_box_leaves_out_points_astray_and_heights_are_of_the_world(tmp_path: Path) -> None:
    cloud = np.concatenate([points(), [[9000, 0, 0]]]).astype(np.float32)
    lifted = {"now": {"map": move(shift=(0, 0, 100))}}
    write_scene(tmp_path / "view.html", [PointLayer("map", cloud, BLUE)], title="", states=lifted)
    scene = content(tmp_path / "view.html")
    assert np.abs(scene["layers"][0]["box"]).max() < 100
    assert 90 < scene["heights"][0] < 100 < scene["heights"][1] < 110


def test_large_clouds_are_thinned_evenly_to_a_page_of_six_megabytes(tmp_path: Path) -> None:
    page = tmp_path / "view.html"
    large, small = points(500_000), points(1000)
    layers = [PointLayer("large", large, BLUE), PointLayer("small", small, ORANGE)]
    write_scene(page, layers, title="Large")
    first, second = content(page)["layers"]
    assert (first["count"], second["count"]) == (MOST_IN_ALL // 2, 1000)
    np.testing.assert_allclose(unpacked(first).mean(axis=0), large.mean(axis=0), atol=0.2)
    assert page.stat().st_size < 6e6


def test_names_cannot_break_the_page_and_nothing_is_fetched(tmp_path: Path) -> None:
    page, name = tmp_path / "view.html", "</script><img src=x onerror=alert(1)>"
    write_scene(page, [PointLayer(name, points(), BLUE)], title=name, facts=[Fact(name, name)])
    text = page.read_text()
    assert "<img" not in text
    assert content(page)["layers"][0]["name"] == name
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|\bsrc=|\bhref=|@import|url\(", text.replace("src=x", ""))


def test_empty_layers_are_shown_as_such(tmp_path: Path) -> None:
    nothing = [PointLayer("a", np.zeros((0, 3)), BLUE), LineLayer("b", np.zeros((0, 2, 3)), ORANGE)]
    write_scene(tmp_path / "view.html", nothing, title="Nothing")
    assert [layer["count"] for layer in content(tmp_path / "view.html")["layers"]] == [0, 0]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser to open the page in")
def test_a_browser_draws_it_and_keys_work(tmp_path: Path) -> None:
    page, picture = tmp_path / "view.html", tmp_path / "view.png"
    layers = [PointLayer("source", points(20_000), BLUE), PointLayer("target", points(50) + 60, ORANGE)]
    write_scene(page, layers, title="Drawn", states={"after": {"source": move(yaw=30)}, "before": {}})
    press = """<script>setTimeout(() => {
      for (const key of ['b', '2', 'g']) window.dispatchEvent(new KeyboardEvent('keydown', { key }));
      const told = each => each.textContent + each.getAttribute('aria-pressed');
      console.log('pressed ' + [...document.querySelectorAll('button[aria-pressed]')].map(told).join(' '));
      console.log('trouble ' + document.getElementById('orbit').getContext('webgl').getError());
    }, 500);</script>"""
    page.write_text(page.read_text() + press)
    flags = ["--headless=new", "--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader"]
    flags += [
        "--virtual-time-budget=2000",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    opened = ["chromium", *flags, f"--screenshot={picture}", page.as_uri()]
    told = subprocess.run(opened, capture_output=True, text=True, timeout=90, check=True).stderr
    assert (
        "pressed source1true target2false afterBfalse beforetrue By cloudCtrue By heightfalse GridGfalse"
        in told
    )
    assert "trouble 0" in told
    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3).astype(int)
    blue, orange = ((np.abs(pixels - colour).max(axis=1) < 40).sum() for colour in (BLUE, ORANGE))
    assert blue > 2000
    assert orange < 200
