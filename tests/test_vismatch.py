"""Matchers of the package vismatch: what goes in, what comes out, and what is done when it is otherwise."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from gim_sfm.errors import GimSfmError, SettingsError
from gim_sfm.matchers import vismatch as vismatch_module
from gim_sfm.matchers.contract import DenseMatcher
from gim_sfm.matchers.vismatch import VismatchMatcher, row
from gim_sfm.types import Photo

CPU = torch.device("cpu")


def photo(width: int, height: int, reduction: int = 1) -> Photo:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return Photo(pixels, (width * reduction, height * reduction), reduction)


def answer(points0, points1, confidences=None, **more):
    return {"matched_kpts0": points0, "matched_kpts1": points1, "matched_confidences": confidences, **more}


@pytest.fixture
def package(monkeypatch):
    """A package of that name, whose matchers call `package.forward`."""
    made = ModuleType("vismatch")
    made.available_models = ["sift-nn", "roma", "loftr", "eloftr"]
    made.forward = lambda image0, image1: answer(np.empty((0, 2)), np.empty((0, 2)))
    made.asked = []

    class Matcher:
        skip_ransac = False

        def __call__(self, image0, image1):
            assert self.skip_ransac
            return made.forward(image0, image1)

    def get_matcher(name, device, max_num_keypoints):
        sys.stdout.write("somebody's message")
        made.asked.append((name, device, max_num_keypoints))
        return Matcher()

    made.get_matcher = get_matcher
    monkeypatch.setitem(sys.modules, "vismatch", made)
    return made


def matcher(name: str = "sift-nn", *, image_size: int = 640, samples: int = 100) -> VismatchMatcher:
    return VismatchMatcher(name, device=CPU, image_size=image_size, samples=samples)


def test_photos_go_in_as_tensors_and_points_come_out_in_file_pixels(package, capsys):
    seen = []

    def forward(image0, image1):
        seen.extend((image0, image1))
        return answer(
            np.array([[10.0, 20], [30, 40]]), torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([0.2, 0.9])
        )

    package.forward = forward
    (found,) = matcher().correspond([(photo(320, 240), photo(160, 96, reduction=2))])
    assert package.asked == [("sift-nn", "cpu", 100)]
    assert [tuple(image.shape) for image in seen] == [(3, 240, 320), (3, 96, 160)]
    assert seen[0].dtype == torch.float32
    assert 0 <= seen[0].min() < seen[0].max() <= 1
    assert found.points0.dtype == found.points1.dtype == found.scores.dtype == np.float32
    np.testing.assert_allclose(found.points0, [[30, 40], [10, 20]])  # the surest first
    np.testing.assert_allclose(found.points1, [[6.5, 8.5], [2.5, 4.5]])  # each pixel covers two of the file's
    np.testing.assert_allclose(found.scores, [0.9, 0.2])
    assert capsys.readouterr().out == ""


def test_resizing_is_undone(package):
    package.forward = lambda image0, image1: answer(
        np.array([[(image0.shape[2] - 1) / 2, (image0.shape[1] - 1) / 2]]),
        np.array([[(image1.shape[2] - 1) / 2, (image1.shape[1] - 1) / 2]]),
    )
    (found,) = matcher(image_size=100).correspond([(photo(333, 217), photo(101, 405))])
    np.testing.assert_allclose(found.points0, [[166, 108]], atol=1e-4)
    np.testing.assert_allclose(found.points1, [[50, 202]], atol=1e-4)


def test_the_first_pixels_centre_is_where_the_matcher_has_it(package):
    package.forward = lambda *_: answer(np.array([[0.5, 0.5]]), np.array([[7.5, 3.5]]))
    pair = (photo(64, 64), photo(64, 64))
    (found,) = matcher("roma").correspond([pair])
    np.testing.assert_allclose(found.points0, [[0, 0]])
    np.testing.assert_allclose(found.points1, [[7, 3]])
    (found,) = matcher("loftr").correspond([pair])
    np.testing.assert_allclose(found.points0, [[0.5, 0.5]])


def test_points_on_no_pixel_are_left_out_and_counted(package, caplog):
    inside = [[0.0, 0], [63, 63], [-0.5, 5], [5, 5], [5, 5], [5, 5]]
    other = [[1.0, 1], [2, 2], [3, 3], [63.6, 3], [np.nan, 3], [3, np.inf]]
    package.forward = lambda *_: answer(np.array(inside), np.array(other))
    caplog.set_level("INFO", "gim_sfm")
    (found,) = matcher().correspond([(photo(64, 64), photo(64, 64))])
    np.testing.assert_allclose(found.points1, [[1, 1], [2, 2], [3, 3]])
    np.testing.assert_allclose(found.scores, 1)
    assert "vismatch:sift-nn: 3 of 6 matches lie on no pixel" in caplog.text


def test_no_more_matches_than_asked_for_and_the_surest_of_them(package):
    points = np.random.default_rng(0).uniform(0, 60, (50, 2))
    package.forward = lambda *_: answer(points, points, np.arange(50.0))
    (found,) = matcher(samples=7).correspond([(photo(64, 64), photo(64, 64))])
    np.testing.assert_allclose(found.scores, np.arange(49, 42, -1))


def test_no_matches_are_no_failure(package):
    (found,) = matcher().correspond([(photo(64, 64), photo(64, 64))])
    assert found.points0.shape == found.points1.shape == (0, 2)
    assert matcher().correspond([]) == []


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"mkpts0": 1, "mkpts1": 2}, "no matched_kpts0 and matched_kpts1, but mkpts0, mkpts1"),
        ((1, 2), "but tuple"),
        (answer(np.zeros((3, 2)), np.zeros((2, 2))), r"shapes \(3, 2\) and \(2, 2\)"),
        (answer(np.zeros((3, 3)), np.zeros((3, 3))), r"shapes \(3, 3\)"),
        (answer(np.zeros(2), np.zeros(2)), r"shapes \(2,\)"),
        (answer("points", np.zeros((3, 2))), "no numbers"),
        (answer(np.zeros((3, 2)), np.zeros((3, 2)), np.ones(2)), r"confidences of shape \(2,\) for 3"),
    ],
)
def test_what_is_not_as_agreed_is_told_with_the_matchers_name(package, result, told):
    package.forward = lambda *_: result
    with pytest.raises(GimSfmError, match=told) as caught:
        matcher("loftr").correspond([(photo(64, 64), photo(64, 64))])
    assert "vismatch:loftr" in caught.value.message


def test_errors_of_the_matcher_are_told(package):
    def forward(*_):
        raise AssertionError("no descriptors\nand more")

    package.forward = forward
    with pytest.raises(GimSfmError, match="vismatch:sift-nn broke off on a pair: no descriptors"):
        matcher().correspond([(photo(64, 64), photo(64, 64))])


def test_matches_drawn_at_random_are_the_same_each_time(package):
    def forward(*_):
        drawn = np.concatenate([np.random.rand(4, 2), torch.rand(4, 2).numpy()]) * 60
        return answer(drawn, drawn)

    package.forward = forward
    pair = (photo(64, 64), photo(64, 64))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    once, again = matcher().correspond([pair, pair])
    np.testing.assert_array_equal(once.points0, again.points0)
    assert torch.random.get_rng_state().equal(before)


def test_unknown_names_get_the_nearest(package):
    with pytest.raises(SettingsError, match="no matcher 'LOFT'") as caught:
        matcher("LOFT")
    assert "vismatch:loftr" in caught.value.remedy
    assert "sift-nn" in caught.value.remedy


def test_a_missing_package_is_told_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "vismatch", None)
    with pytest.raises(SettingsError, match="vismatch is not installed") as caught:
        matcher()
    assert "pip install 'gim_sfm[vismatch]'" in caught.value.remedy
    assert "--no-deps vismatch" in caught.value.remedy


def test_what_the_package_lacks_is_told(package, monkeypatch):
    def lacking(*_, **__):
        raise ModuleNotFoundError("No module named 'einops'", name="einops")

    package.get_matcher = lacking
    with pytest.raises(SettingsError, match="vismatch:roma needs einops") as caught:
        matcher("roma")
    assert "pip install einops" in caught.value.remedy

    def outdated(*_, **__):
        raise ModuleNotFoundError("No module named 'torch.utils.gone'", name="torch.utils.gone")

    package.get_matcher = outdated
    with pytest.raises(SettingsError, match="another version of torch"):
        matcher("roma")

    def offline(*_, **__):
        raise ConnectionError("the hub is out of reach")

    package.get_matcher = offline
    with pytest.raises(GimSfmError, match="could not be made: the hub is out of reach"):
        matcher("roma")


def test_nothing_changes_how_files_are_read_afterwards(package, monkeypatch):
    """Some of its modules have torch.load run code in files by default, for the whole process."""
    own = torch.load
    make = package.get_matcher

    def patching(*arguments, **more):
        torch.load = lambda *_, **__: "anything"
        return make(*arguments, **more)

    package.get_matcher = patching
    matcher()
    assert torch.load is own


def test_that_its_weights_are_unchecked_is_said(package, caplog):
    matcher()
    assert "unchecked" in caplog.text


def test_the_registrys_row_builds_it(package):
    facts = row("loftr")
    assert facts.name == "vismatch:loftr"
    assert facts.kind == "dense"
    assert facts.weights == ()
    assert "vismatch" in facts.licence
    assert len(facts.summary) < 100
    setup = SimpleNamespace(device=CPU, max_keypoints=facts.max_keypoints, image_size=facts.image_size)
    built = facts.build(setup)
    assert isinstance(built, DenseMatcher)
    assert isinstance(built.matcher, VismatchMatcher)
    assert package.asked == [("loftr", "cpu", 4096)]


def test_rows_are_known_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "vismatch", None)
    assert row("anything").name == f"{vismatch_module.VISMATCH}anything"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["sift-nn", "orb-nn"])
def test_the_real_package(name):
    pytest.importorskip("vismatch")
    data = pytest.importorskip("skimage.data")
    pixels = data.astronaut()
    first, second = (
        Photo(np.ascontiguousarray(part), (480, 480)) for part in (pixels[:480, :480], pixels[32:, 24:504])
    )
    (found,) = matcher(name, image_size=480, samples=1000).correspond([(first, second)])
    assert len(found) > 200
    np.testing.assert_allclose(np.median(found.points0 - found.points1, axis=0), (24, 32), atol=0.3)
