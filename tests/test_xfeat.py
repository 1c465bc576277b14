"""XFeat, sparse and semi-dense: against kornia's own code, and against photos warped by known maps."""

import cv2
import numpy as np
import pytest
import torch
from kornia.feature import XFeat
from numpy.testing import assert_allclose
from scipy.spatial import cKDTree
from skimage import data

from gim_sfm.errors import WeightsError
from gim_sfm.matchers.sift import NearestNeighbourMatcher
from gim_sfm.matchers.weights import WEIGHTS, load_state_dict, locate
from gim_sfm.matchers.xfeat import XFeatDetector, XFeatStarDetector, XFeatStarMatcher, load_network
from gim_sfm.types import Features, Photo

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights():
    try:
        return load_state_dict(locate(WEIGHTS["xfeat"]))
    except WeightsError as error:
        pytest.skip(error.message)


def photo_of(pixels: np.ndarray) -> Photo:
    return Photo(np.ascontiguousarray(pixels), (pixels.shape[1], pixels.shape[0]))


def detector(weights, kind=XFeatDetector, *, image_size=512, precision=torch.float32, max_keypoints=1024):
    return kind(weights, device=CPU, precision=precision, max_keypoints=max_keypoints, image_size=image_size)


def warped(pixels: np.ndarray, scale: float, shift: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The photo, scaled about its middle and shifted, and the map of its pixels (2 x 3)."""
    height, width = pixels.shape[:2]
    middle = np.array([width / 2, height / 2])
    target_from_source = np.c_[np.eye(2) * scale, middle - scale * middle + shift]
    smooth = pixels if scale >= 1 else cv2.GaussianBlur(pixels, (0, 0), 0.5 * np.sqrt(1 / scale**2 - 1))
    moved = cv2.warpAffine(
        smooth, target_from_source, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    return moved, target_from_source


def test_finds_what_kornia_finds(weights):
    photo = photo_of(data.astronaut())
    reference = XFeat(top_k=1024)
    reference.net = load_network(weights, CPU)
    image = torch.from_numpy(photo.pixels).permute(2, 0, 1)[None].float() / 255
    expected = reference.detectAndCompute(image)[0]
    (found,) = detector(weights).extract([photo])

    distances, rows = cKDTree(found.keypoints).query(expected["keypoints"].numpy())
    kept = distances < 0.75
    assert kept.mean() > 0.995
    rows, expected_rows = rows[kept], np.flatnonzero(kept)
    assert_allclose(found.scores[rows], expected["scores"][expected_rows], rtol=1e-3, atol=1e-5)
    assert_allclose(found.descriptors[rows], expected["descriptors"][expected_rows], atol=2e-3)


def test_features_are_in_file_pixels_strongest_first_and_bounded(weights):
    pixels = data.rocket()
    photo = Photo(pixels[::2, ::2].copy(), (640, 427), reduction=2)
    (found,) = detector(weights, image_size=300, max_keypoints=100).extract([photo])
    assert len(found) == 100
    assert found.size == (640, 427)
    assert (np.diff(found.scores) <= 0).all()
    assert found.descriptors.dtype == np.float16
    assert found.keypoints.dtype == np.float32
    assert found.keypoints[:, 0].max() > 320
    assert (found.keypoints >= -0.5).all()
    assert (found.keypoints <= (639.5, 426.5)).all()
    assert_allclose(np.linalg.norm(found.descriptors.astype(np.float32), axis=1), 1, atol=1e-2)


@pytest.mark.parametrize(("height", "width"), [(40, 300), (300, 33), (1, 1)])
@pytest.mark.parametrize("kind", [XFeatDetector, XFeatStarDetector])
def test_odd_sizes_and_blank_photos(weights, kind, height, width):
    blank = photo_of(np.full((height, width, 3), 90, np.uint8))
    noise = photo_of(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))
    for found in detector(weights, kind, image_size=256).extract([blank, noise]):
        assert found.size == (width, height)
        assert np.isfinite(found.descriptors).all()
        assert (found.keypoints >= -0.5).all()
        assert (found.keypoints <= (width - 0.5, height - 0.5)).all()


def test_low_precision_keeps_most_keypoints(weights):
    photo = photo_of(data.astronaut())
    (fine,) = detector(weights).extract([photo])
    (coarse,) = detector(weights, precision=torch.bfloat16).extract([photo])
    distances, _ = cKDTree(coarse.keypoints).query(fine.keypoints)
    assert (distances < 0.01).mean() > 0.9


@pytest.mark.parametrize("scale", [1.0, 0.75, 1.3])
@pytest.mark.parametrize("kind", ["sparse", "star"])
def test_matches_lie_where_a_known_map_puts_them(weights, kind, scale):
    pixels = data.astronaut()
    moved, target_from_source = warped(pixels, scale, (13.3, 7.6))
    photos = [photo_of(pixels), photo_of(moved)]
    if kind == "star":
        first, second = detector(weights, XFeatStarDetector, max_keypoints=2048).extract(photos)
        matcher = XFeatStarMatcher(weights, device=CPU, precision=torch.float32)
        (found,) = matcher.correspond([(first, second)])
        points0, points1 = found.points0, found.points1
    else:
        first, second = detector(weights).extract(photos)
        (found,) = NearestNeighbourMatcher(device=CPU).match([(first, second)])
        points0, points1 = first.keypoints[found.indices[:, 0]], second.keypoints[found.indices[:, 1]]
    errors = points1 - (points0 @ target_from_source[:, :2].T + target_from_source[:, 2])
    near = np.linalg.norm(errors, axis=1) < 6
    assert near.sum() > 100
    assert np.abs(errors[near].mean(axis=0)).max() < 0.5
    assert np.median(np.linalg.norm(errors[near], axis=1)) < 1.3


def test_star_matches_nothing_to_nothing(weights):
    (features,) = detector(weights, XFeatStarDetector, image_size=256).extract([photo_of(data.astronaut())])
    none = features.select(np.zeros(0, int))
    matcher = XFeatStarMatcher(weights, device=CPU, precision=torch.float32)
    for pair in ((none, features), (features, none), (none, none)):
        (found,) = matcher.correspond([pair])
        assert found.points0.shape == found.points1.shape == (0, 2)
        assert len(found) == 0


def test_star_cells_come_from_both_scales(weights):
    (features,) = detector(weights, XFeatStarDetector, max_keypoints=500).extract(
        [photo_of(data.astronaut())]
    )
    assert isinstance(features, Features)
    sizes, counts = np.unique(features.scales.round(2), return_counts=True)
    assert_allclose(sizes, [1 / 1.3, 1 / 0.6], atol=0.02)
    assert counts.tolist() == [400, 100]
    assert (np.diff(features.scores) <= 0).all()
