"""ALIKED: keypoints from a score map, described by a deformable head (Zhao et al., TIM 2023).

The published network builds dense 128-channel features at full size and then reads them at a few thousand
places. Here the same weights are evaluated only where they are read: descriptors straight from the four
levels of the pyramid, the score head's first layer (it is linear) before the upsampling, not after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from kornia.feature import ALIKED
from torch import Tensor, nn
from torch.nn import functional

from gim_sfm.matchers.frame import ENLARGE_TO, Frame, to_network
from gim_sfm.matchers.maxima import find_maxima, summit
from gim_sfm.matchers.sampling import bilinear_taps, read_taps, table_of
from gim_sfm.types import Features, Photo

STRIDE = 32
RADIUS = 2
TEMPERATURE = 0.1
PIXELS_AT_ONCE = 2**16
KEYPOINTS_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution with the batch normalisation after it folded in."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, maps: Tensor) -> Tensor:
        """Feature maps of the same size."""
        return functional.conv2d(maps, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


@dataclass(frozen=True, slots=True)
class DeformableConvolution:
    """A 3x3 convolution that reads its nine inputs where another convolution tells it to."""

    offsets: Convolution
    weight: Tensor
    bias: Tensor | None

    def __call__(self, maps: Tensor) -> Tensor:
        """Feature maps of the same size."""
        batch, channels, height, width = maps.shape
        reach = max(height, width) / 4
        moved = (
            self.offsets(maps)
            .float()
            .clamp(-reach, reach)
            .permute(0, 2, 3, 1)
            .reshape(batch, height, width, 9, 2)
        )
        tap = torch.arange(9, device=maps.device)
        rows = torch.arange(height, device=maps.device)[:, None, None] + tap // 3 - 1
        columns = torch.arange(width, device=maps.device)[None, :, None] + tap % 3 - 1
        # The offset convolution names y before x.
        places = torch.stack([columns + moved[..., 1], rows + moved[..., 0]], dim=-1)
        photo = torch.arange(batch, device=maps.device).repeat_interleave(height * width * 9)
        taps = bilinear_taps(places.reshape(-1, 2), photo, (height, width))
        read = read_taps(table_of(maps), taps).to(maps.dtype).reshape(batch * height * width, 9 * channels)
        result = functional.linear(read, self.weight, self.bias)
        return result.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


Layer = Convolution | DeformableConvolution


def fold(layer: Any, norm: Any, precision: torch.dtype) -> Layer:
    """Fold the batch normalisation that follows a layer without bias into it."""
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = (norm.bias - norm.running_mean * gain).to(precision)
    if isinstance(layer, nn.Conv2d):
        return Convolution(_packed(layer.weight * gain[:, None, None, None], precision), bias)
    weight = (layer.regular_conv.weight * gain[:, None, None, None]).permute(0, 2, 3, 1).flatten(1)
    return DeformableConvolution(
        _as_is(layer.offset_conv, precision), weight.to(precision).contiguous(), bias
    )


def _as_is(layer: nn.Conv2d, precision: torch.dtype) -> Convolution:
    bias = None if layer.bias is None else layer.bias.to(precision)
    return Convolution(_packed(layer.weight, precision), bias)


def _packed(weight: Tensor, precision: torch.dtype) -> Tensor:
    return weight.to(precision).contiguous(memory_format=torch.channels_last)


def selu(maps: Tensor) -> Tensor:
    """The network's only activation, in place."""
    return functional.selu(maps, inplace=True)


class Backbone:
    """The four blocks of the pyramid: full size, a half, an eighth, a 32nd."""

    def __init__(self, network: Any, precision: torch.dtype) -> None:
        blocks = (network.block1, network.block2, network.block3, network.block4)
        self.layers = [(fold(b.conv1, b.bn1, precision), fold(b.conv2, b.bn2, precision)) for b in blocks]
        self.shortcuts = [_as_is(b.downsample, precision) for b in blocks[1:]]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Feature maps of the four levels; (batch, 3, height, width) in, sides whole multiples of 32."""
        first, second = self.layers[0]
        levels = [selu(second(selu(first(images))))]
        for (first, second), shortcut, step in zip(self.layers[1:], self.shortcuts, (2, 4, 4), strict=True):
            below = functional.avg_pool2d(levels[-1], step)
            levels.append(selu(second(selu(first(below))).add_(shortcut(below))))
        return levels


class ScoreHead:
    """How much each pixel is a keypoint, in single precision."""

    def __init__(self, network: Any, precision: torch.dtype) -> None:
        first, *rest = [layer for layer in network.score_head if isinstance(layer, nn.Conv2d)]
        self.parts = [part.flatten(1) for part in first.weight.chunk(4, dim=1)]
        self.rest = [_as_is(layer, torch.float32) for layer in rest]
        self.finest = network.conv1.weight.flatten(1).to(precision)
        self.precision = precision

    def __call__(self, finest: Tensor, coarser: Sequence[Tensor]) -> Tensor:
        """Logits of the scores, (batch, height, width).

        Args:
            finest: The backbone's full-size level, before its 1x1 layer.
            coarser: The other levels, after theirs.
        """
        batch, channels, height, width = finest.shape
        pixels = finest.permute(0, 2, 3, 1).reshape(-1, channels)
        part = self.parts[0].to(self.precision)
        # In pieces that stay in the cache and that the allocator can reuse.
        pieces = [
            functional.linear(selu(functional.linear(piece, self.finest)), part)
            for piece in torch.split(pixels, PIXELS_AT_ONCE)
        ]
        total = torch.cat(pieces).float().reshape(batch, height, width, -1).permute(0, 3, 1, 2)
        for level, weight in zip(coarser, self.parts[1:], strict=True):
            low = functional.conv2d(level.float(), weight[:, :, None, None])
            total += functional.interpolate(low, size=(height, width), mode="bilinear", align_corners=True)
        for layer in self.rest:
            total = layer(selu(total))
        return total[:, 0]


@dataclass(frozen=True, slots=True)
class Found:
    """Keypoints of a batch.

    Attributes:
        places: (x, y) in pixels of the network's input, (n, 2).
        anchors: Where the published network puts them, and so where their descriptors are read, (n, 2).
        scores: (n,).
        photo: Which photo of the batch, (n,).
    """

    places: Tensor
    anchors: Tensor
    scores: Tensor
    photo: Tensor


def detect(logits: Tensor, contents: Tensor, most: int) -> Found:
    """The strongest strict maxima of score maps.

    The published network moves a maximum to the centre of mass of the scores around it. The summit of a
    parabola through the logits is closer to the truth: median epipolar distances are a tenth smaller.

    Args:
        logits: Score maps before the sigmoid, (batch, height, width).
        contents: (width, height) of each input that shows the photo, (batch, 2).
        most: Keep at most this many a photo.
    """
    maxima = find_maxima(logits, contents, RADIUS, above=-torch.inf).strongest(most)
    scores = torch.sigmoid(maxima.windows)
    share = functional.softmax(scores / TEMPERATURE, dim=1)
    step = torch.arange(-RADIUS, RADIUS + 1, device=logits.device, dtype=logits.dtype)
    grid = torch.stack([step.repeat(len(step)), step.repeat_interleave(len(step))], dim=1)
    return Found(
        places=maxima.places + summit(maxima.windows),
        anchors=maxima.places + share @ grid,
        scores=torch.sigmoid(maxima.peaks),
        photo=maxima.photo,
    )


class DescriptorHead:
    """The deformable descriptor head, reading the pyramid only where it must."""

    def __init__(self, network: Any, precision: torch.dtype) -> None:
        head = network.desc_head
        self.precision = precision
        self.positions = head.n_pos
        self.finest = network.conv1.weight.flatten(1)
        first, _, second = head.offset_conv
        self.offset_weights = (first.weight.permute(0, 2, 3, 1).flatten(1), second.weight.flatten(1))
        self.offset_biases = (first.bias, second.bias)
        self.mixing = head.sf_conv.weight.flatten(1).to(precision)
        self.gathering = head.agg_weights.flatten(0, 1).to(precision)

    def __call__(self, finest: Tensor, coarser: Sequence[Tensor], found: Found) -> Tensor:
        """Unit descriptors, (n, 128); arguments as in `ScoreHead`."""
        pyramid = Pyramid(finest, coarser, self.finest)
        pieces = zip(
            torch.split(found.anchors, KEYPOINTS_AT_ONCE),
            torch.split(found.photo, KEYPOINTS_AT_ONCE),
            strict=True,
        )
        return torch.cat([self._describe(pyramid, *piece) for piece in pieces])

    def _describe(self, pyramid: "Pyramid", places: Tensor, photo: Tensor) -> Tensor:
        reads = places[:, None] + self._offsets(pyramid, places, photo)
        read = pyramid.between(reads.reshape(-1, 2), photo.repeat_interleave(self.positions))
        mixed = selu(functional.linear(read.to(self.precision), self.mixing)).reshape(len(places), -1)
        return functional.normalize((mixed @ self.gathering).float(), dim=1)

    def _offsets(self, pyramid: "Pyramid", places: Tensor, photo: Tensor) -> Tensor:
        """Where to read relative to each keypoint, from the 3x3 pixels around it, (n, positions, 2)."""
        height, width = pyramid.shape
        step = torch.arange(3, device=places.device)
        limit = torch.tensor([width - 4, height - 4], device=places.device)
        corner = torch.minimum((places.long() - 1).clamp(min=0), limit)
        x = (corner[:, :1] + step.repeat(3)).flatten()
        y = (corner[:, 1:] + step.repeat_interleave(3)).flatten()
        patch = pyramid.at(x, y, photo.repeat_interleave(9)).reshape(len(places), -1)
        hidden = selu(functional.linear(patch, self.offset_weights[0], self.offset_biases[0]))
        reach = max(height, width) / 4
        offsets = functional.linear(hidden, self.offset_weights[1], self.offset_biases[1]).clamp(
            -reach, reach
        )
        return offsets.reshape(len(places), 2, self.positions).transpose(1, 2)


class Pyramid:
    """Unit feature vectors at chosen pixels of the full size, without ever building the dense map."""

    def __init__(self, finest: Tensor, coarser: Sequence[Tensor], weight: Tensor) -> None:
        self.shape = (finest.shape[2], finest.shape[3])
        self.finest = finest.permute(0, 2, 3, 1).reshape(-1, finest.shape[1])
        self.weight = weight
        self.coarser = [(table_of(level), (level.shape[2], level.shape[3])) for level in coarser]

    def at(self, x: Tensor, y: Tensor, photo: Tensor) -> Tensor:
        """Unit features of whole pixels, (n, 128)."""
        height, width = self.shape
        rows = (photo * height + y) * width + x
        parts = [selu(functional.linear(functional.embedding(rows, self.finest).float(), self.weight))]
        for table, (low_height, low_width) in self.coarser:
            # The upsampling lays corner pixels on corner pixels.
            ratio = torch.tensor(
                [(low_width - 1) / (width - 1), (low_height - 1) / (height - 1)], device=x.device
            )
            taps = bilinear_taps(torch.stack([x, y], dim=1) * ratio, photo, (low_height, low_width))
            parts.append(read_taps(table, taps))
        return functional.normalize(torch.cat(parts, dim=1), dim=1)

    def between(self, places: Tensor, photo: Tensor) -> Tensor:
        """Features between pixels: the unit features of the four pixels around, interpolated, (n, 128)."""
        height, width = self.shape
        taps = bilinear_taps(places, photo, self.shape)
        rows = taps.rows.flatten()
        corners = self.at(rows % width, rows // width % height, photo.repeat_interleave(4))
        return torch.bmm(taps.weights[:, None], corners.reshape(len(places), 4, -1))[:, 0]


class AlikedDetector:
    """Finds and describes keypoints with ALIKED-n16.

    Args:
        state_dict: The published weights.
        device: Where to compute.
        precision: Number format of the backbone; the scores are always computed in single precision.
        max_keypoints: Keep at most this many a photo, the strongest.
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
        self.device = device
        self.precision = precision
        self.max_keypoints = max_keypoints
        self.image_size = image_size
        with torch.inference_mode():
            network = load_network(state_dict).to(device)
            self.backbone = Backbone(network, precision)
            self.narrow = [
                _as_is(layer, precision) for layer in (network.conv2, network.conv3, network.conv4)
            ]
            self.score_head = ScoreHead(network, precision)
            self.descriptor_head = DescriptorHead(network, precision)

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        """Features of each photo, in file pixels, strongest first."""
        inputs = [to_network(photo, self.image_size, STRIDE, enlarge_to=ENLARGE_TO) for photo in photos]
        if self.device.type == "cpu":  # which gains nothing from batches
            return [features for entry in inputs for features in self._extract([entry])]
        alike = groupby(inputs, key=lambda entry: entry[0].shape)
        return [features for _, group in alike for features in self._extract(list(group))]

    @torch.inference_mode()
    def _extract(self, inputs: list[tuple[np.ndarray, Frame]]) -> list[Features]:
        images = torch.from_numpy(np.stack([pixels for pixels, _ in inputs])).to(self.device)
        images = images.permute(0, 3, 1, 2).to(self.precision) / 255
        finest, *coarser = self.backbone(images)
        coarser = [selu(layer(level)) for layer, level in zip(self.narrow, coarser, strict=True)]
        contents = torch.tensor([frame.content for _, frame in inputs], device=self.device)
        found = detect(self.score_head(finest, coarser), contents, self.max_keypoints)
        descriptors = self.descriptor_head(finest, coarser, found)
        mine = [found.photo == index for index in range(len(inputs))]
        return [
            self._features(frame, found.places[own], found.scores[own], descriptors[own])
            for own, (_, frame) in zip(mine, inputs, strict=True)
        ]

    def _features(self, frame: Frame, places: Tensor, scores: Tensor, descriptors: Tensor) -> Features:
        return Features(
            keypoints=frame.to_file(places.cpu().numpy()),
            scores=scores.cpu().numpy(),
            descriptors=descriptors.half().cpu().numpy(),
            scales=np.ones(len(places), np.float32),
            size=frame.size,
        )


def load_network(state_dict: Mapping[str, Tensor]) -> Any:
    """Kornia's ALIKED-n16 with the published weights; an untyped module."""
    network: Any = ALIKED("aliked-n16")
    weights = dict(state_dict)
    weights.setdefault("dkd.hw_grid", network.dkd.hw_grid)
    network.load_state_dict(weights)
    return network.eval()
