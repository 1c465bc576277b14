"""Cheap matching of many pairs, to spend the network on the promising ones only.

The cheap matcher compares the descriptors of the strongest keypoints: mutual nearest neighbours that pass
Lowe's ratio test, four milliseconds a pair: a thirtieth of what the network needs for so few keypoints.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from gim_sfm.pairs import exhaustive, retrieval, union
from gim_sfm.progress import Advance
from gim_sfm.retrieval import FeatureReader, describe_collection
from gim_sfm.types import Features, Pair

ALL_PAIRS_UP_TO = 300
"""Photos of which all pairs are compared cheaply: three minutes on one core."""

CANDIDATES = 100
"""Photos that retrieval proposes to each photo of a larger collection; COLMAP's number, too."""

KEYPOINTS = 1024
"""Keypoints compared; of 512, every twentieth true pair of photos round a statue was lost."""

MINIMUM = 4
"""Cheap matches that speak for overlap: photos of different scenes rarely have more than one by chance.

That holds for ALIKED. Root-SIFT has 8 by chance, so there more pairs are matched than need be.
"""

_RATIO = 0.85
"""A match must be nearer than this share of the distance to the next best keypoint (Lowe, IJCV 2004)."""

REMEMBERED = 500
"""Photos whose strongest descriptors stay in memory: 260 MB at 128 dimensions."""


def cascade(
    names: Sequence[str],
    features: FeatureReader,
    *,
    neighbours: int,
    seed: int = 0,
    advance: Advance | None = None,
) -> list[Pair]:
    """The pairs worth matching in full, found by comparing all pairs cheaply.

    Of more than `ALL_PAIRS_UP_TO` photos, only the pairs that retrieval proposes are compared.

    Args:
        names: All photos.
        features: Reads one photo's features.
        neighbours: Pairs that each photo chooses at most.
        seed: Of the codebook that retrieval learns.
        advance: Told after every pair compared.
    """
    pairs = candidates(names, features, seed=seed)
    return promising(count_matches(pairs, features, advance=advance), names, best=neighbours, minimum=MINIMUM)


def candidates(names: Sequence[str], features: FeatureReader, *, seed: int = 0) -> list[Pair]:
    """The pairs to compare cheaply: all of a small collection, those that look alike of a large one."""
    if len(names) <= ALL_PAIRS_UP_TO:
        return exhaustive(names)
    return retrieval(names, describe_collection(names, features, seed=seed), neighbours=CANDIDATES)


def count_matches(
    pairs: Iterable[Pair], features: FeatureReader, *, advance: Advance | None = None
) -> dict[Pair, int]:
    """Counts the mutual nearest neighbours of each pair that pass the ratio test.

    Args:
        pairs: Best sorted, so that neighbouring pairs share photos that are in memory already.
        features: Reads one photo's features.
        advance: Told after every pair.
    """
    remembered = lru_cache(REMEMBERED)(lambda name: strongest(features(name)))
    counts = {}
    for first, second in pairs:
        counts[first, second] = count_common(remembered(first), remembered(second))
        if advance is not None:
            advance(1)
    return counts


def strongest(features: Features) -> Float32[np.ndarray, "n d"]:
    """Descriptors of unit length of a photo's strongest keypoints."""
    return _unit(features.descriptors[:KEYPOINTS])


def count_common(first: Float32[np.ndarray, "n d"], second: Float32[np.ndarray, "m d"]) -> int:
    """Counts the mutual nearest neighbours of two photos that pass the ratio test, by `strongest` of each."""
    if min(len(first), len(second)) < 2:
        return 0
    similarity = first @ second.T
    columns = similarity.argmax(axis=1)
    best = similarity[np.arange(len(first)), columns]
    rows = np.nonzero(best == similarity.max(axis=0)[columns])[0]
    best, columns = best[rows], columns[rows]
    # mutual neighbours share no row or column, so one mask leaves the runner-up of every row and column
    similarity[rows, columns] = -np.inf
    runner_up = np.maximum(similarity.max(axis=1)[rows], similarity.max(axis=0)[columns])
    return int(np.count_nonzero(1 - best < _RATIO**2 * (1 - runner_up)))


def _unit(rows: Float16[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    single = rows.astype(np.float32)
    lengths = np.linalg.norm(single, axis=1, keepdims=True)
    return single / np.where(lengths > 0, lengths, np.float32(1))


def promising(counts: Mapping[Pair, int], names: Sequence[str], *, best: int, minimum: int) -> list[Pair]:
    """The pairs worth matching in full, given how many cheap matches each has.

    Kept are the pairs that reach the minimum and are among the best of one of their photos. Where that leaves
    the photos in separate groups, the strongest pairs that join the groups are added (a maximum spanning
    tree), however weak, as long as they have any cheap match.

    Args:
        counts: Cheap matches of each pair compared.
        names: All photos.
        best: Pairs that each photo chooses at most; a pair counts if either photo chose it.
        minimum: Fewer cheap matches are no sign of overlap.
    """
    place = {name: index for index, name in enumerate(names)}
    pairs = [pair for pair, count in counts.items() if count > 0]
    rows = np.array([(place[first], place[second]) for first, second in pairs], np.int64).reshape(-1, 2)
    strength = np.array([counts[pair] for pair in pairs], np.int64)
    kept = (strength >= minimum) & _among_best(rows, strength, best)
    kept[_joining(rows, strength, kept, len(names))] = True
    return union(names, [pairs[index] for index in np.nonzero(kept)[0]])


def _among_best(
    rows: Int64[np.ndarray, "m 2"], strength: Int64[np.ndarray, " m"], best: int
) -> Bool[np.ndarray, " m"]:
    """Whether a pair is among the `best` strongest of either of its photos."""
    photo = rows.T.reshape(-1)
    pair = np.tile(np.arange(len(rows)), 2)
    order = np.lexsort((pair, -strength[pair], photo))
    firsts = np.searchsorted(photo[order], photo[order])
    chosen = np.zeros(len(rows), bool)
    chosen[pair[order][np.arange(len(order)) - firsts < best]] = True
    return chosen


def _joining(
    rows: Int64[np.ndarray, "m 2"],
    strength: Int64[np.ndarray, " m"],
    kept: Bool[np.ndarray, " m"],
    photos: int,
) -> Int64[np.ndarray, " joins"]:
    """Indices of the strongest pairs that join the groups which the kept pairs leave apart."""
    links = coo_array((np.ones(int(kept.sum())), tuple(rows[kept].T)), (photos, photos))
    groups, group = connected_components(links, directed=False)
    ends = np.sort(group[rows], axis=1).astype(np.int64)
    between = np.nonzero(ends[:, 0] != ends[:, 1])[0]
    between = between[np.argsort(-strength[between], kind="stable")]
    strongest = between[np.sort(np.unique(ends[between] @ [groups, 1], return_index=True)[1])]
    # the tree is the lightest one by rank, which decides between equal strengths in a definite way
    rank = np.arange(1, len(strongest) + 1)
    tree = minimum_spanning_tree(coo_array((rank, tuple(ends[strongest].T)), (groups, groups)))
    return strongest[tree.data.astype(np.int64) - 1]
