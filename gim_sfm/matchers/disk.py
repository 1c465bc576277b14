"""DISK: keypoints and descriptors learned by policy gradient (Tyszkiewicz et al., NeurIPS 2020).

Nine tenths of the published network's work go into the last layer's 128 descriptor channels at every pixel.
Here that layer gives one channel, the scores, everywhere and the descriptors at the keypoints alone; the
weights are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from kornia.feature import DISK
from torch import Tensor, nn
from torch.nn import functional

from gim_sfm.matchers.frame import ENLARGE_TO, Frame, to_network
from gim_sfm.matchers.maxima import find_maxima, window_steps
from gim_sfm.types import Features, Photo

STRIDE = 16
RADIUS = 2
ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Gate:
    """Instance normalisation and a leaky rectifier with learned slopes."""

    slope: Tensor
    epsilon: float

    def __call__(self, maps: Tensor) -> Tensor:
        """Feature maps of one photo, (1, channels, height, width)."""
        # For a single photo the statistics of a batch are those of an instance, and their routine is faster.
        scaled = functional.batch_norm(maps, None, None, training=True, eps=self.epsilon)
        return functional.prelu(scaled, self.slope)


@dataclass(frozen=True, slots=True)
class Block:
    """Gate and convolution; the first block of the network has no gate."""

    gate: Gate | None
    weight: Tensor
    bias: Tensor

    def __call__(self, maps: Tensor) -> Tensor:
        """Feature maps of the same size."""
        return functional.conv2d(self.gate(maps) if self.gate else maps, self.weight, self.bias, padding=2)


def block_of(layers: Any, precision: torch.dtype) -> Block:
    """One block of kornia's network in another number format."""
    norm, slopes, _, convolution = layers
    gate = Gate(slopes.weight.to(precision), norm.eps) if isinstance(slopes, nn.PReLU) else None
    weight = convolution.weight.to(precision).contiguous(memory_format=torch.channels_last)
    return Block(gate, weight, convolution.bias.to(precision))


class DiskDetector:
    """Finds and describes keypoints with DISK.

    Args:
        state_dict: The published weights.
        device: Where to compute.
        precision: Number format of the network; the scores are added up in single precision.
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
        network: Any = DISK()
        network.load_state_dict(dict(state_dict))
        with torch.inference_mode():
            unet = network.to(device).unet
            self.down = [block_of(block[1], precision) for block in unet.path_down]
            *up, last = [block_of(block.conv, precision) for block in unet.path_up]
            self.up, self.last = up, last

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        """Features of each photo, in file pixels, strongest first."""
        features = []
        for photo in photos:
            pixels, frame = to_network(photo, self.image_size, STRIDE, enlarge_to=ENLARGE_TO)
            features.append(self._extract(pixels, frame))
        return features

    @torch.inference_mode()
    def _extract(self, pixels: np.ndarray, frame: Frame) -> Features:
        image = torch.from_numpy(pixels).to(self.device)[None].permute(0, 3, 1, 2).to(self.precision) / 255
        maps = self._gated(image)
        contents = torch.tensor([frame.content], device=self.device)
        maxima = find_maxima(self._scores(maps)[None], contents, RADIUS, above=0.0).strongest(
            self.max_keypoints
        )
        return Features(
            keypoints=frame.to_file(maxima.places.cpu().numpy()),
            scores=maxima.peaks.cpu().numpy(),
            descriptors=self._describe(maps, maxima.x, maxima.y).half().cpu().numpy(),
            scales=np.ones(len(maxima.x), np.float32),
            size=frame.size,
        )

    def _gated(self, image: Tensor) -> Tensor:
        """What the last layer reads, (1, channels, height, width)."""
        levels = [self.down[0](image)]
        for block in self.down[1:]:
            levels.append(block(functional.avg_pool2d(levels[-1], 2)))
        maps = levels.pop()
        for block in self.up:
            maps = block(_beside(maps, levels.pop()))
        assert self.last.gate is not None
        return self.last.gate(_beside(maps, levels.pop()))

    def _scores(self, maps: Tensor) -> Tensor:
        """The score channel of the last layer, (height, width)."""
        channels, height, width = maps.shape[1:]
        # One output channel suits no convolution routine: 25 products a pixel, then 25 shifted sums.
        taps = self.last.weight[-1].permute(1, 2, 0).reshape(-1, channels)
        pixels = maps[0].permute(1, 2, 0)
        size = self.last.weight.shape[-1]
        total = torch.zeros(height + size - 1, width + size - 1, device=maps.device)
        for top in range(0, height, ROWS_AT_ONCE):
            rows = pixels[top : top + ROWS_AT_ONCE]
            products = (taps @ rows.reshape(-1, channels).T).float().reshape(-1, len(rows), width)
            for index, product in enumerate(products):
                y, x = size - 1 - index // size, size - 1 - index % size
                total[top + y : top + y + len(rows), x : x + width] += product
        return (
            total[size // 2 : size // 2 + height, size // 2 : size // 2 + width] + self.last.bias[-1].float()
        )

    def _describe(self, maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Unit descriptors at whole pixels, (n, 128); `RADIUS` pixels from the border or farther."""
        channels, _, width = maps.shape[1:]
        pixels = maps[0].permute(1, 2, 0).reshape(-1, channels)
        around = window_steps(RADIUS, width, maps.device)
        read = pixels[(y * width + x)[:, None] + around].reshape(len(x), -1)
        weight = self.last.weight[:-1].permute(0, 2, 3, 1).flatten(1)
        return functional.normalize(functional.linear(read, weight, self.last.bias[:-1]).float(), dim=1)


def _beside(coarse: Tensor, fine: Tensor) -> Tensor:
    """The coarse level at twice its size, and the fine one beside it."""
    return torch.cat(
        [functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False), fine], dim=1
    )
