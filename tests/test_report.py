"""The report tells the truth about every photo, and its page holds whatever names photos have."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from gim_sfm.sfm.report import ModelFigures, PairFigures, RunFacts, build_report, write_report

EVIL = '"><script>alert(1)</script>& 照片.jpg'


@pytest.fixture(scope="module")
def model() -> pycolmap.Reconstruction:
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 5
    options.num_points3D = 60
    options.num_points2D_without_point3D = 4
    return pycolmap.synthesize_dataset(options)


@pytest.fixture
def names(model: pycolmap.Reconstruction) -> list[str]:
    return sorted(str(image.name) for image in model.images.values())


def row_of(report: dict[str, list[dict[str, object]]], name: str) -> dict[str, object]:
    return next(row for row in report["photos"] if row["name"] == name)


def test_registered_photos(model: pycolmap.Reconstruction, names: list[str]) -> None:
    facts = RunFacts(
        names=names,
        keypoints=dict.fromkeys(names, 64),
        pairs=[PairFigures((names[0], names[1]), 50, 40), PairFigures((names[0], names[2]), 50, 0)],
        timings={"matching": 2.0, "mapping": 1.5},
        network_seconds={"matching": 1.75},
    )
    report = build_report(facts, model)
    summary = report["summary"]
    assert (summary["registered"], summary["total"]) == (5, 5)
    assert summary["points"] == 60
    assert summary["observations"] == model.compute_num_observations()
    assert summary["mean_track_length"] == pytest.approx(model.compute_mean_track_length(), abs=1e-3)
    assert sum(summary["track_lengths"].values()) == 60
    assert summary["inlier_ratio"]["median"] == 0.8
    assert (summary["pairs"], summary["verified_pairs"]) == (2, 1)
    assert (summary["seconds"], summary["network_seconds"]) == (3.5, 1.75)
    first = row_of(report, names[0])
    assert first["status"] == "registered"
    assert first["reason"] == ""
    assert (first["matches"], first["inliers"], first["pairs"], first["verified_pairs"]) == (100, 40, 2, 1)
    assert first["inlier_ratio"] == 0.8
    image = next(image for image in model.images.values() if image.name == names[0])
    assert first["observations"] == image.num_points3D
    assert report["cameras"][0]["photos"] == 5
    assert list(report["cameras"][0]["params"].values()) == model.cameras[image.camera_id].params.tolist()
    assert report["versions"]["pycolmap"] == pycolmap.__version__
    assert report["machine"]["cores"] >= 1


def test_reprojection_error_is_that_of_colmap(model: pycolmap.Reconstruction, names: list[str]) -> None:
    moved = pycolmap.Reconstruction(model)
    for key in moved.reg_image_ids():
        for index, point in enumerate(moved.images[key].points2D):
            point.xy += (3.0, -4.0) if index % 2 else (-3.0, 4.0)
    moved.update_point_3d_errors()
    report = build_report(RunFacts(names=names, keypoints={}, pairs=[]), moved)
    assert row_of(report, names[0])["reprojection_error"] == pytest.approx(5.0, abs=1e-3)
    assert report["summary"]["reprojection_error"]["mean"] == pytest.approx(
        moved.compute_mean_reprojection_error(), abs=1e-3
    )


@pytest.mark.parametrize(
    ("status", "pairs", "keypoints"),
    [
        ("no keypoints", [], 0),
        ("no pairs", [], 100),
        ("few matches", [PairFigures(("other.jpg", "lost.jpg"), 14, 0)], 100),
        ("no verified pair", [PairFigures(("other.jpg", "lost.jpg"), 300, 0)], 100),
        ("low parallax", [PairFigures(("other.jpg", "lost.jpg"), 300, 250, 0.3)], 100),
        ("left out by the mapper", [PairFigures(("other.jpg", "lost.jpg"), 300, 250, 6.0)], 100),
        ("left out by the mapper", [PairFigures(("other.jpg", "lost.jpg"), 300, 250)], 100),
    ],
)
def test_why_not_registered(
    model: pycolmap.Reconstruction, status: str, pairs: list[PairFigures], keypoints: int
) -> None:
    facts = RunFacts(names=["lost.jpg", "other.jpg"], keypoints={"lost.jpg": keypoints}, pairs=pairs)
    for best in (model, None):
        row = row_of(build_report(facts, best), "lost.jpg")
        assert row["status"] == status
        assert row["registered"] is False
        assert len(str(row["reason"])) > 20
        if pairs:
            assert f"{pairs[0].matches} matches" in str(row["reason"])
            assert "other.jpg" in str(row["reason"])


def test_broken_file_and_other_model(model: pycolmap.Reconstruction, names: list[str]) -> None:
    pair = PairFigures(("apart.jpg", names[0]), 200, 150)
    facts = RunFacts(
        names=[*names, "apart.jpg", "cut.jpg"],
        keypoints={"apart.jpg": 10},
        pairs=[pair],
        broken={"cut.jpg": "The file ends after 12 bytes."},
        models=[
            ModelFigures("sparse/0", 0, 5, 60, 0.1, tuple(names), best=True),
            ModelFigures("sparse/1", 0, 2, 9, 0.2, ("apart.jpg",)),
        ],
    )
    report = build_report(facts, model)
    assert row_of(report, "apart.jpg")["status"] == "in another model"
    assert row_of(report, "cut.jpg")["status"] == "unreadable file"
    assert "ends after 12 bytes" in str(row_of(report, "cut.jpg")["reason"])
    assert (report["summary"]["registered"], report["summary"]["total"]) == (5, 7)
    assert report["models"][0]["best"] is True


class Page(HTMLParser):
    """Collects what a browser would make of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.visible: list[str] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in {"src", "href", "action", "data"}]
        assert not any(key.startswith("on") for key, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        self.open.append("")

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open and self.open[-1] == "script" else self.visible).append(data)


@pytest.fixture
def page(model: pycolmap.Reconstruction, names: list[str], tmp_path: Path) -> Iterator[tuple[Page, Path]]:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.full((60, 90, 3), 120, np.uint8)).save(photos / names[0], "JPEG")
    (photos / names[1]).write_bytes(b"no photo")
    renamed = pycolmap.Reconstruction(model)
    renamed.images[renamed.reg_image_ids()[2]].name = EVIL
    facts = RunFacts(
        names=[*names, EVIL],
        keypoints=dict.fromkeys(names, 5),
        pairs=[PairFigures((names[0], EVIL), 90, 70)],
        broken={EVIL + "2": EVIL},
        models=[ModelFigures(EVIL, 0, 5, 60, 0.1, (), True), ModelFigures("sparse/1", 1, 4, 50, 0.1)],
        timings={EVIL: 3.0},
        calibration=[{"camera_id": 1, "verdict": EVIL, "before": {"cx": 1.0}, "after": {"cx": 2.5}}],
        recipe={"matching": {"matcher": EVIL}},
        notes=[EVIL],
    )
    path = write_report(tmp_path / "out", build_report(facts, renamed), renamed, photos)
    yield Page(path.read_text(encoding="utf-8")), path


def test_page_is_self_contained_and_escaped(page: tuple[Page, Path]) -> None:
    html, path = page
    assert html.tags.count("script") == 2
    assert all(address.startswith("data:image/") for address in html.addresses)
    assert (
        sum(address.startswith("data:image/jpeg") for address in html.addresses) == 3
    )  # two views, one photo
    text = " ".join(html.visible)
    assert text.count(EVIL) >= 6
    assert "photos registered" in text
    assert not re.search(r"https?://", path.read_text(encoding="utf-8"))
    scene = json.loads(html.scripts[0])
    assert EVIL in scene["names"]
    assert "<" not in html.scripts[0]


def test_json_reads_back(page: tuple[Page, Path]) -> None:
    report = json.loads((page[1].parent / "report.json").read_text(encoding="utf-8"))
    assert EVIL in [row["name"] for row in report["photos"]]
    assert sorted(path.name for path in page[1].parent.iterdir()) == ["report.html", "report.json"]


def test_report_without_a_model(tmp_path: Path) -> None:
    facts = RunFacts(names=["a.jpg", "b.jpg"], keypoints={"a.jpg": 9, "b.jpg": 9}, pairs=[])
    path = write_report(tmp_path, build_report(facts, None), None, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert "0 of 2 photos registered" in text
    assert "No model came of these photos" in text
    assert json.loads((tmp_path / "report.json").read_text())["summary"]["mean_track_length"] is None
