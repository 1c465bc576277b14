"""Which photos of a map a query is compared with."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from gim_sfm.cascade import REMEMBERED, count_common, strongest
from gim_sfm.retrieval import FeatureReader, Vlad, describe_all, teachers
from gim_sfm.sfm.localization.landmarks import Landmarks
from gim_sfm.threads import processors
from gim_sfm.types import Features

CANDIDATES = 50
"""Photos that look most alike, to be compared cheaply; hloc compares as many in full."""


class Alike:
    """The photos that look alike (VLAD), and of these the ones with most cheap matches.

    Args:
        names: Photos of the map.
        read: Reads their features.
        count: How many a query is compared with.
        seed: Of the codebook.
    """

    def __init__(self, names: Sequence[str], read: FeatureReader, count: int, seed: int) -> None:
        self._names, self._count = list(names), count
        self._strongest = lru_cache(REMEMBERED)(lambda name: strongest(read(name)))
        self._vlad = Vlad.fit((read(name) for name in teachers(names)), seed=seed)
        self._rows = describe_all((read(name) for name in names), self._vlad, count=len(names))

    def choose(self, features: Features) -> list[str]:
        """The most promising ones, best first."""
        likeness = self._rows @ self._vlad.describe(features)
        nearest = [self._names[index] for index in np.argsort(-likeness, kind="stable")[:CANDIDATES]]
        query = strongest(features)
        with ThreadPoolExecutor(processors()) as workers:
            common = list(workers.map(lambda other: count_common(query, self._strongest(other)), nearest))
        best = np.argsort(-np.array(common), kind="stable")[: self._count]
        return [nearest[index] for index in best]


class Covisible:
    """The most promising photo, and those that share most landmarks with it.

    Args:
        alike: Finds the most promising one.
        names: Photos of the map.
        landmarks: Reads their landmarks.
        count: How many a query is compared with.
    """

    def __init__(
        self, alike: Alike, names: Sequence[str], landmarks: Callable[[str], Landmarks], count: int
    ) -> None:
        self._alike, self._landmarks, self._count = alike, landmarks, count
        self._seen_by: dict[int, list[str]] = {}
        for name in names:
            for point in landmarks(name).points.tolist():
                self._seen_by.setdefault(point, []).append(name)

    def choose(self, features: Features) -> list[str]:
        """That one, and its circle."""
        first = self._alike.choose(features)[0]
        shared = Counter(
            other for point in self._landmarks(first).points.tolist() for other in self._seen_by[point]
        )
        others = sorted((other for other in shared if other != first), key=lambda other: -shared[other])
        return [first, *others[: self._count - 1]]
