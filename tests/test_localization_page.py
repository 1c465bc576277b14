"""The page of a localization tells every query: where it was taken and by what, or why it was not found."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from PIL import Image

import gim_sfm
from gim_sfm.errors import OutputError
from gim_sfm.sfm.localization.answers import KEPT_PLACES, AnswerFiles, read_rows, write_answers
from gim_sfm.sfm.localization.page import render_page
from gim_sfm.sfm.report import RunFacts, build_report, write_report
from gim_sfm.sfm.report_scene import MARKED, QUIET, Drawing, draw_model

EVIL = '"><script>alert(1)</script>& 照片.jpg'
LOST = "lost <b> one.jpg"
REASON = 'Nothing agrees with "<i>it</i>" & so on.'
FACTS: dict[str, Any] = {
    "map": f"/somewhere/{EVIL}",
    "matching": {"matcher": EVIL},
    "settings": {"neighbours": 10},
    "versions": {"python": EVIL},
    "machine": {"cores": 2, "device": "cpu"},
}


class Page(HTMLParser):
    """What a browser would make of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.rows: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        self.inside = tag if tag in {"script", "style"} else ""
        if tag == "tr":
            self.rows.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts += [data] if self.inside == "script" else []
            return
        self.texts.append(data)
        if self.rows:
            self.rows[-1] += data + " "

    @property
    def scene(self) -> dict[str, Any]:
        return dict(json.loads(self.scripts[0]))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def map_shown() -> Drawing:
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 5
    options.num_points3D = 60
    return draw_model(pycolmap.synthesize_dataset(options))


def found(shift: float = 0.0, **changes: Any) -> dict[str, Any]:
    pose = np.eye(3, 4)
    pose[0, 3] = shift
    photos = [{"name": f"map{number}.jpg", "sightings": 90, "inliers": 7 * number} for number in range(8)]
    return {
        "model": "SIMPLE_RADIAL",
        "width": 90,
        "height": 60,
        "params": [77.0, 45.0, 30.0, 0.0],
        "intrinsics": "EXIF, <refined>",
        "cam_from_world": pose.tolist(),
        "position_deviation": 0.01234,
        "turn_deviation_degrees": 0.3456,
        "sightings": 321,
        "inliers": 123,
        "reprojection_error_px": 0.874,
        "evidence": 99.0,
        "places": [[3, 4], [50, 20]],
        "photos": photos,
        **changes,
    }


def lost(**changes: Any) -> dict[str, Any]:
    return {"reason": REASON, "remedy": "Take <another>.", **changes}


ROWS = {
    "a.jpg": found(),
    EVIL: found(0.5),
    LOST: lost(compared_with=["map1.jpg", EVIL]),
    "z.jpg": lost(),
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    Image.fromarray(np.full((60, 90, 3), 120, np.uint8)).save(tmp_path / "a.jpg", "JPEG")
    Image.fromarray(np.full((60, 90, 3), 90, np.uint8)).save(tmp_path / LOST, "JPEG")
    (tmp_path / "z.jpg").write_bytes(b"no photo")
    return tmp_path


@pytest.fixture
def page(map_shown: Drawing, photos: Path) -> Page:
    return Page(render_page(ROWS, FACTS, map_shown, photos))


def test_every_query_has_its_row_those_that_failed_first(page: Page) -> None:
    queries = page.rows[1:5]
    assert "2 of 4 photos localized" in page.texts
    for name, row in zip((LOST, "z.jpg", "a.jpg", EVIL), queries, strict=True):
        assert row.startswith(f"{name} ")
    for row in queries[:2]:
        assert REASON in row
        assert "Take <another>." in row
        assert "not localized" in row
    assert f"Compared with map1.jpg, {EVIL}" in queries[0]
    assert "Compared with" not in queries[1]


def test_a_localized_query_is_told_with_its_figures(page: Page) -> None:
    row = page.rows[3]
    for told in ("123", "321", "0.87", "0.012", "0.35\N{DEGREE SIGN}", "77 px", "EXIF, <refined>"):
        assert f" {told} " in row
    assert re.findall(r"map\d\.jpg \(\d+\)", row) == [
        f"map{number}.jpg ({7 * number})" for number in (7, 6, 5, 4, 3)
    ]


def test_queries_are_marked_among_the_cameras_of_the_map(page: Page, map_shown: Drawing) -> None:
    scene = page.scene
    assert scene["names"] == [*map_shown.names, "a.jpg", EVIL]
    assert scene["marked"] == [0] * 5 + [1] * 2
    eyes = np.frombuffer(base64.b64decode(scene["cameras"]), "<f4").reshape(7, 5, 3)[:, 0]
    centres = [
        *-np.einsum("nji,nj->ni", map_shown.cam_from_world[:, :, :3], map_shown.cam_from_world[:, :, 3])
    ]
    centres += [np.zeros(3), np.array([-0.5, 0, 0])]
    gaps, shown = (np.linalg.norm(part[:, None] - part[None], axis=2) for part in (np.array(centres), eyes))
    np.testing.assert_allclose(shown / shown.max(), gaps / gaps.max(), atol=1e-5)
    strokes = [(group["stroke"]) for group in page.all("g") if "stroke" in group]
    assert strokes == [QUIET, MARKED] * 2
    assert "queries" in " ".join(page.texts)


def test_photos_that_joined_a_model_are_marked_in_its_report(tmp_path: Path) -> None:
    model = pycolmap.synthesize_dataset(pycolmap.SyntheticDatasetOptions())
    names = sorted(str(image.name) for image in model.images.values())
    facts = RunFacts(names=names, keypoints={}, pairs=[])
    for marked in ([], [names[2]]):
        path = write_report(tmp_path, build_report(facts, model), model, tmp_path, marked=marked)
        page = Page(path.read_text(encoding="utf-8"))
        assert page.scene["marked"] == [int(name in marked) for name in page.scene["names"]]
        assert ("photos that joined" in " ".join(page.texts)) == bool(marked)


def test_a_query_named_as_a_photo_of_the_map_does_not_mark_that_one(map_shown: Drawing, photos: Path) -> None:
    name = map_shown.names[1]
    scene = Page(render_page({name: found()}, FACTS, map_shown, photos)).scene
    assert scene["names"].count(name) == 2
    assert scene["marked"] == [0, 0, 0, 0, 0, 1]


def test_the_page_needs_no_network_and_names_cannot_break_it(
    page: Page, map_shown: Drawing, photos: Path
) -> None:
    text = render_page(ROWS, FACTS, map_shown, photos)
    assert not re.search(r"https?://", text)
    assert len(page.all("script")) == 2
    assert len(page.all("b")) == 5  # the figures at the top
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    sources = [value for _, tag in page.tags for key, value in tag.items() if key in {"src", "href"}]
    assert sources
    assert all(source.startswith("data:image/jpeg") for source in sources)
    assert "<" not in page.scripts[0]
    assert sum(EVIL in text for text in page.texts) >= 5


def test_dots_show_where_a_query_matched(page: Page) -> None:
    pictures = [tag for tag in page.all("svg") if tag.get("viewbox") == "0 0 90 60"]
    dots = [tag["d"] for tag in page.all("path") if "h0" in tag.get("d", "")]
    assert len(pictures) == 1
    assert dots == ["M3 4h0M50 20h0"]
    assert len(page.all("i")) == 4  # two photos that cannot be read, two in the legend
    assert len(page.all("img")) == 1  # the one that was not localized


def test_photos_that_have_moved_leave_empty_frames(map_shown: Drawing, tmp_path: Path) -> None:
    page = Page(render_page(ROWS, FACTS, map_shown, tmp_path / "gone"))
    assert not page.all("img")
    assert len(page.all("i")) == 4 + 2
    assert len(page.rows[1:5]) == 4


def test_nothing_localized_leaves_the_map_as_it_is(map_shown: Drawing, photos: Path) -> None:
    page = Page(render_page({"z.jpg": lost()}, FACTS, map_shown, photos))
    assert "0 of 1 photos localized" in page.texts
    assert page.scene["names"] == list(map_shown.names)
    assert "queries" not in " ".join(page.texts)


def test_a_camera_of_a_rig_that_sees_nothing_itself_has_no_error(map_shown: Drawing, photos: Path) -> None:
    blind = found(inliers=0, reprojection_error_px=None, places=[], photos=[])
    page = Page(render_page({"a.jpg": blind}, FACTS, map_shown, photos))
    assert " 0 " in page.rows[1]
    assert " - " in page.rows[1]


def test_thousands_of_queries_stay_light(map_shown: Drawing, tmp_path: Path) -> None:
    places = [[4000 + number, 3000 + number] for number in range(KEPT_PLACES)]
    rows = {f"video/frame_{number:06d}.jpg": found(places=places) for number in range(3000)}
    text = render_page(rows, FACTS, map_shown, tmp_path)
    assert len(text) < 6e6
    assert text.count("video/frame_") == 2 * len(rows)


@pytest.mark.usefixtures("one_thread")
def test_localize_writes_the_page_with_places_inside_the_photo(drawn_photos: Path, tmp_path: Path) -> None:
    queries, old = tmp_path / "queries", tmp_path / "old"
    for folder in (queries, old):
        folder.mkdir()
    for path in sorted(drawn_photos.iterdir()):
        shutil.copy2(path, (queries if path.name == "view_03.jpg" else old) / path.name)
    (queries / "cut.jpg").write_bytes(b"no photo")
    gim_sfm.reconstruct(old, tmp_path / "out", matcher="root-sift", max_keypoints=2048)
    result = gim_sfm.localize(queries, tmp_path / "out", tmp_path / "poses.html")
    assert result.page == tmp_path / "poses.html"
    assert str(result.page) in str(result)
    row = json.loads(result.record.read_text())["images"]["view_03.jpg"]
    places = np.array(row["places"])
    assert min(row["inliers"], KEPT_PLACES) / 2 <= len(places) <= KEPT_PLACES
    assert len(np.unique(places, axis=0)) > len(places) / 2
    assert (places >= 0).all()
    assert (places < (row["width"], row["height"])).all()
    page = Page(result.page.read_text(encoding="utf-8"))
    assert "1 of 2 photos localized" in page.texts
    assert page.scene["names"][-1] == "view_03.jpg"
    assert page.scene["marked"] == [0] * len(list(old.iterdir())) + [1]
    assert result.failed["cut.jpg"] in page.rows[1]


def test_a_page_of_something_else_is_not_written_over(
    map_shown: Drawing, photos: Path, tmp_path: Path
) -> None:
    files = AnswerFiles.of(tmp_path / "index")
    files.page.write_text(render_page(ROWS, FACTS, map_shown, photos), encoding="utf-8")
    assert read_rows(files) == {}
    files.page.write_text("<title>Home</title>")
    with pytest.raises(OutputError, match=r"index\.html"):
        read_rows(files)


def test_the_record_reads_back_whatever_names_are(tmp_path: Path) -> None:
    rows = {**ROWS, "a [\n 1,\n 2\n].jpg": lost(reason="[\n 1\n]")}
    files = AnswerFiles.of(tmp_path / "poses")
    write_answers(files, rows, {})
    assert read_rows(files) == rows
    assert "[50, 20]" in files.record.read_text()


def test_files_are_named_alike_whatever_suffix_is_given() -> None:
    for name in ("poses", "poses.txt", "poses.json", "poses.html"):
        assert AnswerFiles.of(Path("there") / name).page == Path("there/poses.html")
        assert AnswerFiles.of(Path("there") / name).record == Path("there/poses.json")
