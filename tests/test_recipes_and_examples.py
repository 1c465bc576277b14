"""Every recipe loads, every example runs, the settings have one set of names."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from cloud_kit import yard
from hloc_kit import require_hloc
from zeb_kit import write_photo_set

import gim_sfm
from gim_sfm.bev.cloud_formats import read_cloud, write_cloud
from gim_sfm.errors import SettingsError
from gim_sfm.recipe import Recipe, ReconstructSettings

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_says_something(path: Path) -> None:
    recipe = Recipe.load(path)
    written = tomllib.loads(path.read_text())
    assert written
    for section, table in written.items():
        for key, value in table.items():
            assert getattr(getattr(recipe, section), key) == value


def test_a_written_recipe_reads_back_the_same(tmp_path: Path) -> None:
    recipe = Recipe().with_settings({"tries": 3, "masks": Path("some masks"), "camera_params": "1,2,3"})
    recipe.write(tmp_path / "recipe.toml")
    assert Recipe.load(tmp_path / "recipe.toml") == recipe


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[mapping]\ntrys = 3", "tries"),
        ("[maping]\ntries = 3", "mapping"),
        ("[mapping]\ntries = 0", "tries"),
        ("tries = 3", "section"),
        ("[mapping", "TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=told):
        Recipe.load(path)
    with pytest.raises(SettingsError, match="missing"):
        Recipe.load(tmp_path / "missing.toml")


def test_keywords_and_recipe_keys_are_the_same() -> None:
    keys = [key for section in Recipe().model_dump().values() for key in section]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(ReconstructSettings.__annotations__)


def test_importing_the_package_and_the_command_line_does_not_import_torch() -> None:
    code = "import sys, gim_sfm.cli, gim_sfm; assert not {'torch', 'pycolmap', 'cv2'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_examples_run(drawn_photos: Path, tmp_path: Path, xfeat_weights: str) -> None:
    def run(name: str, *arguments: object) -> str:
        command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    told = run("reconstruct_folder.py", drawn_photos, tmp_path / "out")
    assert "8 of 8 photos registered" in told
    assert told.count("registered") >= 9
    assert len(run("camera_positions.py", tmp_path / "out").splitlines()) == 8
    names = sorted(path.name for path in drawn_photos.glob("*.jpg"))
    write_photo_set(tmp_path / "zeb" / "yard", drawn_photos, [(names[0], names[1]), (names[0], names[2])])
    both = ("root-sift", "xfeat-lighterglue")
    told = run("compare_matchers.py", tmp_path / "zeb", tmp_path / "zeb-out", *both)
    assert "> root-sift released" in told
    assert "p = " in told
    clouds = [tmp_path / f"{name}.ply" for name in ("source", "target", "both")]
    for path in clouds[:2]:
        write_cloud(path, yard(np.random.default_rng(0)))
    assert run("merge_scans.py", *clouds).startswith("overlap")
    assert len(read_cloud(clouds[2])) == 2 * len(read_cloud(clouds[0]))
    photos, queries = (tmp_path / name for name in ("mapped", "queries"))
    for name in names:
        folder = queries if name == names[3] else photos
        folder.mkdir(exist_ok=True)
        (folder / name).symlink_to(drawn_photos / name)
    told = run("localize_photos.py", photos, queries, tmp_path / "map")
    assert "1 of 1 photos localized" in told
    assert told.count("by way of") == 7
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {
        "merge_scans.py",
        "reconstruct_folder.py",
        "camera_positions.py",
        "compare_matchers.py",
        "inside_hloc.py",
        "localize_photos.py",
    }


def test_the_example_inside_hloc_runs(drawn_photos: Path, tmp_path: Path) -> None:
    require_hloc()
    query = min(path.name for path in drawn_photos.glob("*.jpg"))
    example = [sys.executable, "-W", "ignore", ROOT / "examples" / "inside_hloc.py"]
    done = subprocess.run(
        [*example, drawn_photos, tmp_path, query], check=True, capture_output=True, text=True
    )
    assert "num_reg_frames = 7" in done.stdout
    assert f"{query} " in done.stdout


def test_a_verb_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="recontsruct"):
        gim_sfm.recontsruct  # noqa: B018
