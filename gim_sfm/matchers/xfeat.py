"""XFeat: light keypoints and descriptors, sparse and semi-dense (Potje et al., CVPR 2024)."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import UInt8
from kornia.feature.xfeat import BasicLayer, XFeatModel
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gim_sfm.matchers.contract import FeaturePair
from gim_sfm.matchers.frame import Frame, to_network
from gim_sfm.matchers.maxima import find_maxima, summit
from gim_sfm.matchers.neighbours import mutual_nearest
from gim_sfm.types import Correspondences, Features, Photo

CELL = 8
"""Pixels of the network's input to a side of one cell of its feature map."""
SIDE_MULTIPLE = 32

DETECTION_THRESHOLD = 0.05
SMALLEST_LIKELIHOOD = 1e-4
SUPPRESSED_WITHIN = 2
"""Keypoints are the highest of the pixels this near in x and y."""

STAR_SCALES = (0.6, 1.3)
STAR_SHARES = (0.2, 0.8)
"""Of the keypoints, how many come from which of the two scales."""
STAR_CONFIDENCE = 0.25
SOFTMAX_SHARPNESS = 3.0
UNMOVED_CLASS = 3
"""The class, in x and in y, of a cell that stays where it is.

The published code counts from 4 and from the cell's first pixel; on photos warped by known maps that is off
by one network pixel, plus 3.5 times the change of scale. Counted like this, no systematic error is left.
"""


def load_network(state_dict: Mapping[str, Tensor], device: torch.device) -> XFeatModel:
    """XFeat's network with these weights, ready to run."""
    network = XFeatModel()
    network.load_state_dict(state_dict)
    return network.eval().to(device)


class XFeatMaps:
    """XFeat's convolutions, arranged to run fast: batch norms folded in, channels last, low precision.

    Args:
        state_dict: The published weights.
        device: Where to compute.
        precision: Number format of the feature pyramid. The keypoint head reads the pixels themselves, is
            cheap, and stays in single precision.
    """

    def __init__(
        self, state_dict: Mapping[str, Tensor], *, device: torch.device, precision: torch.dtype
    ) -> None:
        self.device = device
        self.precision = precision
        self.network = load_network(state_dict, device)
        for layer in self.network.modules():
            if isinstance(layer, BasicLayer):
                convolution, norm = cast(nn.Conv2d, layer.layer[0]), cast(nn.BatchNorm2d, layer.layer[1])
                layer.layer = nn.Sequential(fuse_conv_bn_eval(convolution, norm), nn.ReLU(inplace=True))
        for part in self.network.children():
            if part is not self.network.keypoint_head:
                part.to(precision)
        self.network.to(memory_format=torch.channels_last)

    def __call__(self, pixels: UInt8[np.ndarray, "height width 3"]) -> tuple[Tensor, Tensor, Tensor]:
        """Descriptors (1 x 64 x h x w), keypoint logits (1 x 65 x h x w), reliability (1 x 1 x h x w)."""
        image = torch.from_numpy(pixels).to(self.device).permute(2, 0, 1)[None].float() / 255
        grey = functional.instance_norm(image.mean(dim=1, keepdim=True))
        logits = self.network.keypoint_head(functional.pixel_unshuffle(grey, CELL))
        descriptors = self._pyramid(grey.to(self.precision).contiguous(memory_format=torch.channels_last))
        return descriptors.float(), logits, self.network.heatmap_head(descriptors).float()

    def _pyramid(self, grey: Tensor) -> Tensor:
        net = self.network
        half = net.block2(net.block1(grey) + net.skip1(grey))
        eighth = net.block3(half)
        sixteenth = net.block4(eighth)
        coarser = [sixteenth, net.block5(sixteenth)]
        size = eighth.shape[-2:]
        fused = eighth + sum(functional.interpolate(each, size, mode="bilinear") for each in coarser)
        descriptors: Tensor = net.block_fusion(fused)
        return descriptors


class XFeatDetector:
    """Finds and describes keypoints with XFeat.

    Args:
        state_dict: The published weights.
        device: Where to compute.
        precision: Number format of the convolutions; the scores are always computed in single precision.
        max_keypoints: Keep at most this many, the strongest.
        image_size: Longest side in pixels of what the network sees.
    """

    def __init__(
        self,
        state_dict: Mapping[str, Tensor],
        *,
        device: torch.device,
        precision: torch.dtype,
        max_keypoints: int,
        image_size: int,
    ) -> None:
        self.max_keypoints = max_keypoints
        self.image_size = image_size
        self.maps = XFeatMaps(state_dict, device=device, precision=precision)

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        """Features of each photo, in file pixels, strongest first."""
        return [self._extract(photo) for photo in photos]

    @torch.inference_mode()
    def _extract(self, photo: Photo) -> Features:
        pixels, frame = to_network(photo, self.image_size, SIDE_MULTIPLE)
        descriptors, logits, reliability = self.maps(pixels)
        keypoints, offsets, scores = self._detect(logits, reliability, frame)
        size = (pixels.shape[1], pixels.shape[0])
        sampled = _sample(functional.normalize(descriptors, dim=1), keypoints, size, "bicubic")
        return Features(
            keypoints=frame.to_file((keypoints + offsets).cpu().numpy()),
            scores=scores.cpu().numpy(),
            descriptors=functional.normalize(sampled, dim=1).cpu().numpy().astype(np.float16),
            scales=np.ones(len(scores), np.float32),
            size=photo.size,
        )

    def _detect(self, logits: Tensor, reliability: Tensor, frame: Frame) -> tuple[Tensor, Tensor, Tensor]:
        """Strongest local maxima of the keypoint map, the way from each to its summit, and their scores."""
        heat = keypoint_map(logits)[:, 0]
        contents = torch.tensor([frame.content], device=heat.device)
        maxima = find_maxima(heat, contents, SUPPRESSED_WITHIN, above=DETECTION_THRESHOLD)
        keypoints = maxima.places.float()
        trust = _sample(reliability, keypoints, (heat.shape[2], heat.shape[1]), "bilinear")[:, 0]
        scores = maxima.peaks * trust
        # The published code stops at whole pixels. A parabola through the logarithms, which is a bell through
        # the map, cuts the median error of matches on warped photos by a tenth.
        offsets = summit(maxima.windows.clamp(min=SMALLEST_LIKELIHOOD).log()).clamp(-0.5, 0.5)
        strongest = torch.argsort(scores, descending=True, stable=True)[: self.max_keypoints]
        return keypoints[strongest], offsets[strongest], scores[strongest]


class XFeatStarDetector:
    """Describes the most reliable cells of a photo at two scales: what XFeat* matches.

    A cell's position is its centre; the matcher moves it to the matched place within the cell.

    Args:
        state_dict: The published weights.
        device: Where to compute.
        precision: Number format of the network.
        max_keypoints: Cells kept, from both scales together.
        image_size: Longest side in pixels of the photo before the two scales are made of it.
    """

    def __init__(
        self,
        state_dict: Mapping[str, Tensor],
        *,
        device: torch.device,
        precision: torch.dtype,
        max_keypoints: int,
        image_size: int,
    ) -> None:
        self.device = device
        self.image_sizes = tuple(round(image_size * scale) for scale in STAR_SCALES)
        coarse = round(max_keypoints * STAR_SHARES[0])
        self.budgets = (coarse, max_keypoints - coarse)
        self.maps = XFeatMaps(state_dict, device=device, precision=precision)

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        """Cells of each photo, most reliable first; `scales` are file pixels per network pixel."""
        return [self._extract(photo) for photo in photos]

    @torch.inference_mode()
    def _extract(self, photo: Photo) -> Features:
        parts = [
            self._extract_at(photo, longest, budget)
            for longest, budget in zip(self.image_sizes, self.budgets, strict=True)
        ]
        scores = np.concatenate([part.scores for part in parts])
        merged = Features(
            keypoints=np.concatenate([part.keypoints for part in parts]),
            scores=scores,
            descriptors=np.concatenate([part.descriptors for part in parts]),
            scales=np.concatenate([part.scales for part in parts]),
            size=photo.size,
        )
        return merged.select(np.argsort(-scores, kind="stable"))

    def _extract_at(self, photo: Photo, longest: int, budget: int) -> Features:
        pixels, frame = to_network(photo, longest, SIDE_MULTIPLE)
        descriptors, _, reliability = self.maps(pixels)
        columns = descriptors.shape[-1]
        trust = reliability[0, 0].flatten().cpu().numpy()
        cells = np.argsort(-trust, kind="stable")
        centres = CELL * np.stack([cells % columns, cells // columns], axis=1) + (CELL - 1) / 2
        kept = frame.shows(centres)
        cells, centres = cells[kept][:budget], centres[kept][:budget]
        described = descriptors[0].flatten(1).T[torch.from_numpy(cells).to(self.device)]
        return Features(
            keypoints=frame.to_file(centres),
            scores=trust[cells],
            descriptors=described.cpu().numpy().astype(np.float16),
            scales=np.full(len(cells), 1 / frame.scale[0], np.float32),
            size=photo.size,
        )


class XFeatStarMatcher:
    """Matches cells that are each other's nearest and finds the exact place within the first photo's cell.

    Args:
        state_dict: The published weights of XFeat, which hold the refinement network.
        device: Where to compute.
        precision: Number format of the refinement network.
    """

    def __init__(
        self, state_dict: Mapping[str, Tensor], *, device: torch.device, precision: torch.dtype
    ) -> None:
        self.device = device
        self.precision = precision
        self.refiner = load_network(state_dict, device).fine_matcher

    def correspond(self, pairs: Sequence[FeaturePair]) -> list[Correspondences]:
        """Matched positions of each pair, in file pixels."""
        return [self._correspond(*pair) for pair in pairs]

    @torch.inference_mode()
    def _correspond(self, features0: Features, features1: Features) -> Correspondences:
        descriptors0 = torch.from_numpy(features0.descriptors).to(self.device).float()
        descriptors1 = torch.from_numpy(features1.descriptors).to(self.device).float()
        indices, _ = mutual_nearest(descriptors0, descriptors1)
        if not len(indices):
            return _no_correspondences()
        logits = self.refiner(torch.cat([descriptors0[indices[:, 0]], descriptors1[indices[:, 1]]], dim=1))
        likelihood = torch.softmax(SOFTMAX_SHARPNESS * logits, dim=1)
        confidence = likelihood.amax(dim=1)
        offsets = (likelihood @ _cell_offsets(self.device)).cpu().numpy()
        kept = (confidence > STAR_CONFIDENCE).cpu().numpy()
        first, second = indices.cpu().numpy()[kept].T
        moved = features0.keypoints[first] + offsets[kept] * features0.scales[first, None]
        return Correspondences(
            points0=moved.astype(np.float32),
            points1=features1.keypoints[second],
            scores=confidence.cpu().numpy()[kept],
        )


def _cell_offsets(device: torch.device) -> Tensor:
    """(x, y) of the refinement network's 8 x 8 classes, in network pixels from the cell's centre."""
    across = torch.arange(CELL, device=device, dtype=torch.float32) - UNMOVED_CLASS
    y, x = torch.meshgrid(across, across, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def _no_correspondences() -> Correspondences:
    nowhere = np.zeros((0, 2), np.float32)
    return Correspondences(nowhere, nowhere, np.zeros(0, np.float32))


def keypoint_map(logits: Tensor) -> Tensor:
    """Keypoint likelihood of each pixel, from the 8 x 8 + 1 classes of each cell (the last is "nowhere")."""
    return functional.pixel_shuffle(functional.softmax(logits.float(), dim=1)[:, : CELL * CELL], CELL)


def _sample(values: Tensor, points: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Values of a map (1 x c x h x w) at network pixels (n x 2): n x c.

    The weights were trained with positions divided by side - 1 but read between cell borders, which is kept.
    """
    sides = torch.tensor(size, device=points.device)
    grid = 2 * points / (sides - 1) - 1
    read = functional.grid_sample(values.float(), grid[None, None], mode=mode, align_corners=False)
    return read[0, :, 0].T
