"""RootSIFT: positions against drawn blobs, matches against an exhaustive search."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from skimage import data

from gim_sfm.matchers import neighbours
from gim_sfm.matchers.neighbours import mutual_nearest
from gim_sfm.matchers.sift import NearestNeighbourMatcher, RootSiftDetector, root_sift
from gim_sfm.types import Photo


def grey_photo(values: np.ndarray) -> Photo:
    pixels = np.repeat(np.clip(values + 0.5, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    return Photo(pixels, (pixels.shape[1], pixels.shape[0]))


def blob(centre: np.ndarray, sigma: float) -> Photo:
    y, x = np.mgrid[:160, :200]
    return grey_photo(128 - 100 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2)))


@pytest.mark.parametrize("sigma", [1.6, 2.5, 4.0])
def test_keypoints_lie_on_the_centres_of_drawn_blobs(sigma):
    detector = RootSiftDetector(max_keypoints=10, image_size=1600)
    centres = np.random.default_rng(0).uniform(70, 90, (12, 2))
    found = detector.extract([blob(centre, sigma) for centre in centres])
    assert all(len(features) for features in found)
    errors = np.array(
        [features.keypoints[0] - centre for features, centre in zip(found, centres, strict=True)]
    )
    assert np.abs(errors.mean(axis=0)).max() < 0.03
    assert np.abs(errors).max() < 0.12


def test_file_pixels_do_not_depend_on_the_working_size():
    centre = np.array([91.3, 74.8])
    for image_size in (200, 150):
        (found,) = RootSiftDetector(max_keypoints=1, image_size=image_size).extract([blob(centre, 4.0)])
        assert_allclose(found.keypoints[0], centre, atol=0.15)


def test_features_are_bounded_and_strongest_first():
    pixels = data.astronaut()
    (found,) = RootSiftDetector(max_keypoints=200, image_size=512).extract([Photo(pixels, (512, 512))])
    assert len(found) == 200
    assert (np.diff(found.scores) <= 0).all()
    assert found.descriptors.dtype == np.float16
    assert_allclose(np.linalg.norm(found.descriptors.astype(np.float32), axis=1), 1, atol=2e-3)


def test_a_blank_photo_has_no_features_and_no_matches():
    (none,) = RootSiftDetector(max_keypoints=10, image_size=512).extract(
        [grey_photo(np.full((50, 60), 90.0))]
    )
    assert none.descriptors.shape == (0, 128)
    assert none.keypoints.shape == (0, 2)
    (some,) = RootSiftDetector(max_keypoints=10, image_size=512).extract([blob(np.array([80.0, 80.0]), 2.0)])
    matcher = NearestNeighbourMatcher(device=torch.device("cpu"))
    for found in matcher.match([(none, none), (none, some), (some, none)]):
        assert found.indices.shape == (0, 2)
        assert len(found) == 0


def test_root_sift_is_the_hellinger_kernel():
    histograms = np.random.default_rng(0).integers(0, 255, (5, 128)).astype(np.float32)
    shares = histograms / histograms.sum(axis=1, keepdims=True)
    expected = np.sqrt(shares[:, None] * shares[None]).sum(axis=2)
    roots = root_sift(histograms).astype(np.float32)
    assert_allclose(roots @ roots.T, expected, atol=2e-3)
    assert (root_sift(np.zeros((1, 128), np.float32)) == 0).all()


def exhaustive(first: np.ndarray, second: np.ndarray, max_ratio: float) -> list[tuple[int, int]]:
    """Lowe's test written out, one pair of descriptors at a time."""
    distances = np.linalg.norm(first[:, None].astype(np.float64) - second[None], axis=2)

    def clear(row: np.ndarray) -> bool:
        nearest, *others = np.sort(row)
        return not others or nearest <= max_ratio * others[0]

    return [
        (i, j)
        for i, row in enumerate(distances)
        for j in [int(row.argmin())]
        if int(distances[:, j].argmin()) == i and clear(row) and clear(distances[:, j])
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.7, 0.8, 0.95]), st.integers(0, 1000))
def test_matches_are_those_of_an_exhaustive_search(count0, count1, max_ratio, seed):
    random = np.random.default_rng(seed)
    first, second = random.normal(size=(count0, 8)), random.normal(size=(count1, 8))
    shared = min(count0, count1) // 2
    first[:shared] = second[:shared] + 0.2 * random.normal(size=(shared, 8))
    unit = [
        (each / np.linalg.norm(each, axis=1, keepdims=True)).astype(np.float32) for each in (first, second)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "BLOCK_ROWS", 7)
        found, similarities = mutual_nearest(*map(torch.from_numpy, unit), max_ratio=max_ratio)
    assert [tuple(pair) for pair in found.tolist()] == exhaustive(*unit, max_ratio)
    rows0, rows1 = found.numpy().T
    assert_allclose(similarities, (unit[0][rows0] * unit[1][rows1]).sum(axis=1), atol=1e-5)
