"""RoMa: a dense matcher that knows photos by DINOv2, as its authors and as the GIM project trained it.

GIM's weights see the photo unchanged on a black square, at 672 and then 1344 pixels; the authors' see it
stretched to a square of 560 and then 864 pixels, with ImageNet's mean and spread taken out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from gim_sfm.matchers.networks.roma import PATCH, POOLED, Encoding, Roma
from gim_sfm.matchers.warping import (
    Canvas,
    Field,
    PairWarper,
    TwoWay,
    find_black,
    put_on_canvas,
    scale_sides,
    settle,
    show,
)
from gim_sfm.types import Photo

Source = TypeVar("Source")
Product = TypeVar("Product")

SIDES_MULTIPLE = PATCH * POOLED // 2
"""The least common multiple of both: at other sides the two trunks' maps would not lie over each other."""

REMEMBERED = 2
"""Photos whose encoding is kept for the next pair; pairs of one first photo come in a row."""


@dataclass(frozen=True, slots=True)
class Flavour:
    """How a set of weights wants to be shown photos.

    Attributes:
        enlargement: The high resolution's side divided by the low one's.
        aspect: Of the black canvas that photos are put on; None: they are stretched.
        hides_black: Whether nothing black is matched, as padding is black.
        trained_at: Side in pixels at which displacements have the scale factor 1; None: the low resolution's,
            whatever it is.
        mean: Of the colours, taken off.
        spread: Of the colours, divided by.
        smooth: Whether photos are resized as by Pillow, bicubic and without aliasing, or else bilinear.
    """

    enlargement: float = 2.0
    aspect: float | None = 1.0
    hides_black: bool = True
    trained_at: int | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    spread: tuple[float, float, float] = (1.0, 1.0, 1.0)
    smooth: bool = False

    def resize(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """The network's input of (height, width), (1, 3, height, width), from a canvas (3, H, W)."""
        return show(pixels, size, smooth=self.smooth, mean=self.mean, deviation=self.spread)


GIM_ROMA = Flavour()
ROMA = Flavour(
    enlargement=864 / 560,
    aspect=None,
    hides_black=False,
    trained_at=560,
    mean=(0.485, 0.456, 0.406),
    spread=(0.229, 0.224, 0.225),
    smooth=True,
)


class Memory(Generic[Source, Product]):
    """Remembers what was made of the last few objects; the very same object is not worked on again.

    Args:
        make: Makes something of an object.
        most: How many products are kept.
    """

    def __init__(self, make: Callable[[Source], Product], most: int) -> None:
        self.make = make
        self.most = most
        self.made: list[tuple[Source, Product]] = []

    def __call__(self, source: Source) -> Product:
        """What is made of this object."""
        known = [entry for entry in self.made if entry[0] is source]
        self.made = [entry for entry in self.made if entry[0] is not source]
        if not known:
            del self.made[: max(0, len(self.made) + 1 - self.most)]  # first, so that room is free for the new
            known = [(source, self.make(source))]
        self.made += known
        return known[0][1]


class RomaMatcher(PairWarper):
    """Matches photos with RoMa (Edstedt et al., CVPR 2024) or GIM-RoMa (Shen et al., ICLR 2024).

    Args:
        state_dict: Published weights of RoMa or GIM-RoMa.
        dinov2_state_dict: Published weights of DINOv2 ViT-L/14, which neither of them holds.
        device: Where to compute.
        precision: Number format of most of the network.
        image_size: Side in pixels of the low resolution, rounded to whole multiples of `SIDES_MULTIPLE`.
        samples: Most correspondences of a pair.
        flavour: How these weights want to be shown photos.

    Raises:
        SettingsError: The package romatch is not installed.
        RuntimeError: Parameters are missing, unexpected or of another shape.
    """

    def __init__(
        self,
        state_dict: Mapping[str, Tensor],
        dinov2_state_dict: Mapping[str, Tensor],
        *,
        device: torch.device,
        precision: torch.dtype,
        image_size: int = 672,
        samples: int = 5000,
        flavour: Flavour = GIM_ROMA,
    ) -> None:
        # Samples like the published ones need half precision, in which a processor takes twice as long.
        super().__init__(device=device, samples=samples, half_density=device.type != "cpu")
        self.flavour = flavour
        self.low = scale_sides((image_size, image_size), 1, SIDES_MULTIPLE)
        self.high = scale_sides(self.low, flavour.enlargement, POOLED)
        unit = flavour.trained_at or self.low[0]
        self.zooms = self.low[0] / unit, self.high[0] / unit
        self.network = Roma(state_dict, dinov2_state_dict, device=device, precision=precision)
        self.canvas_of = Memory(self._put_on_canvas, REMEMBERED)
        self.encoding_of = Memory(self._encode, REMEMBERED)

    def place(self, photo: Photo) -> Canvas:
        """The canvas on which the network is shown a photo."""
        return self.canvas_of(photo)

    def relate(self, pairs: Sequence[tuple[Canvas, Canvas]]) -> list[TwoWay]:
        """What the network finds out about pairs, each by itself."""
        return [
            TwoWay(there=self._look_for(first, second), back=self._look_for(second, first))
            for first, second in pairs
        ]

    def _put_on_canvas(self, photo: Photo) -> Canvas:
        multiple = 1 if self.flavour.aspect is None else 8
        return put_on_canvas(photo, self.high, aspect=self.flavour.aspect, multiple=multiple)

    def _encode(self, canvas: Canvas) -> Encoding:
        low, high = (self.flavour.resize(canvas.pixels, size) for size in (self.low, self.high))
        return self.network.encode(low, high)

    def _look_for(self, own: Canvas, other: Canvas) -> Field:
        """Where the pixels of one canvas lie in the other."""
        found = self.network.relate(self.encoding_of(own), self.encoding_of(other), self.zooms)
        black = find_black(own.pixels, self.high)[None].to(self.device) if self.flavour.hides_black else None
        places, certainty = settle(found.final.flow, found.final.logits, found.doubt, black)
        return Field(places[0], certainty[0])
