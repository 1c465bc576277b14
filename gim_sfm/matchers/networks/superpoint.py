"""SuperPoint's convolutions (DeTone et al., CVPRW 2018), written from what is known of their shapes."""

import torch
from torch import Tensor, nn
from torch.nn import functional

CELL = 8
"""Pixels of the input to a side of one cell of the maps."""
WIDTHS = (64, 64, 128, 128)
HEAD_WIDTH = 256
DESCRIPTOR_WIDTH = 256
ROWS_AT_ONCE = 64
"""Of the input, in the first block; its maps are 64 times as large as the input."""


def _convolution(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2)


class SuperPoint(nn.Module):
    """A trunk of four blocks with a head for keypoints and one for descriptors.

    Parameters keep the published names: `conv1a` to `conv4b`, `convPa`, `convPb`, `convDa`, `convDb`.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = 1
        for block, width in enumerate(WIDTHS, start=1):
            self.add_module(f"conv{block}a", _convolution(inputs, width))
            self.add_module(f"conv{block}b", _convolution(width, width))
            inputs = width
        self.convPa = _convolution(inputs, HEAD_WIDTH)
        self.convPb = _convolution(HEAD_WIDTH, CELL * CELL + 1, size=1)
        self.convDa = _convolution(inputs, HEAD_WIDTH)
        self.convDb = _convolution(HEAD_WIDTH, DESCRIPTOR_WIDTH, size=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What both heads give for grey images.

        Args:
            images: (b, 1, height, width) in [0, 1], in the number format of the trunk.

        Returns:
            Logits of the pixels of every cell, row by row, then of there being none, (b, 65, height / 8,
            width / 8), and descriptors before any normalisation, (b, 256, height / 8, width / 8). Both in
            the number format of the heads' last layers.
        """
        maps = self._begin(images)
        for block in range(2, len(WIDTHS)):
            maps = functional.max_pool2d(self._block(block, maps), 2)
        maps = self._block(len(WIDTHS), maps)
        keypoints, descriptors = self._rectified(self.convPa, maps), self._rectified(self.convDa, maps)
        logits: Tensor = self.convPb(keypoints.to(self.convPb.weight.dtype))
        return logits, self.convDb(descriptors.to(self.convDb.weight.dtype))

    def _begin(self, images: Tensor) -> Tensor:
        """The first block and its pooling, on a processor in strips that stay in the cache."""
        height = images.shape[2]
        strip = ROWS_AT_ONCE if images.device.type == "cpu" else height
        halo = 2  # rows that two 3x3 convolutions see beyond the strip
        pooled = []
        for top in range(0, height, strip):
            first = max(0, top - halo)
            maps = self._block(1, images[:, :, first : top + strip + halo])
            pooled.append(functional.max_pool2d(maps[:, :, top - first :][:, :, :strip], 2))
        return torch.cat(pooled, dim=2)

    def _block(self, block: int, maps: Tensor) -> Tensor:
        for layer in "ab":
            maps = self._rectified(self.get_submodule(f"conv{block}{layer}"), maps)
        return maps

    @staticmethod
    def _rectified(layer: nn.Module, maps: Tensor) -> Tensor:
        return functional.relu_(layer(maps))
