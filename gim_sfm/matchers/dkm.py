"""DKM and GIM-DKM: where every pixel of one photo lies in another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gim_sfm.matchers.networks.dkm import load_dkm
from gim_sfm.matchers.warping import (
    Canvas,
    PairWarper,
    TwoWay,
    find_black,
    pair_up,
    put_on_canvas,
    scale_sides,
    settle,
    show,
)
from gim_sfm.types import Photo

STRIDE = 32


@dataclass(frozen=True, slots=True)
class Flavour:
    """How one set of weights wants photos to be shown.

    Attributes:
        low: (height, width) at which the whole is looked for.
        high: (height, width) of the result.
        aspect: Photos are padded with black to this width divided by height; None: they are stretched.
        multiple: Photos are cut to whole multiples of this before.
        smooth: Whether photos are resized by bicubic filtering with averaging, as by Pillow, or bilinearly
            without, as by OpenCV.
        mean: Subtracted from the channels.
        deviation: The channels are divided by it afterwards.
    """

    low: tuple[int, int]
    high: tuple[int, int]
    aspect: float | None
    multiple: int
    smooth: bool
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def scale(self, image_size: int | None) -> "Flavour":
        """The same with this longer side of `low`, all sides whole multiples of the network's stride."""
        if image_size is None or image_size == max(self.low):
            return self
        factor = image_size / max(self.low)
        low, high = (scale_sides(size, factor, STRIDE) for size in (self.low, self.high))
        return replace(self, low=low, high=high)


GIM_DKM = Flavour(low=(672, 896), high=(1152, 1536), aspect=896 / 672, multiple=8, smooth=False)
DKM = Flavour(
    low=(540, 720),
    high=(864, 1152),
    aspect=None,
    multiple=1,
    smooth=True,
    mean=(0.485, 0.456, 0.406),
    deviation=(0.229, 0.224, 0.225),
)


class DkmMatcher(PairWarper):
    """Matches two photos densely.

    Args:
        state_dict: Published weights.
        device: Where to compute.
        precision: Number format of the refiners, which take nearly all of the time.
        image_size: Longer side in pixels at which the whole is looked for; the result is as much finer as in
            the flavour. None for the flavour's own.
        samples: Most correspondences of a pair.
        flavour: Which weights they are.
        share_inverse: Compute the way back with a mistake of the published code, to compare with it.

    Raises:
        RuntimeError: Parameters are missing or unknown.
    """

    def __init__(
        self,
        state_dict: Mapping[str, Tensor],
        *,
        device: torch.device,
        precision: torch.dtype,
        image_size: int | None = None,
        samples: int = 5000,
        flavour: Flavour = GIM_DKM,
        share_inverse: bool = False,
    ) -> None:
        super().__init__(device=device, samples=samples)
        self.flavour = flavour.scale(image_size)
        self.network = load_dkm(state_dict, device=device, precision=precision, share_inverse=share_inverse)

    def place(self, photo: Photo) -> Canvas:
        """The canvas on which the network is shown a photo."""
        finest = max(self.flavour.low, self.flavour.high)
        return put_on_canvas(photo, finest, aspect=self.flavour.aspect, multiple=self.flavour.multiple)

    def relate(self, pairs: Sequence[tuple[Canvas, Canvas]]) -> list[TwoWay]:
        """What the network finds out about pairs shown to it together."""
        shown = [pair[0].pixels.to(self.device) for pair in pairs]
        shown += [pair[1].pixels.to(self.device) for pair in pairs]
        low, high = (self._prepare(shown, size) for size in (self.flavour.low, self.flavour.high))
        first, second = self.network(low, high)
        last = second["1"]
        return pair_up(*settle(last.flow, last.logits, first["16"].logits, self._black(shown)))

    def _prepare(self, shown: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """The network's input at a (height, width), (b, 3, height, width)."""
        flavour = self.flavour
        images = [
            show(pixels, size, smooth=flavour.smooth, mean=flavour.mean, deviation=flavour.deviation)
            for pixels in shown
        ]
        return torch.cat(images)

    def _black(self, shown: Sequence[Tensor]) -> Tensor | None:
        if self.flavour.aspect is None:
            return None
        return torch.stack([find_black(pixels, self.flavour.high) for pixels in shown])
