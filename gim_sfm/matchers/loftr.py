"""LoFTR: two photos matched cell by cell, then to a fraction of a pixel (Sun et al., CVPR 2021).

Published weights, run by a loop of our own: the backbone sees each photo once, not once per pair, and the
similarities of all cells are never held at the same time (1.1 GB for two photos of 1024 pixels square).
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import cv2
import numpy as np
import torch
from kornia.feature import LoFTR
from kornia.feature.loftr.loftr import default_cfg
from torch import Tensor
from torch.nn import functional

from gim_sfm.errors import SettingsError
from gim_sfm.matchers.contract import PhotoPair
from gim_sfm.matchers.frame import Frame, fit
from gim_sfm.matchers.networks.folding import fold_norms
from gim_sfm.matchers.networks.gim_loftr import GimLoftrBackbone
from gim_sfm.matchers.networks.loftr import Transformer
from gim_sfm.matchers.weights import strip_prefixes
from gim_sfm.types import Correspondences, Photo

CELL = 8
"""Pixels of the network's input to a side of a coarse cell."""
STEP = 2
"""Pixels to a side of a fine cell."""
WINDOW = 5
"""Fine cells to a side of the window in which a match is refined."""
BORDER = 2
"""Coarse cells along the sides of a photo that take part in no match."""
TEMPERATURE = 0.1
SMALLEST_CONFIDENCE = 0.2
LONGEST = 2048
"""Side in pixels of the largest photo that the position encoding was made for."""

SIMILARITIES_AT_ONCE = 2**22
CELL_PAIRS_AT_ONCE = 2**28
"""On an accelerator; bounds how many pairs run together."""
WINDOWS_AT_ONCE = 512
PHOTOS_AT_ONCE = 8
PHOTOS_REMEMBERED = 8
"""Pairs come in an order that takes the same photos up again soon."""


@dataclass(frozen=True, slots=True)
class Flavour:
    """What sets one set of published weights apart.

    Attributes:
        colour: Whether the backbone is GIM's, which sees colours, or LoFTR's own.
        context: Whether the refinement sees the coarse cells around its windows.
        first_centre: Where the first pixel's centre lies in x and y of what the network tells.
    """

    colour: bool
    context: bool
    first_centre: float


GIM_LOFTR = Flavour(colour=True, context=False, first_centre=0.0)
LOFTR = Flavour(colour=False, context=True, first_centre=0.5)
"""The authors' outdoor weights."""


@dataclass(frozen=True, slots=True)
class Described:
    """What the backbone makes of photos.

    Attributes:
        coarse: With the position encoding, (b, 256, h / 8, w / 8), single precision.
        fine: (b, 128, h / 2, w / 2), in the precision of the convolutions.
    """

    coarse: Tensor
    fine: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of coarse cells."""
        return self.coarse.shape[2], self.coarse.shape[3]

    @property
    def tokens(self) -> Tensor:
        """The coarse cells row by row, (b, n, 256)."""
        return self.coarse.flatten(2).transpose(1, 2).contiguous()


@dataclass(frozen=True, slots=True)
class Seen:
    """A photo that went through the backbone; holds the photo, so that its identity stays its own."""

    photo: Photo
    frame: Frame
    described: Described


def stack(described: Sequence[Described]) -> Described:
    """Photos of one size as a batch."""
    if len(described) == 1:
        return described[0]
    coarse, fine = zip(*((each.coarse, each.fine) for each in described), strict=True)
    return Described(torch.cat(coarse), torch.cat(fine))


@dataclass(frozen=True, slots=True)
class CellMatches:
    """Matched coarse cells of a batch of pairs.

    Attributes:
        pair: Which pair of the batch, (n,).
        cells0: Cells of the first photo, counted row by row, (n,).
        cells1: Cells of the second photo, (n,).
        confidences: (n,).
    """

    pair: Tensor
    cells0: Tensor
    cells1: Tensor
    confidences: Tensor

    def __len__(self) -> int:
        return len(self.pair)

    def pieces(self, size: int) -> Iterator["CellMatches"]:
        """The same, so many at a time; none where there are none."""
        if not len(self):
            return
        fields = (self.pair, self.cells0, self.cells1, self.confidences)
        for piece in zip(*(torch.split(field, size) for field in fields), strict=True):
            yield CellMatches(*piece)


@dataclass(frozen=True, slots=True)
class DualSoftmax:
    """The similarities of all cells of a pair, as far as they matter.

    The confidence of two cells is the product of their softmaxes in row and column, so it never exceeds the
    first. What passes the threshold there is found row by row; all else can be no match.

    Attributes:
        rows: Logarithm of the summed exponentials of each row, (m,).
        columns: The same of each column, (n,).
        candidates: Rows and columns whose softmax in the row passes the threshold, (2, k).
        confidences: Of these, (k,).
    """

    rows: Tensor
    columns: Tensor
    candidates: Tensor
    confidences: Tensor


def compare(cells0: Tensor, cells1: Tensor) -> DualSoftmax:
    """Similarities of the cells of a pair, (m, d) and (n, d), by their states after the transformer."""
    sharp = cells0 / (cells0.shape[1] * TEMPERATURE)
    rows, found, kept = [], [], []
    columns = cells1.new_full((len(cells1),), -torch.inf)
    step = max(1, SIMILARITIES_AT_ONCE // max(1, len(cells1)))
    for start in range(0, len(cells0), step):
        similarity = sharp[start : start + step] @ cells1.T
        rows.append(torch.logsumexp(similarity, dim=1))
        columns = torch.logaddexp(columns, torch.logsumexp(similarity, dim=0))
        least = rows[-1] + math.log(SMALLEST_CONFIDENCE)
        row, column = torch.nonzero(similarity > least[:, None], as_tuple=True)
        found.append(torch.stack([row + start, column]))
        kept.append(similarity[row, column])
    row_sums, candidates = torch.cat(rows), torch.cat(found, dim=1)
    logarithms = 2 * torch.cat(kept) - row_sums[candidates[0]] - columns[candidates[1]]
    return DualSoftmax(row_sums, columns, candidates, logarithms.exp())


def choose(similar: DualSoftmax, shape0: tuple[int, int], shape1: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cells that are each other's most confident, off the border: (2, k) and their confidences.

    Args:
        similar: Of a pair.
        shape0: Rows and columns of the first photo's cells.
        shape1: Of the second's.
    """
    (first, second), confidences = similar.candidates, similar.confidences
    best0 = torch.zeros_like(similar.rows).scatter_reduce_(0, first, confidences, "amax")
    best1 = torch.zeros_like(similar.columns).scatter_reduce_(0, second, confidences, "amax")
    kept = (confidences == best0[first]) & (confidences == best1[second])
    kept &= confidences > SMALLEST_CONFIDENCE
    kept &= _off_border(first, shape0) & _off_border(second, shape1)
    return similar.candidates[:, kept], confidences[kept]


def _off_border(cells: Tensor, shape: tuple[int, int]) -> Tensor:
    rows, columns = cells // shape[1], cells % shape[1]
    inside = (rows >= BORDER) & (rows < shape[0] - BORDER)
    return inside & (columns >= BORDER) & (columns < shape[1] - BORDER)


def match_cells(
    tokens0: Tensor, tokens1: Tensor, shape0: tuple[int, int], shape1: tuple[int, int]
) -> CellMatches:
    """Matched cells of each pair of a batch; arguments as in `choose`, tokens after the transformer."""
    chosen = [choose(compare(*pair), shape0, shape1) for pair in zip(tokens0, tokens1, strict=True)]
    counts = torch.tensor([len(confidences) for _, confidences in chosen], device=tokens0.device)
    pair = torch.arange(len(chosen), device=tokens0.device).repeat_interleave(counts)
    cells0, cells1 = torch.cat([cells for cells, _ in chosen], dim=1)
    return CellMatches(pair, cells0, cells1, torch.cat([confidences for _, confidences in chosen]))


def read_windows(maps: Tensor, pair: Tensor, cells: Tensor) -> Tensor:
    """The fine cells around coarse ones, row by row, (n, 25, d); zero beyond the photo.

    Args:
        maps: Fine, (b, d, h / 2, w / 2).
        pair: Which of the batch, (n,).
        cells: Coarse cells, counted row by row, (n,).
    """
    reach, stride = WINDOW // 2, CELL // STEP
    padded = functional.pad(maps, (reach,) * 4)
    height, width = padded.shape[2:]
    across = maps.shape[3] // stride
    first = (pair * height + cells // across * stride) * width + cells % across * stride
    near = torch.arange(WINDOW, device=maps.device)
    around = (near[:, None] * width + near).flatten()
    table = padded.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
    return table[first[:, None] + around].float()


def look_in_window(windows0: Tensor, windows1: Tensor) -> Tensor:
    """Where in its window in the second photo each match lies: a share for every fine cell, (n, 25)."""
    centre = windows0[:, WINDOW * WINDOW // 2]
    similarity = (windows1 @ centre[:, :, None])[..., 0] / centre.shape[1] ** 0.5
    return functional.softmax(similarity, dim=1)


def window_grid(device: torch.device) -> Tensor:
    """(x, y) of a window's fine cells from its centre, in halves of its reach: -1 to 1, (25, 2)."""
    near = torch.linspace(-1, 1, WINDOW, device=device)
    return torch.stack([near.repeat(WINDOW), near.repeat_interleave(WINDOW)], dim=1)


class LoftrMatcher:
    """Matches two photos with LoFTR.

    Args:
        state_dict: Published weights, with or without the authors' prefixes.
        device: Where to compute.
        precision: Number format of the convolutions and the linear layers; states, similarities and
            positions are in single precision.
        image_size: Longest side in pixels of what the network sees, at most `LONGEST`.
        flavour: Which weights they are.
    """

    def __init__(
        self,
        state_dict: Mapping[str, Tensor],
        *,
        device: torch.device,
        precision: torch.dtype,
        image_size: int,
        flavour: Flavour = GIM_LOFTR,
    ) -> None:
        self.device = device
        self.precision = precision
        if image_size > LONGEST:
            raise SettingsError(
                f"LoFTR can see {LONGEST} pixels a side at most, not {image_size}.",
                remedy=f"Use --image-size {LONGEST} or less.",
            )
        self.image_size = image_size
        self.flavour = flavour
        with torch.inference_mode():
            self.network = load_network(state_dict, flavour).to(device)
            self.coarse = Transformer(self.network.loftr_coarse, precision)
            self.fine = Transformer(self.network.loftr_fine, precision)
            fold_norms(self.network.backbone)
            self.backbone = self.network.backbone.to(precision)
            self.backbone.to(memory_format=torch.channels_last)
        self.remembered: OrderedDict[int, Seen] = OrderedDict()

    @torch.inference_mode()
    def correspond(self, pairs: Sequence[PhotoPair]) -> list[Correspondences]:
        """Matched positions of each pair, in file pixels."""
        return [found for block in self._blocks(pairs) for found in self._correspond(block)]

    def _blocks(self, pairs: Sequence[PhotoPair]) -> Iterator[list[PhotoPair]]:
        """Consecutive pairs of the same two sizes, as many as may run together."""
        for (cells0, cells1), alike in groupby(pairs, key=lambda pair: tuple(map(self._cells, pair))):
            group = list(alike)
            room = CELL_PAIRS_AT_ONCE // (math.prod(cells0) * math.prod(cells1))
            most = 1 if self.device.type == "cpu" else max(1, room)
            yield from (group[start : start + most] for start in range(0, len(group), most))

    def _cells(self, photo: Photo) -> tuple[int, int]:
        """Rows and columns of coarse cells that a photo will have."""
        sides = photo.pixels.shape[:2]
        factor = min(1.0, self.image_size / max(1, *sides))
        rows, columns = (max(1, round(side * factor) // CELL) for side in sides)
        return rows, columns

    def _correspond(self, pairs: Sequence[PhotoPair]) -> list[Correspondences]:
        seen = self._see([photo for pair in pairs for photo in pair])
        side0, side1 = (stack([seen[id(pair[side])].described for pair in pairs]) for side in (0, 1))
        tokens0, tokens1 = self.coarse(side0.tokens, side1.tokens)
        matches = match_cells(tokens0, tokens1, side0.shape, side1.shape)
        points0 = _corners(matches.cells0, side0.shape)
        moved = self._refine(side0, side1, tokens0, tokens1, matches)
        points1 = _corners(matches.cells1, side1.shape) + moved
        frames = [(seen[id(first)].frame, seen[id(second)].frame) for first, second in pairs]
        told = [part.cpu().numpy() for part in (matches.pair, points0, points1, matches.confidences)]
        return [self._correspondences(index, *both, *told) for index, both in enumerate(frames)]

    def _correspondences(
        self,
        index: int,
        frame0: Frame,
        frame1: Frame,
        pair: np.ndarray,
        points0: np.ndarray,
        points1: np.ndarray,
        confidences: np.ndarray,
    ) -> Correspondences:
        """What was found for one pair of a batch."""
        own, centre = pair == index, self.flavour.first_centre
        return Correspondences(
            frame0.to_file(points0[own] - centre), frame1.to_file(points1[own] - centre), confidences[own]
        )

    def _see(self, photos: Sequence[Photo]) -> dict[int, "Seen"]:
        """What the backbone makes of photos, by their identity; remembers the last few."""
        wanted = {id(photo): photo for photo in photos}
        new = [photo for key, photo in wanted.items() if key not in self.remembered]
        fitted = [(photo, *fit(photo, self.image_size, CELL)) for photo in new]
        at_once = 1 if self.device.type == "cpu" else PHOTOS_AT_ONCE
        for _, alike in groupby(fitted, key=lambda entry: entry[1].shape):
            group = list(alike)
            for start in range(0, len(group), at_once):
                self._remember(group[start : start + at_once])
        for key in wanted:
            self.remembered.move_to_end(key)
        seen = {key: self.remembered[key] for key in wanted}
        while len(self.remembered) > PHOTOS_REMEMBERED:
            self.remembered.popitem(last=False)
        return seen

    def _remember(self, group: Sequence[tuple[Photo, np.ndarray, Frame]]) -> None:
        described = self.describe(torch.from_numpy(np.stack([self._input(pixels) for _, pixels, _ in group])))
        for place, (photo, _, frame) in enumerate(group):
            own = Described(described.coarse[place : place + 1], described.fine[place : place + 1])
            self.remembered[id(photo)] = Seen(photo, frame, own)

    def _input(self, pixels: np.ndarray) -> np.ndarray:
        """RGB, (height, width, 3), as the backbone takes it, (channels, height, width)."""
        if self.flavour.colour:
            return pixels.transpose(2, 0, 1)
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[None]

    def describe(self, images: Tensor) -> Described:
        """What the backbone makes of images, (b, 3 or 1, height, width) in [0, 1]."""
        ready = images.to(self.device, self.precision).contiguous(memory_format=torch.channels_last)
        coarse, fine = self.backbone(ready)
        return Described(self.network.pos_encoding(coarse.float()).contiguous(), fine)

    def _refine(
        self, side0: Described, side1: Described, tokens0: Tensor, tokens1: Tensor, matches: CellMatches
    ) -> Tensor:
        """Pixels from the corner of each second cell to the match, (n, 2)."""
        grid = window_grid(self.device) * (WINDOW // 2 * STEP)
        offsets = [torch.empty(0, 2, device=self.device)]
        for piece in matches.pieces(WINDOWS_AT_ONCE):
            windows0 = self._window(side0, tokens0, piece.pair, piece.cells0)
            windows1 = self._window(side1, tokens1, piece.pair, piece.cells1)
            offsets.append(look_in_window(*self.fine(windows0, windows1)) @ grid)
        return torch.cat(offsets)

    def _window(self, side: Described, tokens: Tensor, pair: Tensor, cells: Tensor) -> Tensor:
        """What the refinement reads around coarse cells, (n, 25, 128)."""
        windows = read_windows(side.fine, pair, cells)
        if not self.flavour.context:
            return windows
        layers = self.network.fine_preprocess
        context = layers.down_proj(tokens[pair, cells])[:, None].expand_as(windows)
        merged: Tensor = layers.merge_feat(torch.cat([windows, context], dim=-1))
        return merged


def load_network(state_dict: Mapping[str, Tensor], flavour: Flavour) -> Any:
    """Kornia's LoFTR with published weights, and GIM's backbone where they need it; an untyped module."""
    config: dict[str, Any] = copy.deepcopy(default_cfg)
    config["fine_concat_coarse_feat"] = flavour.context
    network: Any = LoFTR(pretrained=None, config=config)
    if flavour.colour:
        network.backbone = GimLoftrBackbone()
    network.load_state_dict(strip_prefixes(state_dict))
    return network.eval().requires_grad_(False)


def _corners(cells: Tensor, shape: tuple[int, int]) -> Tensor:
    """(x, y) of the first pixel of coarse cells, (n, 2)."""
    return torch.stack([cells % shape[1], cells // shape[1]], dim=1).float() * CELL
