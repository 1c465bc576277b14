"""What dense matchers share outside their networks: from a pair of photos to its two warps and samples.

The networks see a photo on a canvas and give normalised places: -1 is the left or upper edge of the canvas
(not the centre of its first pixel), 1 the right or lower one. Everything that leaves this file is in file
pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from gim_sfm.matchers.contract import PhotoPair
from gim_sfm.matchers.frame import Frame, fit, pad_to_aspect
from gim_sfm.matchers.networks.correlation import pixel_centres
from gim_sfm.types import Correspondences, Photo
from gim_sfm.warps import Warp

BLACK = 1 / 32
"""A pixel is black where no channel reaches this; black pixels are taken for padding."""

SURE = 0.05
"""All certainties above this are sampled alike."""

DENSITY_SPREAD = 0.1
"""Standard deviation in normalised coordinates of the kernel that tells how densely samples lie."""

CANDIDATES_A_SAMPLE = 4
ROWS_AT_ONCE = 256
SEED = 0
"""Every pair is sampled from this seed, so that its result depends on nothing but the pair."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """A photo as a dense matcher is shown it.

    Attributes:
        pixels: RGB in [0, 1], single precision, (3, height, width), on the processor.
        frame: The photo's place in it.
    """

    pixels: Tensor
    frame: Frame

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) with the padding."""
        return self.pixels.shape[2], self.pixels.shape[1]

    def denormalise(self, places: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Pixels of the canvas, the first pixel's centre at (0, 0), of normalised places."""
        edges: np.ndarray = (np.asarray(places, np.float64) + 1) / 2 * self.size
        return edges - 0.5


@dataclass(frozen=True, slots=True)
class Field:
    """Where the pixels of one canvas lie in another.

    Attributes:
        places: (x, y), normalised to the other canvas, (h, w, 2).
        certainty: From 0 to 1, (h, w).
    """

    places: Tensor
    certainty: Tensor


@dataclass(frozen=True, slots=True)
class TwoWay:
    """What a network finds out about a pair: the way there, from A to B, and the way back."""

    there: Field
    back: Field

    def matches(self) -> tuple[Tensor, Tensor]:
        """Every pixel of both canvases with its place: (x, y) in A and in B, (h, 2 w, 4), and certainty.

        In the layout of the published code, the way there beside the way back, on which its samples depend.
        """
        grid = pixel_centres(self.there.certainty)[0].permute(1, 2, 0)
        there = torch.cat([grid, self.there.places], dim=-1)
        back = torch.cat([self.back.places, grid], dim=-1)
        certainty = torch.cat([self.there.certainty, self.back.certainty], dim=1)
        return torch.cat([there, back], dim=1), certainty


def scale_sides(size: tuple[int, int], factor: float, multiple: int) -> tuple[int, int]:
    """A (height, width) times a factor, both rounded to whole multiples, at least one."""
    height, width = (max(1, round(side * factor / multiple)) * multiple for side in size)
    return height, width


def put_on_canvas(photo: Photo, size: tuple[int, int], *, aspect: float | None, multiple: int = 8) -> Canvas:
    """What of a photo a network shall see; its resolution may be anything, as the network resizes it.

    Large photos are shrunk by averaging areas to about what the network can see; none is enlarged.

    Args:
        photo: What was decoded.
        size: (height, width) of the network's finest input.
        aspect: Pad with black to this width divided by height; None: the network will stretch the photo.
        multiple: The photo's sides are cut to whole multiples of this.

    Raises:
        InputError: The photo has no pixels.
    """
    longest = max(size) if aspect is not None else _longest_to_cover(photo, size)
    pixels, frame = fit(photo, longest, multiple)
    if aspect is not None:
        pixels, frame = pad_to_aspect(pixels, frame, aspect)
    return Canvas(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), frame)


def _longest_to_cover(photo: Photo, size: tuple[int, int]) -> int:
    """Longest side at which no side of a photo is shorter than the network's."""
    height, width = photo.pixels.shape[:2]
    if not height or not width:
        return 1  # `fit` tells what is wrong
    longest: float = max(size[0] / height, size[1] / width) * max(height, width)
    return ceil(longest)


def show(
    pixels: Tensor,
    size: tuple[int, int],
    *,
    smooth: bool,
    mean: Sequence[float],
    deviation: Sequence[float],
) -> Tensor:
    """What a network is shown of a canvas.

    Args:
        pixels: RGB in [0, 1], (3, H, W).
        size: (height, width) of the network's input.
        smooth: Resize by bicubic filtering with averaging, as by Pillow, or bilinearly without, as by OpenCV.
        mean: Subtracted from the channels.
        deviation: The channels are divided by it afterwards.

    Returns:
        (1, 3, height, width).
    """
    if smooth:
        images = functional.interpolate(pixels[None], size, mode="bicubic", antialias=True).clamp(0, 1)
    else:
        images = functional.interpolate(pixels[None], size, mode="bilinear", align_corners=False)
    centre, spread = (torch.tensor(row, device=pixels.device)[:, None, None] for row in (mean, deviation))
    return (images - centre) / spread


def find_black(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Where a canvas, (3, H, W), is black, read at the nearest pixels of a grid of this (height, width)."""
    black = (pixels < BLACK).all(dim=0)
    return functional.interpolate(black[None, None].float(), size=size, mode="nearest")[0, 0] > 0


def settle(flow: Tensor, logits: Tensor, doubt: Tensor, black: Tensor | None) -> tuple[Tensor, Tensor]:
    """Places and certainties from what the last scale of a network gives.

    Args:
        flow: (x, y) normalised, (b, 2, h, w).
        logits: Of the certainty, (b, 1, h, w).
        doubt: Logits of a coarse scale, (b, 1, any, any). Where they are negative, half of them is taken off
            the fine ones, as the published code does.
        black: Pixels that show nothing, (b, h, w); None: all show something.

    Returns:
        Places, clamped to the canvas, (b, h, w, 2), and certainties, (b, h, w), 0 where the place was beyond
        the canvas or no number, or the pixel is black.
    """
    doubt = functional.interpolate(doubt, size=logits.shape[-2:], mode="bilinear", align_corners=False)
    certainty = torch.sigmoid(logits - 0.5 * doubt.clamp(max=0))[:, 0]
    sound = flow.isfinite().all(dim=1) & certainty.isfinite() & (flow.abs() <= 1).all(dim=1)
    certainty = torch.where(sound, certainty, 0)
    if black is not None:
        certainty = certainty.masked_fill(black, 0)
    return flow.nan_to_num(0).clamp(-1, 1).permute(0, 2, 3, 1), certainty


def pair_up(places: Tensor, certainty: Tensor) -> list[TwoWay]:
    """Takes a batch apart whose first half are the ways there and whose second half the ways back."""
    fields = [Field(*one) for one in zip(places, certainty, strict=True)]
    half = len(fields) // 2
    return [TwoWay(*both) for both in zip(fields[:half], fields[half:], strict=True)]


def sample_balanced(
    matches: Tensor,
    certainty: Tensor,
    count: int,
    *,
    generator: torch.Generator | None = None,
    half_density: bool = False,
) -> tuple[Tensor, Tensor]:
    """Draws matches, the certain ones first, so that they lie about evenly in both photos.

    Four times as many as wanted are drawn by their certainty; of these, each is kept with a probability
    that falls with the number of others around it. Lonely ones are likely wrong and kept last.

    Args:
        matches: Normalised (x, y) in A and in B, (n, 4).
        certainty: (n,), at least 0.
        count: At most this many.
        generator: Where the chance comes from; None for torch's global one.
        half_density: Count neighbours in half precision, as the published RoMa does.

    Returns:
        The chosen matches, (m, 4), and their certainties, (m,); none where nothing is certain at all.
    """
    weights = torch.where(certainty > SURE, 1.0, certainty)
    if not weights.any():
        return matches[:0], certainty[:0]
    most = min(CANDIDATES_A_SAMPLE * count, len(matches))
    drawn = torch.multinomial(weights, most, generator=generator)
    density = count_neighbours(matches[drawn].half() if half_density else matches[drawn])
    rarity = 1 / (density + 1)
    rarity[density < 10] = 1e-7
    kept = drawn[torch.multinomial(rarity, min(count, len(drawn)), generator=generator)]
    return matches[kept], certainty[kept]


def count_neighbours(rows: Tensor) -> Tensor:
    """For each row (n, d) the sum over all rows of a Gaussian of their distance, (n,)."""
    # In pieces, since all distances of 20 000 candidates at once take 1.6 GB.
    pieces = [
        torch.cdist(piece, rows).square_().neg_().div_(2 * DENSITY_SPREAD**2).exp_().sum(dim=-1)
        for piece in torch.split(rows, ROWS_AT_ONCE)
    ]
    return torch.cat(pieces)


def to_warp(field: Field, own: Canvas, other: Canvas) -> Warp:
    """A network's field in file pixels; not certain where it starts or ends on padding."""
    height, width = field.certainty.shape
    ends = other.denormalise(field.places.cpu().numpy())
    corner = own.denormalise(np.array([-1 + 1 / width, -1 + 1 / height]))
    pitch = np.array([own.size[0] / width, own.size[1] / height])
    seen = _shown(other.frame, ends) & _grid_shown(own.frame, corner, pitch, (height, width))
    first = own.frame.to_file(corner)
    step = pitch / own.frame.scale
    return Warp(
        places=other.frame.to_file(ends),
        certainty=np.where(seen, field.certainty.cpu().numpy(), np.float32(0)),
        origin=(float(first[0]), float(first[1])),
        step=(float(step[0]), float(step[1])),
    )


def _shown(frame: Frame, points: np.ndarray) -> Bool[np.ndarray, "h w"]:
    return frame.shows(points.reshape(-1, 2)).reshape(points.shape[:-1])


def _grid_shown(
    frame: Frame, corner: np.ndarray, pitch: np.ndarray, shape: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """Which nodes of a grid on a canvas lie on the photo."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return _shown(frame, corner + np.stack([columns, rows], axis=-1) * pitch)


def to_correspondences(
    matches: Tensor, certainty: Tensor, canvas0: Canvas, canvas1: Canvas
) -> Correspondences:
    """Sampled matches (n, 4) in file pixels, without those that no certainty speaks for or at a border."""
    rows = matches.cpu().numpy()
    points0, points1 = canvas0.denormalise(rows[:, :2]), canvas1.denormalise(rows[:, 2:])
    scores = certainty.cpu().numpy()
    kept = (scores > 0) & _within(canvas0.frame, points0) & _within(canvas1.frame, points1)
    return Correspondences(
        points0=canvas0.frame.to_file(points0[kept]),
        points1=canvas1.frame.to_file(points1[kept]),
        scores=scores[kept],
    )


def _within(frame: Frame, points: Float[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
    """The border filter of the published code: 0 < x <= width - 1 with edges, not centres, at 0."""
    edges = points - np.array(frame.offset) + 0.5
    return np.asarray(((edges > 0) & (edges <= np.array(frame.content) - 1)).all(axis=1))


class PairWarper(ABC):
    """A dense matcher around a network that needs no more than two canvases.

    Args:
        device: Where the network computes.
        samples: Most correspondences of a pair.
        half_density: As in `sample_balanced`.
    """

    def __init__(self, *, device: torch.device, samples: int, half_density: bool = False) -> None:
        self.device = device
        self.samples = samples
        self.half_density = half_density

    @abstractmethod
    def place(self, photo: Photo) -> Canvas:
        """The canvas on which the network is shown a photo."""

    @abstractmethod
    def relate(self, pairs: Sequence[tuple[Canvas, Canvas]]) -> list[TwoWay]:
        """What the network finds out about pairs shown to it together."""

    def warp(self, pairs: Sequence[PhotoPair]) -> list[tuple[Warp, Warp]]:
        """The way there, from the first photo to the second, and the way back."""
        return [
            (to_warp(both.there, canvas0, canvas1), to_warp(both.back, canvas1, canvas0))
            for canvas0, canvas1, both in self._relate(pairs)
        ]

    def correspond(self, pairs: Sequence[PhotoPair]) -> list[Correspondences]:
        """Matched positions of each pair, in file pixels, spread over what both photos show."""
        return [
            to_correspondences(*self._sample(both), canvas0, canvas1)
            for canvas0, canvas1, both in self._relate(pairs)
        ]

    def _relate(self, pairs: Sequence[PhotoPair]) -> Iterator[tuple[Canvas, Canvas, TwoWay]]:
        placed = [(self.place(photo0), self.place(photo1)) for photo0, photo1 in pairs]
        with torch.inference_mode():
            found = self.relate(placed)
        yield from ((*canvases, both) for canvases, both in zip(placed, found, strict=True))

    @torch.inference_mode()
    def _sample(self, both: TwoWay) -> tuple[Tensor, Tensor]:
        matches, certainty = both.matches()
        return sample_balanced(
            matches.reshape(-1, 4),
            certainty.flatten(),
            self.samples,
            generator=torch.Generator(device=self.device).manual_seed(SEED),
            half_density=self.half_density,
        )
