"""Between hloc's tensors, of one photo or pair at a time, and the arrays of this package.

Both count pixels from the centre of the first one, so that no half pixel comes in here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gim_sfm.errors import InputError
from gim_sfm.hloc_plugin.networks import MOST_KEYPOINTS
from gim_sfm.matchers.contract import DenseMatcher, Matcher, SemiDenseMatcher, SparseMatcher, WarpMatcher
from gim_sfm.store import as_stored
from gim_sfm.types import Correspondences, Features, Matches, Photo

Data = Mapping[str, Tensor]


def photo_of(image: Tensor) -> Photo:
    """The photo of an image (1 x 3 or 1 x height x width, in [0, 1]), to the grey level as it was decoded."""
    channels = image[0].mul(255).round().clamp(0, 255).to(torch.uint8).cpu()
    pixels = channels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    return Photo(pixels=pixels, size=(pixels.shape[1], pixels.shape[0]))


def tensors_of(features: Features) -> dict[str, Tensor]:
    """What an extractor gives: keypoints (1 x n x 2), scores and scales (1 x n), descriptors (1 x d x n).

    The keypoints are in double precision: hloc's `as_half` rounds what is in single precision to 11 bits.
    """
    return {
        "keypoints": torch.from_numpy(features.keypoints.astype(np.float64))[None],
        "scores": torch.from_numpy(features.scores)[None],
        "scales": torch.from_numpy(features.scales)[None],
        "descriptors": torch.from_numpy(features.descriptors.T.astype(np.float32))[None],
    }


def features_of(data: Data, side: str) -> Features:
    """The features that hloc hands to a matcher of pairs.

    Args:
        data: With the datasets of both photos, their names followed by 0 or 1.
        side: 0 or 1.

    Raises:
        InputError: There are more than hloc can number.
    """
    names = ("keypoints", "descriptors", "image_size", "scores", "scales")
    arrays = {name: data[name + side][0].cpu().numpy() for name in names if name + side in data}
    keypoints = arrays["keypoints"].astype(np.float32)
    if len(keypoints) > MOST_KEYPOINTS:
        raise InputError(
            f"A photo has {len(keypoints)} keypoints; hloc numbers matches to {MOST_KEYPOINTS} only.",
            remedy="Extract fewer keypoints.",
        )
    ones = np.ones(len(keypoints), np.float32)
    width, height = arrays["image_size"].astype(int)
    return Features(
        keypoints=keypoints,
        scores=arrays.get("scores", ones).astype(np.float32),
        descriptors=np.ascontiguousarray(arrays["descriptors"].T.astype(np.float16)),
        scales=arrays.get("scales", ones).astype(np.float32),
        size=(int(width), int(height)),
    )


def match(matcher: Matcher, features: tuple[Features, Features]) -> dict[str, Tensor]:
    """What a sparse matcher of hloc gives: matches0 (1 x n, -1 for none) and matching_scores0 (1 x n)."""
    assert isinstance(matcher, SparseMatcher)
    count = len(features[0])
    # No network need see photos without keypoints, and some cannot.
    found = matcher.matcher.match([features])[0] if count and len(features[1]) else _NO_MATCHES
    matches0, scores0 = np.full(count, -1, np.int64), np.zeros(count, np.float32)
    matches0[found.indices[:, 0]] = found.indices[:, 1]
    scores0[found.indices[:, 0]] = found.scores
    return {
        "matches0": torch.from_numpy(matches0)[None],
        "matching_scores0": torch.from_numpy(scores0)[None],
    }


def correspond(matcher: Matcher, photos: Sequence[Photo], *, on_grid: bool) -> dict[str, Tensor]:
    """What a dense matcher of hloc gives: keypoints0, keypoints1 (m x 2) and scores (m).

    hloc wants the points of the second photo to repeat from pair to pair, and those of the first, which is
    the query, to be exact.

    Args:
        matcher: Of a kind that sees both photos.
        photos: The two.
        on_grid: Whether the matcher places the points of its first photo on a grid, as LoFTR does.
    """
    if on_grid:
        found = _correspond(matcher, photos[1], photos[0])
        found = Correspondences(found.points1, found.points0, found.scores)
    else:
        found = _correspond(matcher, photos[0], photos[1])
    stored = as_stored(found)
    assert isinstance(stored, Correspondences)
    return {
        "keypoints0": torch.from_numpy(stored.points0),
        "keypoints1": torch.from_numpy(stored.points1),
        "scores": torch.from_numpy(stored.scores),
    }


_NO_MATCHES = Matches(np.empty((0, 2), np.int32), np.empty(0, np.float32))


def _correspond(matcher: Matcher, first: Photo, second: Photo) -> Correspondences:
    match matcher:
        case SemiDenseMatcher():
            one, other = matcher.detector.extract([first]), matcher.detector.extract([second])
            return matcher.matcher.correspond([(one[0], other[0])])[0]
        case DenseMatcher() | WarpMatcher():
            return matcher.matcher.correspond([(first, second)])[0]
        case SparseMatcher():
            raise AssertionError("sparse matchers take features")
