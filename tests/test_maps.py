"""Maps are not lost: put back after a kill, kept when others take their place; foreign ones must fit."""

import json
import shutil
from pathlib import Path

import pycolmap
import pytest
from PIL import Image

import gim_sfm
from gim_sfm.archive import exclusive
from gim_sfm.drawn_world import DrawnWorld
from gim_sfm.errors import InputError, OutputError
from gim_sfm.sfm import maps, reconstruction
from gim_sfm.sfm.adoption import adopt_model
from gim_sfm.sfm.mapping import PROVENANCE
from gim_sfm.sfm.maps import open_map

FAST = {"matcher": "root-sift", "max_keypoints": 2048}

pytestmark = pytest.mark.usefixtures("one_thread")


def photos_of(names: list[str], source: Path, folder: Path) -> Path:
    folder.mkdir()
    for name in names:
        shutil.copy2(source / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def grown(drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of three photos that a fourth one joined; do not change it. Its first photos lie beside it."""
    folder = tmp_path_factory.mktemp("grown")
    names = sorted(path.name for path in drawn_photos.glob("*.jpg"))[:4]
    first = photos_of(names[:3], drawn_photos, folder / "first")
    gim_sfm.reconstruct(first, folder / "out", **FAST)
    gim_sfm.extend(photos_of(names[3:], drawn_photos, folder / "later"), folder / "out")
    return folder / "out"


@pytest.fixture
def out(grown: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grown, tmp_path / "out", symlinks=True))


def fingerprint(sparse: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (sparse / "0").iterdir()}


def test_a_folder_that_lacks_photos_does_not_replace_a_model_that_has_grown(
    out: Path, grown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconstruction, "assemble", lambda *_, **__: pytest.fail("networks were loaded"))
    (out / "sparse").rename(out / ".sparse.old")  # as a kill may leave it
    for job in (gim_sfm.reconstruct, reconstruction.plan):
        with pytest.raises(OutputError, match=r"lacks 1 of its photos: view_03\.jpg") as refused:
            job(grown.parent / "first", out, **FAST)
        assert str(out / "images") in refused.value.remedy
    assert fingerprint(out / "sparse") == fingerprint(grown / "sparse")


def test_a_model_that_has_grown_is_kept_when_one_of_all_its_photos_replaces_it(
    out: Path, grown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("gim_sfm.sfm.modelling.publish", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            gim_sfm.reconstruct(out / "images", out, **FAST)
    result = gim_sfm.reconstruct(out / "images", out, **FAST)
    assert result.registered == 4
    kept = out / "former" / "2"
    assert f"The model that had grown is kept in {kept}" in result.notes
    assert fingerprint(kept) == fingerprint(grown / "sparse") != fingerprint(out / "sparse")
    assert sorted(path.name for path in (out / "former").iterdir()) == ["1", "2"]
    assert gim_sfm.reconstruct(grown.parent / "first", out, **FAST).registered == 3, (
        "it has not grown any more"
    )


def test_models_that_a_killed_run_put_aside_are_opened(grown: Path, out: Path) -> None:
    for folder in (out, out / "sparse", out / "sparse" / "0"):
        (out / "sparse").rename(out / ".sparse.old")
        assert open_map(folder).model.num_reg_images() == 4
    (out / "sparse").rename(out / ".sparse.old")
    with exclusive(out), pytest.raises(OutputError):
        open_map(out)  # whoever put it aside may still be at work
    assert (out / ".sparse.old").exists()


def test_models_are_kept_once(out: Path) -> None:
    assert [maps.keep_former(out).name for _ in range(2)] == ["2", "2"]
    record = json.loads((out / "sparse" / PROVENANCE).read_text())
    (out / "sparse" / PROVENANCE).write_text(json.dumps(record | {"inputs": "others"}))
    assert maps.keep_former(out).name == "3"


def test_a_model_of_photos_of_another_size_is_refused_before_anything_is_made(
    grown: Path, drawn_world: DrawnWorld, tmp_path: Path
) -> None:
    photos, model = tmp_path / "photos", tmp_path / "model"
    shutil.copytree(grown.parent / "first", photos)
    Image.new("RGB", (32, 24)).save(photos / "view_01.jpg")
    model.mkdir()
    pycolmap.Reconstruction(grown / "sparse" / "0").write(model)
    shutil.copy2(grown.parent / "later" / "view_03.jpg", photos)
    with pytest.raises(InputError, match=r"view_01\.jpg is 32x24 pixels") as refused:
        adopt_model(model, photos, tmp_path / "out")
    assert "--model-photos" in refused.value.remedy
    assert not (tmp_path / "out").exists()
    (photos / "view_01.jpg").write_bytes(b"broken")
    with pytest.raises(InputError, match="view_01"):
        adopt_model(model, photos, tmp_path / "out", strict=True)
