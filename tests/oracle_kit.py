"""A dense matcher that knows the drawn world's depth, and its row in the table of matchers."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from gim_sfm.drawn_world import DrawnWorld
from gim_sfm.images import read_photo
from gim_sfm.matchers import MATCHERS, MatcherRow
from gim_sfm.matchers.building import Setup
from gim_sfm.matchers.contract import DenseMatcher, PhotoPair, WarpMatcher
from gim_sfm.types import Correspondences
from gim_sfm.warps import Warp

STEP = 2
NOISE = 0.4


class Oracle:
    """Warps from true depth, with the noise of a network's; knows photos by their pixels.

    Args:
        world: The truth.
        photos: Folder of the photos as they lie there.
        samples: Matches drawn from a warp.
    """

    def __init__(self, world: DrawnWorld, photos: Path, samples: int = 1500) -> None:
        self.world, self.samples = world, samples
        read = {name: read_photo(photos / name).pixels for name in world.photos if (photos / name).exists()}
        self.names = {pixels.tobytes(): name for name, pixels in read.items()}
        self.asked: list[tuple[str, str]] = []
        self.depth = cache(world.depth)

    def warp(self, pairs: Sequence[PhotoPair]) -> list[tuple[Warp, Warp]]:
        named = [tuple(self.names[photo.pixels.tobytes()] for photo in pair) for pair in pairs]
        self.asked += [(first, second) for first, second in named]
        return [(self._way(first, second), self._way(second, first)) for first, second in named]

    def correspond(self, pairs: Sequence[PhotoPair]) -> list[Correspondences]:
        found = []
        for there, _ in self.warp(pairs):
            random = np.random.default_rng(len(self.asked))
            nodes = np.stack(np.nonzero(there.certainty > 0)[::-1], 1).astype(np.float32)
            chosen = nodes[random.choice(len(nodes), min(self.samples, len(nodes)), replace=False)] * STEP
            places, certainty = there.carry(chosen)
            found.append(Correspondences(chosen, places, certainty))
        return found

    def _way(self, first: str, second: str) -> Warp:
        depth = self.depth(first)[::STEP, ::STEP]
        rows, columns = np.indices(depth.shape) * STEP
        places, deep = self._project(
            first, second, np.stack([columns, rows], -1).reshape(-1, 2), depth.ravel()
        )
        target = self.depth(second)
        inside = ((places >= 0) & (places <= np.array(target.shape[::-1]) - 1)).all(axis=1) & (deep > 0)
        near = np.clip(np.nan_to_num(places).round().astype(int), 0, np.array(target.shape[::-1]) - 1)
        seen = inside & (np.abs(target[near[:, 1], near[:, 0]] - deep) < 0.02 * deep)
        noise = np.random.default_rng(len(first + second)).normal(0, NOISE, (*depth.shape, 2))
        blurred = cv2.GaussianBlur(noise, (0, 0), 2) * 4
        return Warp(
            (np.nan_to_num(places).reshape(*depth.shape, 2) + blurred).astype(np.float32),
            seen.reshape(depth.shape).astype(np.float32),
            (0.0, 0.0),
            (float(STEP), float(STEP)),
        )

    def _project(
        self, first: str, second: str, pixels: np.ndarray, depth: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        one, other = self.world.photos[first], self.world.photos[second]
        finite = np.where(np.isfinite(depth), depth, 1e6)
        middle = np.array(one.camera.principal_point)
        rays = np.c_[(pixels - middle) / one.camera.focal, np.ones(len(pixels))]
        world = (rays * finite[:, None] - one.cam_from_world[:, 3]) @ one.cam_from_world[:, :3]
        there = world @ other.cam_from_world[:, :3].T + other.cam_from_world[:, 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            flat = there[:, :2] / there[:, 2:]
        places = flat * other.camera.focal + np.array(other.camera.principal_point)
        return places, np.where(np.isfinite(depth), there[:, 2], -1)


def enlist(
    monkeypatch: pytest.MonkeyPatch, matcher: WarpMatcher | DenseMatcher, joining: str = "anchored"
) -> None:
    """Puts a matcher into the table under the name `oracle`."""

    def build(_setup: Setup) -> WarpMatcher | DenseMatcher:
        return matcher

    row = MatcherRow(
        name="oracle",
        kind="dense",
        summary="Knows the truth.",
        licence="none",
        weights=(),
        image_size=640,
        max_keypoints=2000,
        build=build,
        joining=joining,  # type: ignore[arg-type]
        anchors="root-sift",
    )
    monkeypatch.setitem(MATCHERS, "oracle", row)
