"""Features of one image compared with those of another around where a flow points.

Flows are (x, y) from -1 to 1 between the edges of the other image.
"""

from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional

BYTES_CACHED = 2**23
BYTES_ON_ACCELERATOR = 2**28
"""Features gathered in one step: on a processor as many as its caches hold, elsewhere more."""


def pixel_centres(maps: Tensor) -> Tensor:
    """Normalised (x, y) of the pixels of maps, (1, 2, height, width), single precision."""
    height, width = maps.shape[-2:]
    y = torch.linspace(-1 + 1 / height, 1 - 1 / height, height, device=maps.device)
    x = torch.linspace(-1 + 1 / width, 1 - 1 / width, width, device=maps.device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]


def read_between(maps: Tensor, flow: Tensor) -> Tensor:
    """Features where a flow points, bilinear, zero beyond the map.

    Args:
        maps: (b, c, h, w).
        flow: Normalised (x, y), from -1 to 1 between the map's edges, (b, 2, h', w'), single precision.

    Returns:
        (b, c, h', w'), in the number format of the maps.
    """
    # In single precision: short formats could not tell one pixel of a large map from the next.
    read = functional.grid_sample(maps.float(), flow.permute(0, 2, 3, 1), align_corners=False)
    return read.to(maps.dtype)


def correlate(x: Tensor, y: Tensor, flow: Tensor, radius: int) -> Tensor:
    """Products of each feature of x with those of y in a window around where the flow points.

    The window's places are whole pixels apart, so that all of them share one fraction of a pixel: products
    are made with whole pixels and blended afterwards, not the features before.

    Args:
        x: (b, c, h, w).
        y: (b, c, h, w).
        flow: Normalised (x, y) from the pixels of x to y, (b, 2, h, w), single precision.
        radius: The window spans 2 radius + 1 pixels.

    Returns:
        Products divided by the root of c, row by row of the window, (b, (2 radius + 1)^2, h, w); y counts as
        zero beyond its borders.
    """
    _, channels, height, width = x.shape
    size = torch.tensor([width, height], device=x.device)
    places = ((flow.permute(0, 2, 3, 1) + 1) * size - 1) / 2
    low = places.floor()
    parts = zip(x, y, low.long().flatten(1, 2), (places - low).flatten(1, 2), strict=True)
    found = torch.stack([_correlate_one(*one, radius) for one in parts]) / sqrt(channels)
    return found.permute(0, 2, 1).reshape(len(x), -1, height, width)


def _correlate_one(x: Tensor, y: Tensor, low: Tensor, part: Tensor, radius: int) -> Tensor:
    """(h w, (2 radius + 1)^2) of one image, from whole pixels and fractions, (h w, 2)."""
    channels, height, width = x.shape
    span = 2 * radius + 2
    # So wide a border that every window beyond the map can be moved to lie in it wholly.
    table = functional.pad(y.permute(1, 2, 0), (0, 0, span, span, span, span))
    pitch = width + 2 * span
    limit = torch.tensor([width, height], device=x.device)
    corner = torch.minimum((low - radius).clamp(min=-span), limit) + span
    step = torch.arange(span, device=x.device)
    starts = corner[:, 1] * pitch + corner[:, 0]
    offsets = (step[:, None] * pitch + step).flatten()
    rows = table.flatten(0, 1)
    features = x.permute(1, 2, 0).reshape(-1, 1, channels)
    budget = BYTES_CACHED if x.device.type == "cpu" else BYTES_ON_ACCELERATOR
    most = max(1, budget // (len(offsets) * channels * x.element_size()))
    pieces = []
    together = zip(*(torch.split(all_of, most) for all_of in (features, starts, part)), strict=True)
    for feature, start, share in together:
        window = functional.embedding(start[:, None] + offsets, rows)
        # In this order, as a row times a matrix, the product takes a tenth of the time on a processor.
        products = torch.matmul(feature, window.transpose(1, 2)).reshape(-1, span, span)
        pieces.append(_blend(products.float(), share).to(x.dtype))
    return torch.cat(pieces)


def _blend(products: Tensor, part: Tensor) -> Tensor:
    """Bilinear blends of neighbours, (n, span, span) to (n, (span - 1)^2), by fractions (n, 2)."""
    x, y = part[:, 0, None, None], part[:, 1, None, None]
    down = products[:, :-1] + y * (products[:, 1:] - products[:, :-1])
    return (down[:, :, :-1] + x * (down[:, :, 1:] - down[:, :, :-1])).flatten(1)
