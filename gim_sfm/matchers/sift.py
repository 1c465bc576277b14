"""RootSIFT: the baseline without any learned weights (Lowe, IJCV 2004; Arandjelovic, CVPR 2012)."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Float16, Float32

from gim_sfm.matchers.contract import FeaturePair
from gim_sfm.matchers.frame import to_network
from gim_sfm.matchers.neighbours import mutual_nearest
from gim_sfm.types import Features, Matches, Photo

MAX_RATIO = 0.8
CONTRAST_THRESHOLD = 0.02
DESCRIPTOR_LENGTH = 128


class RootSiftDetector:
    """Finds keypoints with OpenCV's SIFT and describes them with RootSIFT.

    Args:
        max_keypoints: Keep at most this many, the strongest.
        image_size: Longest side in pixels of what the detector sees; smaller photos are left as they are.
    """

    def __init__(self, *, max_keypoints: int, image_size: int) -> None:
        self.max_keypoints = max_keypoints
        self.image_size = image_size
        # Without the precise enlargement, OpenCV reports every keypoint a quarter of a pixel right of and
        # below its true place.
        self.sift = cv2.SIFT.create(
            nfeatures=max_keypoints, contrastThreshold=CONTRAST_THRESHOLD, enable_precise_upscale=True
        )

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        """Features of each photo, in file pixels, strongest first."""
        return [self._extract(photo) for photo in photos]

    def _extract(self, photo: Photo) -> Features:
        pixels, frame = to_network(photo, self.image_size, 1, enlarge_to=0)
        found, described = self.sift.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), None)
        order = sorted(range(len(found)), key=lambda index: -found[index].response)[: self.max_keypoints]
        points = np.array([found[index].pt for index in order], np.float32).reshape(-1, 2)
        histograms = np.zeros((0, DESCRIPTOR_LENGTH), np.float32) if described is None else described[order]
        return Features(
            keypoints=frame.to_file(points),
            scores=np.array([found[index].response for index in order], np.float32),
            descriptors=root_sift(histograms),
            scales=np.array([found[index].size for index in order], np.float32),
            size=photo.size,
        )


def root_sift(histograms: Float32[np.ndarray, "n 128"]) -> Float16[np.ndarray, "n 128"]:
    """Unit vectors whose inner product is the Hellinger kernel of the histograms (Arandjelovic, eq. 2)."""
    total = np.maximum(histograms.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    roots: Float16[np.ndarray, "n 128"] = np.sqrt(histograms / total).astype(np.float16)
    return roots


class NearestNeighbourMatcher:
    """Matches unit descriptors that are each other's nearest and clearly nearer than the second.

    Args:
        device: Where to compute.
        max_ratio: Largest ratio of the distances to the nearest and the second nearest.
    """

    def __init__(self, *, device: torch.device, max_ratio: float = MAX_RATIO) -> None:
        self.device = device
        self.max_ratio = max_ratio

    def match(self, pairs: Sequence[FeaturePair]) -> list[Matches]:
        """Index pairs into the two keypoint lists of each pair; the scores are inner products."""
        return [self._match(*pair) for pair in pairs]

    @torch.inference_mode()
    def _match(self, features0: Features, features1: Features) -> Matches:
        descriptors0 = torch.from_numpy(features0.descriptors).to(self.device).float()
        descriptors1 = torch.from_numpy(features1.descriptors).to(self.device).float()
        indices, similarities = mutual_nearest(descriptors0, descriptors1, max_ratio=self.max_ratio)
        return Matches(
            indices=indices.cpu().numpy().astype(np.int32),
            scores=similarities.cpu().numpy().astype(np.float32),
        )
