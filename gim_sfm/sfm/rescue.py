"""Which photos and pairs a second, costlier matcher is asked about."""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from gim_sfm.sfm.report import PairFigures
from gim_sfm.sfm.track_quality import group_linked
from gim_sfm.types import Pair

STRONG = 30
"""Verified matches that make a link dependable; COLMAP registers a photo with as many 2D-3D inliers."""

PARTNERS = 2
"""Strong pairs with fewer photos than this leave a photo hanging by a thread."""

PAIRS_EACH = 10
"""Pairs of a photo that are tried, the most promising ones."""


def weakly_linked(names: Sequence[str], pairs: Sequence[PairFigures]) -> set[str]:
    """Photos outside the largest group that strong pairs link, or with too few strong pairs."""
    strong = [pair.names for pair in pairs if pair.inliers >= STRONG]
    groups = group_linked(names, strong)
    largest = np.bincount(groups).argmax()
    partners = Counter(name for pair in strong for name in pair)
    needed = min(PARTNERS, len(names) - 1)
    return {
        name for name, group in zip(names, groups, strict=True) if group != largest or partners[name] < needed
    }


def pairs_to_rescue(pairs: Sequence[PairFigures], lost: Collection[str]) -> list[Pair]:
    """The most promising pairs of each lost photo: by verified matches, then by matches."""
    chosen: set[Pair] = set()
    for name in lost:
        mine = sorted(
            (pair for pair in pairs if name in pair.names),
            key=lambda pair: (-pair.inliers, -pair.matches, pair.names),
        )
        chosen.update(pair.names for pair in mine[:PAIRS_EACH])
    return sorted(chosen)
