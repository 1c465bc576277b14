"""Ways from the pixels of one photo to those of another, and how points follow them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32


class Carrier(Protocol):
    """Knows where the points of one photo lie in another."""

    def carry(
        self, points: Float[np.ndarray, "n 2"]
    ) -> tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, " n"]]:
        """Places in the other photo, in its file pixels, and how certain each is (0: not seen there)."""
        ...


@dataclass(frozen=True, slots=True)
class Warp:
    """The places of a grid of pixels of one photo in another.

    Attributes:
        places: (x, y) in file pixels of the other photo, for each node of the grid.
        certainty: From 0 (not seen in the other photo) to 1.
        origin: (x, y) of the grid's first node in file pixels of its own photo.
        step: File pixels from node to node in x and y.
    """

    places: Float32[np.ndarray, "h w 2"]
    certainty: Float32[np.ndarray, "h w"]
    origin: tuple[float, float]
    step: tuple[float, float]

    def carry(
        self, points: Float[np.ndarray, "n 2"]
    ) -> tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, " n"]]:
        """Places and certainties between the nodes, bilinear; beyond the grid the certainty is 0."""
        height, width = self.certainty.shape
        nodes = (np.asarray(points, np.float64) - self.origin) / self.step
        last = np.array([width, height]) - 1
        inside = ((nodes >= -0.5) & (nodes <= last + 0.5)).all(axis=1)
        nodes = np.clip(nodes, 0, last)
        low = np.minimum(nodes.astype(np.int64), np.maximum(last - 1, 0))
        high = np.minimum(low + 1, last)
        share = (nodes - low).astype(np.float32)
        places = np.zeros((len(nodes), 2), np.float32)
        certainty = np.zeros(len(nodes), np.float32)
        for column, weight_x in ((low[:, 0], 1 - share[:, 0]), (high[:, 0], share[:, 0])):
            for row, weight_y in ((low[:, 1], 1 - share[:, 1]), (high[:, 1], share[:, 1])):
                weight = weight_x * weight_y
                places += weight[:, None] * self.places[row, column]
                certainty += weight * self.certainty[row, column]
        return places, np.where(inside, certainty, np.float32(0))
