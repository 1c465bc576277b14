"""SuperPoint: keypoints and descriptors taught by homographies (DeTone et al., CVPRW 2018)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gim_sfm.matchers.frame import ENLARGE_TO, Frame, to_network
from gim_sfm.matchers.lightglue import split_checkpoint
from gim_sfm.matchers.maxima import Maxima, window_maximum
from gim_sfm.matchers.networks.superpoint import CELL, SuperPoint
from gim_sfm.matchers.sampling import bilinear_taps, read_taps, table_of
from gim_sfm.types import Features, Photo

BORDER = 4
"""Keypoints keep this many pixels away from the sides of the photo."""
SECOND_LOOKS = 2
"""How often maxima are sought again among the pixels that no maximum found so far outshines."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Which maxima of the score map are keypoints; the network is the same.

    Attributes:
        threshold: Keypoints score higher than this.
        radius: Keypoints are the highest of the pixels this near in x and y.
    """

    threshold: float
    radius: int


GIM_SUPERPOINT = Architecture(threshold=0.0, radius=3)
"""As GIM's LightGlue was trained on it: every maximum, however weak."""
SUPERPOINT = Architecture(threshold=0.0005, radius=4)
"""As the first LightGlue was trained on it."""


class SuperPointDetector:
    """Finds and describes keypoints with SuperPoint.

    Unlike GIM's, it adds no random points to photos with few keypoints, and measures the border from the
    sides of the photo whatever its size.

    Args:
        state_dict: Published weights: SuperPoint's own, or GIM's file that holds LightGlue's beside them.
        device: Where to compute.
        precision: Number format of the convolutions; scores, and what is read for descriptors, are in single
            precision.
        max_keypoints: Keep at most this many a photo, the strongest.
        image_size: Longest side in pixels of what the network sees.
        architecture: Which maxima are keypoints.
    """

    def __init__(
        self,
        state_dict: Mapping[str, Tensor],
        *,
        device: torch.device,
        precision: torch.dtype,
        max_keypoints: int,
        image_size: int,
        architecture: Architecture = GIM_SUPERPOINT,
    ) -> None:
        self.device = device
        self.precision = precision
        self.max_keypoints = max_keypoints
        self.image_size = image_size
        self.architecture = architecture
        self.network = load_network(state_dict).to(device, precision).to(memory_format=torch.channels_last)
        # Logits in a short format would tie, and ties would be keypoints both.
        self.network.convPb.float()

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        """Features of each photo, in file pixels, strongest first."""
        inputs = [self._input(photo) for photo in photos]
        if self.device.type == "cpu":  # which gains nothing from batches
            return [features for entry in inputs for features in self._extract([entry])]
        alike = groupby(inputs, key=lambda entry: entry[0].shape)
        return [features for _, group in alike for features in self._extract(list(group))]

    def _input(self, photo: Photo) -> tuple[np.ndarray, Frame]:
        pixels, frame = to_network(photo, self.image_size, CELL, enlarge_to=ENLARGE_TO)
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), frame

    @torch.inference_mode()
    def _extract(self, inputs: list[tuple[np.ndarray, Frame]]) -> list[Features]:
        grey = torch.from_numpy(np.stack([pixels for pixels, _ in inputs])).to(self.device)[:, None]
        contents = torch.tensor([frame.content for _, frame in inputs], device=self.device)
        found, descriptors = self.find(grey.float() / 255, contents)
        mine = [found.photo == index for index in range(len(inputs))]
        return [
            _features(frame, found.select(own), descriptors[own])
            for own, (_, frame) in zip(mine, inputs, strict=True)
        ]

    def find(self, images: Tensor, contents: Tensor) -> tuple[Maxima, Tensor]:
        """Keypoints of a batch in network pixels, and their unit descriptors, (n, 256).

        Args:
            images: Grey, (b, 1, height, width) in [0, 1]; sides are whole multiples of 8.
            contents: (width, height) of each input that shows the photo, (b, 2).
        """
        ready = images.to(self.precision).contiguous(memory_format=torch.channels_last)
        logits, descriptors = self.network(ready)
        scores = score_pixels(logits)
        found = find_keypoints(scores, contents, self.architecture).strongest(self.max_keypoints)
        return found, describe(descriptors, found)


def load_network(state_dict: Mapping[str, Tensor]) -> SuperPoint:
    """The network with published weights, ready to run."""
    joint = any(key.startswith("superpoint.") for key in state_dict)
    network = SuperPoint()
    network.load_state_dict(split_checkpoint(state_dict)[0] if joint else dict(state_dict))
    return network.eval().requires_grad_(False)


def score_pixels(logits: Tensor) -> Tensor:
    """How much each pixel is a keypoint: (b, 65, h, w) to (b, 8 h, 8 w)."""
    shares = functional.softmax(logits.float(), dim=1)[:, :-1]
    return functional.pixel_shuffle(shares, CELL)[:, 0]


def suppress(scores: Tensor, radius: int) -> Tensor:
    """Where the maxima are, after second looks beyond the reach of those found first.

    A pixel that only a shadowed pixel outshines is a maximum too.

    Args:
        scores: (b, height, width).
        radius: Of the square window.
    """
    maxima = scores == window_maximum(scores, radius)
    for _ in range(SECOND_LOOKS):
        shadow = window_maximum(maxima.float(), radius) > 0
        rest = scores.masked_fill(shadow, 0)
        maxima |= (rest == window_maximum(rest, radius)) & ~shadow
    return maxima


def find_keypoints(scores: Tensor, contents: Tensor, architecture: Architecture) -> Maxima:
    """The maxima above the threshold and off the border, photo by photo, strongest first.

    Args:
        scores: (b, height, width).
        contents: (width, height) of the part of each map that shows the photo, (b, 2).
        architecture: Threshold and radius.
    """
    kept = suppress(scores, architecture.radius) & (scores > architecture.threshold)
    photo, y, x = torch.nonzero(kept, as_tuple=True)
    right, below = (contents[photo] - BORDER).T
    inner = (x >= BORDER) & (y >= BORDER) & (x < right) & (y < below)
    photo, y, x = photo[inner], y[inner], x[inner]
    found = Maxima(photo, x, y, scores[photo, y, x][:, None])
    # Stable sorts, so that equal scores keep their raster order on every device.
    found = found.select(torch.argsort(found.peaks, descending=True, stable=True))
    return found.select(torch.argsort(found.photo, stable=True))


def describe(maps: Tensor, found: Maxima) -> Tensor:
    """Unit descriptors between the cells of a map of unit vectors, (n, 256).

    Args:
        maps: The network's, before any normalisation, (b, 256, h, w).
        found: Where to read, in network pixels.
    """
    height, width = maps.shape[2:]
    cells = torch.tensor([width, height], device=maps.device)
    # The published ruler lays the first cell's centre on the first node, but the last pixel on the last node.
    places = (found.places - (CELL - 1) / 2) * ((cells - 1) / (CELL * cells - CELL / 2 - 0.5))
    unit = table_of(functional.normalize(maps.float(), dim=1))
    return functional.normalize(read_taps(unit, bilinear_taps(places, found.photo, (height, width))), dim=1)


def _features(frame: Frame, found: Maxima, descriptors: Tensor) -> Features:
    return Features(
        keypoints=frame.to_file(found.places.cpu().numpy()),
        scores=found.peaks.cpu().numpy(),
        descriptors=descriptors.half().cpu().numpy(),
        scales=np.ones(len(descriptors), np.float32),
        size=frame.size,
    )
