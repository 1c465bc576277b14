"""Which photos to match with which. Every strategy is a pure function from names to pairs.

All of them return canonical lists: the name that comes earlier in `names` first, no pair twice, none of a
photo with itself, sorted by position. Memory grows with the pairs returned, not with the photos squared.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, combinations

import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from gim_sfm.errors import InputError
from gim_sfm.geodesy import earth_centred
from gim_sfm.types import Pair

logger = logging.getLogger(__name__)

Rows = Int64[np.ndarray, "pairs 2"]
"""Pairs as positions in a list of names."""

Affinity = Callable[[Int64[np.ndarray, " rows"]], Float[np.ndarray, "rows n"]]
"""How well each photo suits the photos asked for, higher is better, -inf is never."""

Position = tuple[float, float, float]
"""Latitude and longitude in degrees, altitude in metres."""

_BLOCK = 512
"""Photos compared with all others at once: 20 MB of affinities at 10 000 photos."""


def exhaustive(names: Sequence[str]) -> list[Pair]:
    """Every photo with every other."""
    return list(combinations(names, 2))


def sequential(
    names: Sequence[str],
    *,
    window: int = 10,
    quadratic: bool = True,
    descriptors: Float[np.ndarray, "n d"] | None = None,
    loop_period: int = 10,
    loop_neighbours: int = 50,
) -> list[Pair]:
    """Each frame with the frames that follow it, per folder and in natural order (frame2 before frame10).

    Args:
        names: Photo names; each folder is a sequence of its own.
        window: A frame is paired with this many following ones.
        quadratic: Also with those 1, 2, 4, ... 2^(window-1) frames later, as COLMAP does.
        descriptors: Global descriptors of unit length, one row a name, to find places seen again; without
            them no loop pairs are made.
        loop_period: Loops are sought from every so many frames.
        loop_neighbours: Most similar photos, of any folder and outside the window, that such a frame
            is paired with.
    """
    steps = {*range(1, window + 1), *(1 << power for power in range(window) if quadratic)}
    sequences = _sequences(names)
    near = _together(np.stack([order[:-step], order[step:]], axis=1) for order in sequences for step in steps)
    if descriptors is None:
        return _canonical(names, near)
    seekers = np.array([*chain.from_iterable(order[::loop_period] for order in sequences)], np.int64)
    loops = _choose_best(_outside(near, _similarity(names, descriptors)), seekers, loop_neighbours)
    return _canonical(names, _together([near, loops]))


def retrieval(
    names: Sequence[str],
    descriptors: Float[np.ndarray, "n d"],
    *,
    neighbours: int,
    min_similarity: float = -np.inf,
    queries: Iterable[str] | None = None,
) -> list[Pair]:
    """Each photo with those of most similar global descriptors; it is enough that one photo chose the other.

    Args:
        names: Photo names.
        descriptors: One row a name, of unit length; the similarity is the scalar product.
        neighbours: Photos that each photo chooses.
        min_similarity: Less similar photos are not chosen.
        queries: The photos that choose (default: all). Anyone can be chosen.
    """
    similarity = _similarity(names, descriptors)

    def affinity(rows: Int64[np.ndarray, " rows"]) -> Float[np.ndarray, "rows n"]:
        block = similarity(rows)
        block[block < min_similarity] = -np.inf
        return block

    seekers = _positions(names, names if queries is None else queries)
    return _canonical(names, _choose_best(affinity, seekers, neighbours))


def spatial(
    names: Sequence[str],
    positions: Mapping[str, Position | None],
    *,
    max_distance: float = 100.0,
    neighbours: int = 50,
    use_altitude: bool = False,
) -> list[Pair]:
    """Each photo with the nearest ones by GPS.

    Photos without a position get no pairs here, which a warning tells. `without` lists them, and
    `retrieval(..., queries=without(...))` pairs them by what they show.

    Args:
        names: Photo names.
        positions: Where each photo was taken; absent or None where unknown.
        max_distance: Metres.
        neighbours: Photos that each photo chooses at most.
        use_altitude: Count differences in height, too. GPS heights are often wrong by tens of metres.

    Raises:
        InputError: No photo has a position.
    """
    placed = _having(names, positions, "GPS position in its EXIF data")
    located = np.array([positions[names[index]] for index in placed], np.float64)
    metres = earth_centred(located[:, :2], located[:, 2] * use_altitude)
    ranks = np.arange(1, min(neighbours + 1, len(placed)) + 1)
    distances, chosen = cKDTree(metres).query(metres, k=ranks, distance_upper_bound=max_distance)
    rows, columns = np.nonzero(np.isfinite(distances))
    return _canonical(names, placed[np.stack([rows, np.asarray(chosen)[rows, columns]], axis=1)])


def from_poses(
    names: Sequence[str],
    cam_from_world: Mapping[str, Float[np.ndarray, "3 4"]],
    *,
    neighbours: int = 20,
    max_angle: float = 60.0,
    max_distance: float = np.inf,
) -> list[Pair]:
    """Each photo with the nearest cameras that look in a similar direction.

    Photos without a pose get no pairs here, which a warning tells; see `without`.

    Args:
        names: Photo names.
        cam_from_world: Known poses [R | t], x_cam = R x_world + t.
        neighbours: Photos that each photo chooses at most.
        max_angle: Degrees between the viewing directions.
        max_distance: Between the camera centres, in the unit of the poses.

    Raises:
        InputError: No photo has a pose.
    """
    posed = _having(names, cam_from_world, "known pose")
    poses = np.stack([np.asarray(cam_from_world[names[index]], np.float64) for index in posed])
    centres = -np.einsum("nji,nj->ni", poses[:, :, :3], poses[:, :, 3])
    directions = poses[:, 2, :3]
    least_cosine = np.cos(np.radians(max_angle)) - 1e-12

    def affinity(rows: Int64[np.ndarray, " rows"]) -> Float[np.ndarray, "rows n"]:
        distances = cdist(centres[rows], centres)
        fits = (directions[rows] @ directions.T >= least_cosine) & (distances <= max_distance)
        return np.where(fits, -distances, -np.inf)

    return _canonical(names, posed[_choose_best(affinity, np.arange(len(posed)), neighbours)])


def covisible(names: Sequence[str], tracks: Mapping[str, ArrayLike], *, neighbours: int = 20) -> list[Pair]:
    """Each photo with those that see the most of its points in an existing model.

    Photos that see no point get no pairs here, which a warning tells; see `without`.

    Args:
        names: Photo names.
        tracks: The ids of the 3D points that each photo sees.
        neighbours: Photos that each photo chooses at most.

    Raises:
        InputError: No photo sees a point.
    """
    seen = {name: np.unique(np.asarray(tracks[name])) for name in names if name in tracks}
    placed = _having(names, {name: ids for name, ids in seen.items() if len(ids)}, "point in the model")
    ids = [seen[names[index]] for index in placed]
    columns = np.unique(np.concatenate(ids), return_inverse=True)[1]
    starts = np.cumsum([0, *map(len, ids)])
    sees = csr_array((np.ones(len(columns), np.float32), columns, starts))

    def affinity(rows: Int64[np.ndarray, " rows"]) -> Float[np.ndarray, "rows n"]:
        shared: Float[np.ndarray, "rows n"] = (sees[rows] @ sees.T).toarray()
        shared[shared == 0] = -np.inf
        return shared

    return _canonical(names, placed[_choose_best(affinity, np.arange(len(placed)), neighbours)])


def union(names: Sequence[str], *lists: Iterable[Pair]) -> list[Pair]:
    """The pairs of all lists, in canonical form.

    Raises:
        KeyError: A pair has a name that is not in `names`.
    """
    place = {name: index for index, name in enumerate(names)}
    return _canonical(names, _rows([(place[a], place[b]) for a, b in chain.from_iterable(lists)]))


def without(names: Sequence[str], pairs: Iterable[Pair]) -> list[str]:
    """The photos that are in none of the pairs."""
    paired = set(chain.from_iterable(pairs))
    return [name for name in names if name not in paired]


def _choose_best(affinity: Affinity, seekers: Int64[np.ndarray, " m"], count: int) -> Rows:
    """The best `count` photos for each seeker, never itself, nor one of affinity -inf."""
    return _together(
        _best_of_block(affinity(rows), rows, count)
        for rows in np.split(seekers, range(_BLOCK, len(seekers), _BLOCK))
    )


def _best_of_block(block: Float[np.ndarray, "m n"], rows: Int64[np.ndarray, " m"], count: int) -> Rows:
    block[np.arange(len(rows)), rows] = -np.inf
    count = min(count, block.shape[1])
    chosen = (
        np.argpartition(-block, count - 1, axis=1)[:, :count] if len(rows) else np.empty((0, 0), np.int64)
    )
    valid = np.isfinite(np.take_along_axis(block, chosen, axis=1))
    seekers = np.broadcast_to(rows[:, None], chosen.shape)
    return np.stack([seekers[valid], chosen[valid]], axis=1)


def _similarity(names: Sequence[str], descriptors: Float[np.ndarray, "n d"]) -> Affinity:
    if len(descriptors) != len(names):
        raise ValueError(f"{len(descriptors)} global descriptors for {len(names)} names")
    return lambda rows: np.asarray(descriptors[rows] @ descriptors.T, np.float32)


def _outside(excluded: Rows, affinity: Affinity) -> Affinity:
    """The same affinity, but never between the excluded pairs."""
    both = np.concatenate([excluded, excluded[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]

    def restricted(rows: Int64[np.ndarray, " rows"]) -> Float[np.ndarray, "rows n"]:
        block = affinity(rows)
        first, last = np.searchsorted(both[:, 0], [rows, rows + 1])
        for line, start, end in zip(block, first, last, strict=True):
            line[both[start:end, 1]] = -np.inf
        return block

    return restricted


def _sequences(names: Sequence[str]) -> list[Int64[np.ndarray, " frames"]]:
    """The positions of each folder's photos, in natural order."""
    folders: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        folders.setdefault(name.rpartition("/")[0], []).append(index)
    return [
        np.array(sorted(members, key=lambda index: natural_key(names[index])), np.int64)
        for members in folders.values()
    ]


def natural_key(name: str) -> tuple[tuple[tuple[str, int], ...], str]:
    """Sorts frame2 before frame10, and any two different names in a definite order."""
    parts = re.split(r"([0-9]+)", name)
    return tuple(zip(parts[::2], map(int, [*parts[1::2], "-1"]), strict=True)), name


def _having(names: Sequence[str], known: Mapping[str, object], what: str) -> Int64[np.ndarray, " placed"]:
    """Positions of the photos of which something is known; warns of the others."""
    placed = np.array([index for index, name in enumerate(names) if known.get(name) is not None], np.int64)
    if not len(placed):
        raise InputError(
            f"None of the {len(names)} photos has a {what}.",
            remedy="choose the pairs another way, e.g. --pairs auto",
        )
    if len(placed) < len(names):
        missing = [name for name in names if known.get(name) is None]
        logger.warning(
            "%d of %d photos have no %s, first of them %s", len(missing), len(names), what, missing[0]
        )
    return placed


def _positions(names: Sequence[str], chosen: Iterable[str]) -> Int64[np.ndarray, " chosen"]:
    place = {name: index for index, name in enumerate(names)}
    return np.array([place[name] for name in chosen], np.int64)


def _rows(pairs: Sequence[tuple[int, int]]) -> Rows:
    return np.array(pairs, np.int64).reshape(-1, 2)


def _together(rows: Iterable[Rows]) -> Rows:
    return np.concatenate([_rows([]), *rows])


def _canonical(names: Sequence[str], rows: Rows) -> list[Pair]:
    first, second = rows.min(axis=1), rows.max(axis=1)
    keys = np.unique((first * len(names) + second)[first < second])
    return [(names[key // len(names)], names[key % len(names)]) for key in keys.tolist()]
