import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gim_sfm.errors import InputError
from gim_sfm.matchers.frame import Frame, fit, pad_to_aspect, to_network
from gim_sfm.types import Photo

sides = st.integers(8, 90)


def decoded(size: tuple[int, int], reduction: int) -> Photo:
    width, height = (-(-side // reduction) for side in size)
    return Photo(np.zeros((height, width, 3), np.uint8), size, reduction)


@given(
    size=st.tuples(sides, sides),
    reduction=st.sampled_from([1, 2, 4, 8]),
    longest=st.integers(8, 128),
    multiple=st.sampled_from([1, 8, 16, 32]),
    enlarge_to=st.one_of(st.none(), st.integers(0, 300)),
    places=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_points_go_there_and_back(size, reduction, longest, multiple, enlarge_to, places):
    pixels, frame = to_network(decoded(size, reduction), longest, multiple, enlarge_to=enlarge_to)
    points = (np.array(places) * (np.array(size) - 1)).astype(np.float32)
    inside = frame.to_network(points)
    np.testing.assert_allclose(frame.to_file(inside), points, atol=1e-3)
    assert frame.shows(inside).all()
    assert frame.size == size
    assert pixels.shape[0] % multiple == 0 == pixels.shape[1] % multiple
    assert pixels.shape[1] - frame.content[0] < multiple
    assert pixels.shape[0] - frame.content[1] < multiple


@given(size=st.tuples(sides, sides), reduction=st.sampled_from([1, 2, 4]), longest=st.integers(8, 200))
@settings(max_examples=100, deadline=None)
def test_the_longest_side_is_as_asked(size, reduction, longest):
    photo = decoded(size, reduction)
    _, enlarged = to_network(photo, longest, 8)
    assert max(enlarged.content) == longest
    _, kept = to_network(photo, longest, 8, enlarge_to=0)
    assert max(kept.content) == min(longest, max(photo.pixels.shape[:2]))


def test_whole_pixels_of_a_reduced_photo_cover_whole_file_pixels():
    # 101 file pixels read at one half: 51 decoded pixels, the last of which covers one file pixel only.
    _, frame = to_network(decoded((101, 40), 2), 51, 1)
    np.testing.assert_allclose(frame.to_file(np.array([[0.0, 0.0], [1.0, 1.0]])), [[0.5, 0.5], [2.5, 2.5]])
    np.testing.assert_allclose(frame.scale, 0.5)


def dot(size: tuple[int, int], centre: tuple[float, float], sigma: float) -> np.ndarray:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    value = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.round(250 * value).astype(np.uint8)[..., None], 3, axis=2)


def centroid(pixels: np.ndarray) -> np.ndarray:
    weight = pixels[..., 0].astype(np.float64)
    y, x = np.indices(weight.shape)
    return np.array([[(x * weight).sum(), (y * weight).sum()]]) / weight.sum()


@pytest.mark.parametrize("reduction", [1, 2, 4])
@pytest.mark.parametrize("longest", [96, 160, 200, 333])
def test_a_drawn_dot_is_found_where_it_was_drawn(reduction, longest):
    size, centre = (200, 152), (87.3, 66.8)
    drawn = dot(size, centre, sigma=6)
    pixels = drawn.reshape(152 // reduction, reduction, 200 // reduction, reduction, 3).mean(axis=(1, 3))
    image, frame = to_network(Photo(np.round(pixels).astype(np.uint8), size, reduction), longest, 32)
    np.testing.assert_allclose(frame.to_file(centroid(image)), [centre], atol=0.05)


def test_jpeg_draft_mode_agrees_with_the_convention(tmp_path):
    size, centre = (203, 151), (120.4, 61.7)
    path = tmp_path / "dot.jpg"
    cv2.imwrite(str(path), dot(size, centre, sigma=7), [cv2.IMWRITE_JPEG_QUALITY, 98])
    pixels = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_2)
    assert pixels.shape[:2] == (76, 102)
    pixels[pixels < 8] = 0  # ringing of the compression
    image, frame = to_network(Photo(pixels, size, 2), 160, 32)
    np.testing.assert_allclose(frame.to_file(centroid(image)), [centre], atol=0.1)


def test_padding_repeats_the_border_and_is_not_shown():
    pixels = np.arange(60 * 50 * 3, dtype=np.uint32).astype(np.uint8).reshape(60, 50, 3)
    image, frame = to_network(Photo(pixels, (50, 60)), 60, 32)
    assert image.shape == (64, 64, 3)
    np.testing.assert_array_equal(image[:60, :50], pixels)
    np.testing.assert_array_equal(image[:60, 50:], np.repeat(pixels[:, -1:], 14, axis=1))
    shown = frame.shows(np.array([[49.0, 59.0], [49.6, 10.0], [10.0, 59.6]]))
    np.testing.assert_array_equal(shown, [True, False, False])


def test_a_frame_is_plain_arithmetic():
    frame = Frame(scale=(0.5, 0.25), content=(10, 10), size=(20, 40))
    np.testing.assert_allclose(frame.to_network(np.array([[0.0, 0.0]])), [[-0.25, -0.375]])
    assert frame.to_file(np.array([[1.0, 1.0]])).dtype == np.float32
    assert frame.to_file(np.empty((0, 2))).shape == (0, 2)


def test_a_photo_without_pixels_is_refused():
    with pytest.raises(InputError, match="no pixels"):
        to_network(Photo(np.empty((0, 5, 3), np.uint8), (5, 0)), 64, 32)


@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    longest=st.integers(16, 640),
    multiple=st.sampled_from([1, 8, 14, 32]),
    aspect=st.one_of(st.none(), st.floats(0.4, 2.5)),
    reduction=st.sampled_from([1, 2, 8]),
)
@settings(max_examples=80, deadline=None)
def test_there_and_back_through_any_size_and_padding(
    width: int, height: int, longest: int, multiple: int, aspect: float | None, reduction: int
) -> None:
    photo = Photo(np.zeros((height, width, 3), np.uint8), (width * reduction, height * reduction), reduction)
    pixels, frame = fit(photo, longest, multiple)
    assert pixels.shape[1::-1] == frame.content
    assert all(side % multiple == 0 for side in frame.content)
    assert all(side <= max(longest, multiple) for side in frame.content)
    if aspect is not None:
        padded, frame = pad_to_aspect(pixels, frame, aspect)
        assert padded.shape[1] >= pixels.shape[1]
        assert padded.shape[0] >= pixels.shape[0]
        wide = max(1 / padded.shape[0], 1 / padded.shape[1]) * max(aspect, 1 / aspect) * 1.01
        assert abs(np.log(padded.shape[1] / padded.shape[0] / aspect)) <= 2 * wide
    corners = np.array([[0, 0], [photo.size[0] - 1, photo.size[1] - 1]], np.float64)
    network = frame.to_network(corners)
    np.testing.assert_allclose(frame.to_file(network), corners, atol=1e-2)
    assert frame.shows(network).all()
    beyond = frame.to_network(np.array([[-0.6, 0], [photo.size[0] - 0.4, 0]]) * 1.0)
    assert not frame.shows(beyond).any()


def test_photos_that_fit_are_handed_on_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    fitted, frame = fit(Photo(pixels, (96, 64)), 640, 8)
    np.testing.assert_array_equal(fitted, pixels.astype(np.float32) / np.float32(255))
    assert frame.scale == (1, 1)


def test_padding_is_black_and_lies_on_both_sides() -> None:
    photo = Photo(np.full((40, 80, 3), 200, np.uint8), (80, 40))
    padded, frame = pad_to_aspect(*fit(photo, 640, 8), 1.0)
    assert padded.shape == (80, 80, 3)
    assert frame.offset == (0, 20)
    assert not padded[:20].any()
    assert not padded[60:].any()
    assert (padded[20:60] > 0.7).all()
