import numpy as np
import pytest
import torch
from parity_kit import (
    colour_photo,
    expected,
    grey_photo,
    largest_gap,
    made_weights,
    needs_kit,
    points_of,
)

from gim_sfm.errors import WeightsError
from gim_sfm.matchers.lightglue import split_checkpoint
from gim_sfm.matchers.networks.superpoint import SuperPoint
from gim_sfm.matchers.superpoint import (
    BORDER,
    GIM_SUPERPOINT,
    SUPERPOINT,
    Architecture,
    SuperPointDetector,
    find_keypoints,
    load_network,
    suppress,
)
from gim_sfm.types import Photo

CPU = torch.device("cpu")
OFFICIAL_CENTRE = 0.5
"""Where the official code puts the centre of the first pixel."""


pytestmark = pytest.mark.usefixtures("one_thread")


def drawn_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of no meaning whose scores vary."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(value.shape, generator=generator)
        * (0.1 if value.ndim == 1 else (2 / value[0].numel()) ** 0.5)
        for key, value in SuperPoint().state_dict().items()
    }


def detector(
    weights: dict[str, torch.Tensor],
    *,
    most: int = 2048,
    size: int = 320,
    precision: torch.dtype = torch.float32,
    architecture: Architecture = GIM_SUPERPOINT,
) -> SuperPointDetector:
    return SuperPointDetector(
        weights,
        device=CPU,
        precision=precision,
        max_keypoints=most,
        image_size=size,
        architecture=architecture,
    )


def noise(size: tuple[int, int], seed: int = 0) -> Photo:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Photo(pixels, size)


def find(weights: dict[str, torch.Tensor], grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints and descriptors by our detector for an official network input, (1, 1, height, width)."""
    with torch.inference_mode():
        found, descriptors = detector(weights).find(
            torch.from_numpy(grey), torch.tensor([[grey.shape[3], grey.shape[2]]])
        )
    return found.places.numpy() + OFFICIAL_CENTRE, descriptors.numpy()


# ---------------------------------------------------------------------------------------- parity


@needs_kit
def test_both_heads_are_the_official_ones():
    official = expected("gim_lightglue_same")
    network = load_network(made_weights("gim_lightglue"))
    with torch.inference_mode():
        logits, descriptors = network(torch.from_numpy(official["gray0"]))
    assert largest_gap(logits, official["sp_logits0"]) < 3e-5
    assert largest_gap(descriptors[..., ::2, ::2], official["sp_descmap_raw0_stride2"]) < 3e-5


@needs_kit
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("pair", "key", "count"),
    [("same", "keypoints", 2048), ("diff", "keypoints", 2048), ("pad", "nopad_keypoints", (285, 286))],
)
def test_keypoints_of_an_official_input_are_the_official_ones(pair, key, count, side):
    official = expected(f"gim_lightglue_{pair}")
    places, descriptors = find(made_weights("gim_lightglue"), official[f"gray{side}"])
    theirs = official[f"{key}{side}"][0]
    assert len(places) == len(theirs) == (count if isinstance(count, int) else count[side])
    assert points_of(places) == points_of(theirs)
    index = {tuple(place): row for row, place in enumerate(places.tolist())}
    # Every 16th of the padded list is one of the real ones only near its beginning.
    whole = f"descriptors{side}" in official
    step, name = (1, f"descriptors{side}") if whole else (16, f"descriptors{side}_every16")
    listed = official[f"keypoints{side}"][0][::step]
    real = [row for row, place in enumerate(listed.tolist()) if tuple(place) in index]
    assert len(real) >= len(theirs) // step
    own = descriptors[[index[tuple(listed[row].tolist())] for row in real]]
    assert largest_gap(own, official[name][0][real]) < 3e-5


@needs_kit
@pytest.mark.parametrize(("image", "side"), [("img0", 0), ("img1", 1)])
def test_keypoints_of_a_grey_file_are_the_official_ones(image, side):
    features = detector(made_weights("gim_lightglue")).extract([grey_photo(image)])[0]
    theirs = expected("gim_lightglue_same")[f"keypoints{side}"][0] - OFFICIAL_CENTRE
    assert points_of(features.keypoints) == points_of(theirs)
    assert features.size == (320, 240)


@needs_kit
def test_colours_turned_grey_after_decoding_change_few_keypoints():
    # OpenCV's decoder rounds otherwise than a conversion of decoded colours: by 1 in half of all pixels.
    weights = made_weights("gim_lightglue")
    colour = detector(weights).extract([colour_photo("img0")])[0]
    grey = detector(weights).extract([grey_photo("img0")])[0]
    both = points_of(colour.keypoints) & points_of(grey.keypoints)
    assert 2000 < len(both) < 2048


@needs_kit
def test_hloc_features_are_ours_after_its_rounding():
    official = expected("hloc_gim_lightglue")
    features = detector(made_weights("gim_lightglue")).extract([grey_photo("img0")])[0]
    # Its files are half a pixel off its own convention, and in half precision.
    shifted = (features.keypoints + np.float32(0.5)).astype(np.float16)
    assert points_of(shifted) == points_of(official["feat__img0.png__keypoints"])


@needs_kit
def test_the_border_is_kept_on_sizes_that_are_no_multiple_of_8():
    """Image 2 is 301x223: the official code looks at 296x216 of it, ours at all, padded to 304x224."""
    official = expected("hloc_gim_lightglue")["feat__img2.png__keypoints"].astype(np.float32) - 0.5
    features = detector(made_weights("gim_lightglue"), size=301).extract([grey_photo("img2")])[0]
    own = features.keypoints

    # Theirs: no border at the right and below of what it looks at. Here it would begin at 297 and 219.
    assert ((official[:, 0] >= 296 - BORDER) | (official[:, 1] >= 216 - BORDER)).sum() > 50
    assert official.max(axis=0).tolist() == [295, 215]
    # Ours: the border of the photo on all four sides, and keypoints right up to it.
    nearest, farthest = own.min(axis=0), own.max(axis=0)
    first, last = np.array([BORDER, BORDER]), np.array([301 - BORDER - 1, 223 - BORDER - 1])
    assert ((nearest >= first) & (nearest <= first + 1)).all()
    assert ((farthest <= last) & (farthest >= last - 1)).all()

    # Far from the lower and right sides both see the same; those that theirs has there push out weak ones.
    def inner(points: np.ndarray) -> set[tuple[float, ...]]:
        return points_of(points[(points < [296 - 60, 216 - 60]).all(axis=1)])

    assert len(inner(own)) > 1000
    assert len(inner(own) & inner(official)) / len(inner(own) | inner(official)) > 0.98


# ------------------------------------------------------------------------------------- own tests


def test_strange_and_missing_parameters_are_named():
    weights = drawn_weights()
    missing = {key: value for key, value in weights.items() if key != "convPb.bias"}
    with pytest.raises(RuntimeError, match=r"convPb\.bias"):
        detector(missing)
    with pytest.raises(RuntimeError, match=r"convXa\.weight"):
        detector({**weights, "convXa.weight": torch.zeros(1)})
    assert len(weights) == 24


def test_a_joint_file_is_split_without_remainder():
    weights = drawn_weights()
    joint = {
        **{f"superpoint.{key}": value for key, value in weights.items()},
        "model.posenc.Wr.weight": torch.zeros(32, 2),
    }
    own, matcher = split_checkpoint(joint)
    assert own.keys() == weights.keys()
    assert list(matcher) == ["posenc.Wr.weight"]
    with pytest.raises(WeightsError, match=r"extractor\.conv1a\.weight"):
        split_checkpoint({**joint, "extractor.conv1a.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"optimizer"):
        detector({**joint, "optimizer": torch.zeros(1)})
    photo = noise((96, 72))
    one, other = (detector(state, size=96).extract([photo])[0] for state in (weights, joint))
    np.testing.assert_array_equal(one.keypoints, other.keypoints)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_features_are_as_agreed(precision):
    photo = Photo(noise((101, 75)).pixels, (202, 150), reduction=2)
    features = detector(drawn_weights(), most=100, size=101, precision=precision).extract([photo])[0]
    assert len(features) == 100
    assert (np.diff(features.scores) <= 0).all()
    assert features.scores.min() > 0
    assert features.size == (202, 150)
    assert features.keypoints.dtype == np.float32
    assert features.descriptors.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(features.descriptors.astype(np.float32), axis=1), 1, atol=2e-3)
    # Whole pixels of the reduced photo are 0.5, 2.5, ... in the file.
    np.testing.assert_allclose(features.keypoints % 2, 0.5)
    assert (features.keypoints >= 2 * BORDER + 0.5).all()
    assert (features.keypoints <= np.array([2 * (101 - BORDER), 2 * (75 - BORDER)]) - 1.5).all()


def test_a_photo_gives_the_same_twice_and_in_company():
    photos = [noise((96, 80), seed) for seed in (0, 1)] + [noise((80, 96), 2)]
    own = detector(drawn_weights(), size=96)
    together = own.extract(photos)
    for photo, features in zip(photos, together, strict=True):
        alone = own.extract([photo])[0]
        np.testing.assert_array_equal(features.keypoints, alone.keypoints)
        np.testing.assert_array_equal(features.descriptors, alone.descriptors)


def test_a_batch_of_equal_sizes_gives_what_single_photos_give():
    own = detector(drawn_weights(), size=96, most=150)
    inputs = [own._input(noise((96, 77), seed)) for seed in (0, 1, 2)]
    batch = own._extract(inputs)
    for entry, features in zip(inputs, batch, strict=True):
        alone = own._extract([entry])[0]
        assert points_of(features.keypoints) == points_of(alone.keypoints)
        np.testing.assert_allclose(features.scores, alone.scores, atol=1e-6)
        assert len(features) == 150


@pytest.mark.parametrize("size", [(320, 240), (8, 8), (5, 300), (1, 1)])
@pytest.mark.parametrize("architecture", [GIM_SUPERPOINT, SUPERPOINT])
def test_an_even_photo_breaks_nothing(size, architecture):
    photo = Photo(np.zeros((size[1], size[0], 3), np.uint8), size)
    features = detector(drawn_weights(), size=96, architecture=architecture).extract([photo])[0]
    assert features.descriptors.shape == (len(features), 256)
    assert np.isfinite(features.descriptors).all()


def test_maxima_in_the_shadow_of_a_shadowed_pixel_are_found():
    scores = torch.zeros(1, 20, 40)
    scores[0, 10, 10], scores[0, 10, 13], scores[0, 10, 16], scores[0, 10, 19] = 0.9, 0.8, 0.7, 0.6
    # 13 lies in the shadow of 10; 16 only in that of 13, which is no maximum; 19 in that of 16, which is.
    kept = suppress(scores, 3) & (scores > 0)
    assert kept[0].nonzero().tolist() == [[10, 10], [10, 16]]
    assert (suppress(scores, 2) & (scores > 0)).sum() == 4


def test_threshold_and_radius_choose_the_keypoints():
    scores = torch.zeros(1, 40, 40)
    scores[0, 10, 10], scores[0, 10, 14], scores[0, 30, 30], scores[0, 3, 20] = 0.1, 0.09, 0.0004, 0.5
    contents = torch.tensor([[40, 40]])
    loose = find_keypoints(scores, contents, GIM_SUPERPOINT)
    assert loose.places.tolist() == [[10, 10], [14, 10], [30, 30]]
    assert find_keypoints(scores, contents, SUPERPOINT).places.tolist() == [[10, 10]]
    assert find_keypoints(scores, torch.tensor([[30, 40]]), GIM_SUPERPOINT).places.tolist() == [
        [10, 10],
        [14, 10],
    ]
