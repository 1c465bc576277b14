from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kornia.feature import ALIKED, DISK, LightGlue

from gim_sfm.errors import SettingsError, WeightsError
from gim_sfm.matchers.aliked import AlikedDetector, detect
from gim_sfm.matchers.disk import DiskDetector
from gim_sfm.matchers.frame import to_network
from gim_sfm.matchers.lightglue import LIGHTERGLUE, LIGHTGLUE, Architecture, LightGlueMatcher, attend, rename
from gim_sfm.matchers.maxima import find_maxima, summit
from gim_sfm.matchers.precision import fastest_precision, resolve_precision
from gim_sfm.matchers.sampling import bilinear_taps, read_taps, table_of
from gim_sfm.matchers.weights import WEIGHTS, obtain
from gim_sfm.types import Features, Photo

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


def published(name: str) -> dict[str, Any]:
    """An official weight file as it lies there, fetched if need be."""
    row = next(file for file in WEIGHTS.values() if PurePosixPath(file.path).name == name)
    try:
        path = obtain(row, None)
    except WeightsError as error:
        pytest.skip(f"no network weights: {error.message}")
    return torch.load(path, map_location="cpu", weights_only=True)


def texture(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Blobs and edges of several sizes."""
    random = np.random.default_rng(seed)
    width, height = size
    picture = np.zeros((height, width, 3), np.float32)
    for cell in (4, 8, 16, 48):
        coarse = random.random((height // cell + 2, width // cell + 2, 3), dtype=np.float32)
        picture += cv2.resize(coarse, size, interpolation=cv2.INTER_NEAREST if cell > 4 else cv2.INTER_CUBIC)
    return np.clip(picture * 64, 0, 255).astype(np.uint8)


def photo_of(pixels: np.ndarray) -> Photo:
    return Photo(pixels, (pixels.shape[1], pixels.shape[0]))


def view_pair(size: tuple[int, int] = (320, 256)) -> tuple[Photo, Photo, np.ndarray]:
    """A picture, the same from another side, and target_from_source."""
    pixels = texture(3, size)
    homography = np.array([[0.93, -0.12, 24.0], [0.10, 0.96, -12.0], [1.5e-4, -1e-4, 1.0]])
    return photo_of(pixels), photo_of(cv2.warpPerspective(pixels, homography, size)), homography


def transfer_errors(homography: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    moved = cv2.perspectiveTransform(source[:, None].astype(np.float64), homography)[:, 0]
    return np.linalg.norm(moved - target, axis=1)


def shake(network: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Weights of no meaning whose outputs vary, running statistics included."""
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    for key, value in state.items():
        if key.endswith("running_var"):
            state[key] = 0.5 + torch.rand(value.shape, generator=generator)
        elif value.is_floating_point() and not key.endswith(("hw_grid", "confidence_thresholds")):
            spread = 0.1 if value.ndim < 2 else 1.2 * value[0].numel() ** -0.5
            centre = 1.0 if key.endswith(("bn1.weight", "bn2.weight", "ffn.1.weight")) else 0.0
            state[key] = centre + spread * torch.randn(value.shape, generator=generator)
    return state


def nearest(own: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distance = np.linalg.norm(own[:, None] - reference[None], axis=2)
    return distance.argmin(axis=1), distance.min(axis=1)


def check_against(
    reference: tuple[np.ndarray, np.ndarray], features: Features, photo: Photo, frame: Any, *, farthest: float
) -> None:
    places, descriptors = reference
    assert len(features) == len(places) > 50
    index, distance = nearest(features.keypoints, frame.to_file(places))
    assert distance.max() < farthest
    assert len(set(index)) == len(index)
    cosines = (features.descriptors.astype(np.float32) * descriptors[index]).sum(axis=1)
    assert cosines.min() > 0.999
    assert (np.diff(features.scores) <= 0).all()
    assert features.size == photo.size
    assert features.keypoints.dtype == np.float32
    assert features.descriptors.dtype == np.float16


def aliked_reference(state: dict[str, torch.Tensor], photo: Photo, size: int, most: int) -> tuple[Any, Any]:
    network = ALIKED("aliked-n16", max_num_keypoints=most, detection_threshold=0.0)
    network.load_state_dict({"dkd.hw_grid": network.dkd.hw_grid, **state})
    pixels, frame = to_network(photo, size, 32)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        found = network.eval()(image, image_size=torch.tensor([frame.content]))[0]
    return (found.keypoints.numpy(), found.descriptors.numpy()), frame


def disk_reference(state: dict[str, torch.Tensor], photo: Photo, size: int, most: int) -> tuple[Any, Any]:
    network = DISK()
    network.load_state_dict(state)
    pixels, frame = to_network(photo, size, 16)
    assert frame.content == (pixels.shape[1], pixels.shape[0]), "the reference knows no padding at all"
    with torch.inference_mode():
        found = network.eval()(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255, n=most)[0]
    return (found.keypoints.numpy(), found.descriptors.numpy()), frame


@pytest.mark.parametrize("size", [(160, 128), (150, 111)], ids=["whole", "padded"])
def test_aliked_is_the_published_network(size):
    photo = photo_of(texture(0, size))
    state = shake(ALIKED("aliked-n16"), seed=1)
    reference, frame = aliked_reference(state, photo, 160, most=300)
    detector = AlikedDetector(state, device=CPU, precision=torch.float32, max_keypoints=300, image_size=160)
    check_against(reference, detector.extract([photo])[0], photo, frame, farthest=1.5)


def test_disk_is_the_published_network():
    photo = photo_of(texture(1, (160, 128)))
    state = shake(DISK(), seed=5)
    reference, frame = disk_reference(state, photo, 160, most=200)
    detector = DiskDetector(state, device=CPU, precision=torch.float32, max_keypoints=200, image_size=160)
    check_against(reference, detector.extract([photo])[0], photo, frame, farthest=1e-3)


@pytest.mark.weights
def test_aliked_with_published_weights_is_the_published_network():
    photo = view_pair()[0]
    state = published("aliked-n16.pth")
    reference, frame = aliked_reference(state, photo, 320, most=500)
    detector = AlikedDetector(state, device=CPU, precision=torch.float32, max_keypoints=500, image_size=320)
    check_against(reference, detector.extract([photo])[0], photo, frame, farthest=1.0)


@pytest.mark.weights
def test_disk_with_published_weights_is_the_published_network():
    photo = view_pair()[0]
    state = published("disk-depth-save.pth")["extractor"]
    reference, frame = disk_reference(state, photo, 320, most=300)
    detector = DiskDetector(state, device=CPU, precision=torch.float32, max_keypoints=300, image_size=320)
    check_against(reference, detector.extract([photo])[0], photo, frame, farthest=1e-3)


DETECTORS: dict[str, tuple[type[AlikedDetector] | type[DiskDetector], type[torch.nn.Module]]] = {
    "aliked": (AlikedDetector, ALIKED),
    "disk": (DiskDetector, DISK),
}


@pytest.mark.parametrize("family", DETECTORS)
def test_a_photo_does_not_depend_on_its_neighbours(family):
    detector_of, network_of = DETECTORS[family]
    state = shake(network_of(), seed=2)
    detector = detector_of(state, device=CPU, precision=torch.float32, max_keypoints=64, image_size=96)
    photos = [photo_of(texture(seed, size)) for seed, size in enumerate([(96, 64), (64, 96), (50, 37)])]
    for photo, together in zip(photos, detector.extract(photos), strict=True):
        alone = detector.extract([photo])[0]
        np.testing.assert_array_equal(alone.keypoints, together.keypoints)
        np.testing.assert_array_equal(alone.descriptors, together.descriptors)
        assert 0 < len(alone) <= 64
        assert (alone.keypoints > 0).all()
        assert (alone.keypoints < np.array(photo.size) - 1).all()


@pytest.mark.parametrize("family", DETECTORS)
def test_an_even_photo_breaks_nothing(family):
    detector_of, network_of = DETECTORS[family]
    state = shake(network_of(), seed=2)
    detector = detector_of(state, device=CPU, precision=torch.float32, max_keypoints=64, image_size=64)
    found = detector.extract([photo_of(np.full((64, 64, 3), 128, np.uint8))])[0]
    assert len(found) <= 64  # whatever the border makes
    assert found.descriptors.shape == (len(found), 128)
    assert np.isfinite(found.descriptors).all()
    assert np.isfinite(found.keypoints).all()


@pytest.mark.weights
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("detector_of", "weights", "matcher_weights"),
    [
        (AlikedDetector, "aliked-n16.pth", "aliked_lightglue.pth"),
        (DiskDetector, "disk-depth-save.pth", "disk_lightglue.pth"),
    ],
    ids=["aliked", "disk"],
)
def test_matches_follow_a_known_homography(detector_of, weights, matcher_weights, precision):
    state = published(weights)
    detector = detector_of(
        state.get("extractor", state), device=CPU, precision=precision, max_keypoints=400, image_size=320
    )
    matcher = LightGlueMatcher(published(matcher_weights), device=CPU, precision=precision)
    first, second, homography = view_pair()
    features0, features1 = detector.extract([first, second])
    matches = matcher.match([(features0, features1)])[0]
    errors = transfer_errors(
        homography, features0.keypoints[matches.indices[:, 0]], features1.keypoints[matches.indices[:, 1]]
    )
    assert len(matches) > 120
    assert np.median(errors) < 1.0
    assert (errors < 3).mean() > 0.95


def drawn_features(seed: int, dimension: int, count: int, other: Features | None = None) -> Features:
    """Random features; of another photo, a moved and noisy half of that one's."""
    random = np.random.default_rng(seed)
    keypoints = random.uniform(5, 195, (count, 2)).astype(np.float32)
    descriptors = random.normal(size=(count, dimension)).astype(np.float32)
    if other is not None:
        half = count // 2
        keypoints[:half] = other.keypoints[:half] + 3
        descriptors[:half] = other.descriptors[:half] + 0.02 * descriptors[:half]
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(
        keypoints,
        np.ones(count, np.float32),
        descriptors.astype(np.float16),
        np.ones(count, np.float32),
        (200, 200),
    )


def kornia_matches(
    state: dict[str, torch.Tensor], architecture: Architecture, features0: Features, features1: Features
) -> set[tuple[int, int]]:
    network: Any = LightGlue(
        None,  # type: ignore[arg-type]
        input_dim=architecture.input_dim,
        descriptor_dim=architecture.descriptor_dim,
        n_layers=architecture.layers,
        num_heads=architecture.heads,
        depth_confidence=architecture.depth_confidence,
        width_confidence=architecture.width_confidence,
        filter_threshold=architecture.filter_threshold,
    )
    network.load_state_dict(state)
    inputs = [
        {
            "keypoints": torch.from_numpy(features.keypoints)[None],
            "descriptors": torch.from_numpy(features.descriptors)[None].float(),
            "image_size": torch.tensor([features.size]),
        }
        for features in (features0, features1)
    ]
    with torch.inference_mode():
        result = network.eval()({"image0": inputs[0], "image1": inputs[1]})
    return {(int(i), int(j)) for i, j in result["matches"][0]}


SMALL = Architecture(input_dim=16, descriptor_dim=32, layers=3, heads=2, filter_threshold=1e-4)
KEEPING_ALL = Architecture(16, 32, 3, 2, depth_confidence=-1, width_confidence=-1, filter_threshold=1e-4)
ONE_HEAD = Architecture(16, 24, 2, 1, depth_confidence=-1, width_confidence=0.5, filter_threshold=1e-4)


@pytest.mark.parametrize("architecture", [SMALL, KEEPING_ALL, ONE_HEAD], ids=["adaptive", "full", "one head"])
def test_lightglue_is_the_published_network(architecture):
    shape = architecture
    network: Any = LightGlue(
        None,  # type: ignore[arg-type]
        input_dim=shape.input_dim,
        descriptor_dim=shape.descriptor_dim,
        n_layers=shape.layers,
        num_heads=shape.heads,
    )
    state = shake(network, seed=4)
    features0 = drawn_features(0, shape.input_dim, 120)
    features1 = drawn_features(1, shape.input_dim, 100, features0)
    expected = kornia_matches(state, shape, features0, features1)
    matcher = LightGlueMatcher(state, device=CPU, precision=torch.float32, architecture=shape)
    matches = matcher.match([(features0, features1)])[0]
    assert len(expected) > 5
    assert {(int(i), int(j)) for i, j in matches.indices} == expected
    assert (matches.scores > shape.filter_threshold).all()
    assert (matches.scores <= 1).all()


@pytest.mark.weights
@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("aliked_lightglue.pth", LIGHTGLUE),
        ("disk_lightglue.pth", LIGHTGLUE),
        ("xfeat-lighterglue.pt", LIGHTERGLUE),
    ],
)
def test_every_published_file_gives_the_published_matches(name, architecture):
    state = published(name)
    matcher = LightGlueMatcher(state, device=CPU, precision=torch.float32, architecture=architecture)
    features0 = drawn_features(0, architecture.input_dim, 100)
    features1 = drawn_features(1, architecture.input_dim, 100, features0)
    matches = matcher.match([(features0, features1)])[0]
    weights = {"confidence_thresholds": matcher.network.confidence_thresholds, **rename(state)}
    assert {(int(i), int(j)) for i, j in matches.indices} == kornia_matches(
        weights, architecture, features0, features1
    )
    assert (matches.indices[:, 0] == matches.indices[:, 1]).mean() > 0.9


def test_nothing_matches_nothing():
    matcher = LightGlueMatcher(
        shake(LightGlue(None, input_dim=16, descriptor_dim=32, n_layers=3, num_heads=2), seed=0),  # type: ignore[arg-type]
        device=CPU,
        precision=torch.float32,
        architecture=SMALL,
    )
    none, some = drawn_features(0, 16, 0), drawn_features(1, 16, 10)
    for pair in ((none, some), (some, none), (none, none)):
        matches = matcher.match([pair])[0]
        assert matches.indices.shape == (0, 2)
        assert matches.indices.dtype == np.int32
    assert len(matcher.match([(some, drawn_features(2, 16, 1))])) == 1


@pytest.mark.parametrize("counts", [(5, 7), (1100, 40)])
def test_attention_in_a_short_format_is_attention(counts):
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (
        torch.randn(2, count, 8, generator=generator) for count in (counts[0], counts[1], counts[1])
    )
    exact = attend(queries, keys, values)
    short = attend(queries.bfloat16(), keys.bfloat16(), values.bfloat16())
    assert exact.shape == (counts[0], 16)
    assert (exact - short.float()).abs().max() < 0.1


def test_reading_taps_is_bilinear_sampling():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 5, 9, 12, generator=generator)
    places = torch.rand(2, 40, 2, generator=generator) * 14 - 1.5
    photo = torch.arange(2).repeat_interleave(40)
    read = read_taps(table_of(maps), bilinear_taps(places.reshape(-1, 2), photo, (9, 12)))
    grid = places / torch.tensor([11.0, 8.0]) * 2 - 1
    expected = torch.nn.functional.grid_sample(maps, grid[:, :, None], align_corners=True)[..., 0]
    torch.testing.assert_close(read.reshape(2, 40, 5), expected.transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_aliked_reads_descriptors_where_the_published_network_puts_its_keypoints():
    logits = torch.from_numpy(
        cv2.GaussianBlur(texture(7, (128, 96))[..., 0].astype(np.float32) / 64, (5, 5), 1)
    )
    found = detect(logits[None], torch.tensor([[128, 96]]), most=1000)
    dkd = ALIKED("aliked-n16", max_num_keypoints=1000, detection_threshold=0.0).dkd
    published_places = (dkd(torch.sigmoid(logits)[None, None])[0][0] + 1) / 2 * torch.tensor([127, 95])
    index, distance = nearest(found.anchors.numpy(), published_places.numpy())
    assert len(found.anchors) == len(published_places) > 20
    assert distance.max() < 1e-3
    assert len(set(index)) == len(index)
    assert torch.linalg.vector_norm(found.places - found.anchors, dim=1).max() < 1.0


@given(
    place=st.tuples(st.floats(-0.45, 0.45), st.floats(-0.45, 0.45)),
    bends=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3)),
    lean=st.floats(-0.9, 0.9),
)
def test_the_summit_of_a_parabola_is_found(place, bends, lean):
    y, x = torch.meshgrid(torch.arange(-2.0, 3.0), torch.arange(-2.0, 3.0), indexing="ij")
    right, down = x - place[0], y - place[1]
    twist = lean * (bends[0] * bends[1]) ** 0.5
    windows = -(bends[0] * right**2 + bends[1] * down**2) / 2 - twist * right * down
    torch.testing.assert_close(summit(windows.reshape(1, -1))[0], torch.tensor(place), atol=1e-3, rtol=0)


def test_a_feigned_saddle_still_has_a_summit_nearby():
    windows = torch.tensor([[0.9, 0.1, 0.0, 0.1, 1.0, 0.1, 0.0, 0.1, 0.9]])
    assert summit(windows).abs().max() == 0


def test_only_strict_maxima_off_the_border_are_found_strongest_first():
    scores = torch.zeros(2, 20, 30)
    scores[0, 5, 5], scores[0, 5, 12], scores[0, 12, 6] = 0.4, 0.9, 0.6
    scores[0, 15, 20] = scores[0, 15, 21] = 0.8  # a tie is no maximum
    scores[0, 1, 20] = 0.7  # too near the border
    scores[1, 10, 24] = 0.7  # on the padding
    scores[1, 10, 10] = 0.3
    scores[1, 11, 11] = 0.2  # in the shadow of a stronger one
    contents = torch.tensor([[30, 20], [25, 20]])
    found = find_maxima(scores, contents, 2, above=0.0)
    assert found.photo.tolist() == [0, 0, 0, 1]
    assert found.places.tolist() == [[12, 5], [6, 12], [5, 5], [10, 10]]
    torch.testing.assert_close(found.peaks, torch.tensor([0.9, 0.6, 0.4, 0.3]))
    assert found.strongest(2).photo.tolist() == [0, 0, 1]
    assert len(find_maxima(torch.zeros(1, 20, 30), contents[:1], 2, above=0.0).x) == 0


def test_precision_follows_the_setting_and_the_device():
    assert resolve_precision("float32", CPU) == torch.float32
    assert resolve_precision("auto", CPU) == fastest_precision(CPU)
    assert fastest_precision(torch.device("cuda")) == torch.float16
    assert fastest_precision(torch.device("mps")) == torch.float32
    with pytest.raises(SettingsError, match="float8"):
        resolve_precision("float8", CPU)
