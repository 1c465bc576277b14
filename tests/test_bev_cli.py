"""What `gim-sfm bev` refuses, and how: before the work, naming file and remedy, leaving nothing stale."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cloud_kit import carried, move, yard
from test_cli import run
from test_registration import street

import gim_sfm
from gim_sfm import matchers
from gim_sfm.bev import registering
from gim_sfm.bev.checks import check_positive
from gim_sfm.bev.cloud_formats import load_cloud, write_cloud
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.bev.preparation import Prepared, prepare
from gim_sfm.bev.registration import Registration
from gim_sfm.bev.view_matching import ViewMatcher, match_views
from gim_sfm.errors import InputError, OutputError, RegistrationError, SettingsError
from gim_sfm.matchers.positions import telling_positions

STALE = ("matches.png", "overlay_before.png", "overlay_after.png", "view.html", "registration.json")


@pytest.fixture(autouse=True)
def _no_handlers_left() -> Iterator[None]:
    """The command line logs to the stderr of its moment, which is gone when the test is over."""
    yield
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


@pytest.fixture
def clouds(tmp_path: Path) -> tuple[Path, Path]:
    """Of two streets."""
    paths = tmp_path / "one.ply", tmp_path / "other.ply"
    for place, path in enumerate(paths):
        write_cloud(path, street(20 + place, 0, points=20_000))
    return paths


def prepare_alone(path: Path) -> Prepared:
    cloud = load_cloud(path)
    return prepare(cloud, cloud)[0]


@pytest.fixture
def wall(tmp_path: Path) -> Path:
    """A cloud without ground."""
    random = np.random.default_rng(0)
    coordinates = np.column_stack([random.uniform(-20, 20, 9000), random.normal(0, 1, 9000), np.zeros(9000)])
    coordinates[:, 2] = random.uniform(-20, 20, 9000) + 3 * coordinates[:, 0]
    write_cloud(tmp_path / "wall.ply", PointCloud.of(coordinates))
    return tmp_path / "wall.ply"


@pytest.mark.parametrize(
    "asked",
    [
        ("register", "--turns", "-1"),
        ("register", "--turns", "0"),
        ("register", "--cell", "nan"),
        ("align", "--turns", "0"),
        ("project", "--cell", "-1"),
        ("project", "--cell", "0"),
        ("project", "--cell", "inf"),
        ("project", "--map-length", "0"),
        ("loops", "--turns", "0"),
        ("loops", "--gap", "-1"),
        ("loops", "--map-length", "nan"),
    ],
    ids=" ".join,
)
def test_flags_out_of_range_are_refused(monkeypatch, capsys, tmp_path: Path, asked) -> None:
    verb, flag, value = asked
    given = [tmp_path / "a.ply"] if verb == "loops" else [tmp_path / "a.ply", tmp_path / "b"]
    code, _, told = run(monkeypatch, capsys, "bev", verb, *given, f"{flag}={value}")
    assert code != 0
    assert flag in told
    assert "Must be" in told


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_settings_out_of_range_are_refused_in_python(clouds, tmp_path: Path, value: float) -> None:
    out = tmp_path / "out"
    with pytest.raises(SettingsError, match="cell"):
        gim_sfm.project_cloud(clouds[0], out, cell=value)
    for setting in ({"cell": value}, {"turns": value}):
        with pytest.raises(SettingsError, match=next(iter(setting))):
            gim_sfm.register_clouds(*clouds, output=out, **setting)
    assert not out.exists()
    check_positive(cell=None, turns=1)


def test_a_channel_that_a_cloud_lacks_is_named(clouds, tmp_path: Path) -> None:
    bright = tmp_path / "bright.ply"
    write_cloud(bright, yard(np.random.default_rng(1)))
    told = r"one\.ply: The cloud has no intensity; its channels are density, max_height, height_range"
    for pair in ((bright, clouds[0]), (clouds[0], bright)):
        for scale in ("known", "unknown"):
            with pytest.raises(InputError, match=told):
                gim_sfm.register_clouds(*pair, output=tmp_path / "out", channels=("intensity",), scale=scale)
    dull, bright_view = (prepare_alone(path).view for path in (clouds[0], bright))
    matcher = ViewMatcher(telling_positions(matchers.load("root-sift")), ("intensity",))
    with pytest.raises(InputError, match="no intensity"):
        match_views(matcher, bright_view, dull)


def test_an_output_that_cannot_be_written_is_refused_first(clouds, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match="file"):
            gim_sfm.register_clouds(tmp_path / "none.ply", clouds[1], output=out)
        with pytest.raises(OutputError, match="file"):
            gim_sfm.project_cloud(tmp_path / "none.ply", out)
        with pytest.raises(OutputError, match="file"):
            gim_sfm.align_model(tmp_path / "none", clouds[1], output=out)


def test_after_a_refusal_nothing_of_a_former_run_is_left(clouds, tmp_path: Path) -> None:
    for name in (*STALE, "notes.txt"):
        (tmp_path / name).write_text("of before")
    with pytest.raises(RegistrationError, match="do not agree") as refused:
        gim_sfm.register_clouds(*clouds, output=tmp_path)
    assert "--scale unknown" in refused.value.remedy
    assert not any((tmp_path / name).exists() for name in STALE[:-1])
    assert "refused" in json.loads((tmp_path / "registration.json").read_text())
    assert (tmp_path / "notes.txt").exists()


def test_a_former_view_goes_and_pictures_of_others_stay(clouds, wall: Path, tmp_path: Path) -> None:
    view, mine = tmp_path / "view", tmp_path / "mine"
    gim_sfm.project_cloud(clouds[0], view)
    mine.mkdir()
    (mine / "intensity.png").write_text("mine")
    for folder in (view, mine):
        with pytest.raises(InputError):
            gim_sfm.project_cloud(wall, folder)
    assert list(view.iterdir()) == []
    assert (mine / "intensity.png").read_text() == "mine"


def test_the_cloud_without_ground_is_named(clouds, wall: Path, tmp_path: Path) -> None:
    for pair in ((clouds[0], wall), (wall, clouds[0])):
        with pytest.raises(InputError, match=r"wall\.ply: No ground") as refused:
            gim_sfm.register_clouds(*pair, output=tmp_path / "out")
        assert "z axis" in refused.value.remedy
    with pytest.raises(InputError, match=r"wall\.ply: No ground"):
        gim_sfm.project_cloud(wall, tmp_path / "out")


def test_pictures_leave_out_both_ceilings_and_the_page_tells_no_unit(monkeypatch, tmp_path: Path) -> None:
    """The ceilings are the only points outside; neither is drawn where the places are right."""
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    overlay = registering.draw_overlay

    def watch(source, target, cell):
        drawn.append((source, target))
        return overlay(source, target, cell)

    monkeypatch.setattr(registering, "draw_overlay", watch)
    moved, random = move(yaw=30, tilt=4, shift=(500, -200, 3)), np.random.default_rng(3)
    target = yard(random, roof=9.0)
    one, other = prepare(carried(target, moved), target.moved(move(shift=(4e5, 5e6, 0))))
    truth = move(shift=(4e5, 5e6, 0)) @ np.linalg.inv(moved)
    places = np.empty((0, 2))
    found = Registration(truth, 1.0, 1.0, 0.1, 0, 0, 1.0, places, places)
    registering.draw_registration(found, one, other, tmp_path, "Halls")
    source, seen = drawn[1]
    assert np.isfinite(one.ground.ceiling)
    assert max(source[:, 2].max(), seen[:, 2].max()) < 8.9
    np.testing.assert_allclose(np.median(source, axis=0), np.median(seen, axis=0), atol=0.5)
    page = (tmp_path / "view.html").read_text()
    assert '"unit": ""' in page
    assert "<b>0.1</b>" in page
