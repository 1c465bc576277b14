"""What no sensor saw is dropped from a cloud, and counted: blanks, drop-outs and points kilometres astray."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import InputError

FEWEST_POINTS = 100
"""Points below which a cloud is refused."""

GAP = 10.0
"""Edge of the cells that tell strays, in multiples of the median distance from the median point."""

STRAY_GROUP = 100
"""Groups as large as this stay wherever they lie; in clouds of fewer than 10 000 points, one in a hundred."""

THINNEST = 1e-5
"""Width over length below which a cloud is a line."""

_FARTHEST_CELL = 2**20
_SAMPLE = 100_000


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What was taken out of a cloud.

    Attributes:
        read: Points before.
        not_finite: Points with a coordinate that is NaN or infinite.
        dropouts: Points at exactly (0, 0, 0), which is how many sensors write a missing return.
        strays: Points far from all others.
        blank_intensities: Points that stayed but whose intensity was not finite; it is zero now.
    """

    read: int
    not_finite: int
    dropouts: int
    strays: int
    blank_intensities: int

    @property
    def kept(self) -> int:
        """Points after."""
        return self.read - self.not_finite - self.dropouts - self.strays

    def __str__(self) -> str:
        return (
            f"{self.kept} of {self.read} points kept; dropped {self.not_finite} not finite, {self.dropouts} "
            f"missing returns at (0, 0, 0), {self.strays} far astray; "
            f"{self.blank_intensities} intensities not finite set to 0"
        )


def clean(cloud: PointCloud, *, name: str = "the point cloud") -> tuple[PointCloud, Cleaning]:
    """Drops what no sensor saw; see `Cleaning` and `find_strays`. Points at equal places stay.

    A single point at (0, 0, 0) stays, too: in a map it may well be one.

    Args:
        cloud: As read.
        name: What errors call it, usually its file.

    Raises:
        InputError: Too few points are left, or all of them on one spot or line.
    """
    finite, not_finite = _without(cloud, _not_finite(cloud.points))
    returns, dropouts = _without(finite, _dropouts(finite))
    bulk, strays = _without(returns, find_strays(returns.points))
    blank = ~np.isfinite(bulk.intensity)
    intensity = np.where(blank, np.float32(0), bulk.intensity) if blank.any() else bulk.intensity
    cleaning = Cleaning(len(cloud), not_finite, dropouts, strays, int(blank.sum()))
    cleaned = PointCloud(bulk.points, bulk.origin, intensity)
    _require_extent(cleaned, cleaning, name)
    return cleaned, cleaning


def find_strays(points: Float32[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    """Which finite points lie so far out that they can be nothing but errors.

    The rule scales with the cloud and looks at gaps, not at distances. Space is cut into cells whose edge is
    `GAP` times the median distance from the median point. Cells that touch form groups; the 27 cells round
    the median point are one, and hold half of all points by construction. Any other group is stray if it has
    fewer than `STRAY_GROUP` points (one in a hundred in a small cloud, two at least), or if all of its points
    are one and the same (a sensor's code for "nothing", such as -9999), or if it lies a million cells away.

    For a single scan with a median range of 10 m, points must be a hundred metres from all others to go.
    The cells of a corridor map of 2 km are 5 km wide: nothing of it can go. Two dense places stay at any
    distance.
    """
    stray = np.zeros(len(points), bool)
    if not len(points):
        return stray
    middle, cell = _grid(points)
    (far,) = np.nonzero(_outside(points, middle, 1.5 * cell))
    if len(far):
        fewest = min(STRAY_GROUP, max(2, len(points) // 100))
        stray[far] = _alone(points[far], (points[far] - middle) / cell, fewest)
    return stray


def _without(cloud: PointCloud, dropped: Bool[np.ndarray, " n"]) -> tuple[PointCloud, int]:
    count = int(np.count_nonzero(dropped))
    return (cloud.select(~dropped) if count else cloud), count


def _not_finite(points: Float32[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    x, y, z = points.T
    missing: Bool[np.ndarray, " n"] = ~(np.isfinite(x) & np.isfinite(y) & np.isfinite(z))
    return missing


def _dropouts(cloud: PointCloud) -> Bool[np.ndarray, " n"]:
    x, y, z = (-cloud.origin).astype(np.float32)
    blank = (cloud.points[:, 0] == x) & (cloud.points[:, 1] == y) & (cloud.points[:, 2] == z)
    return blank if np.count_nonzero(blank) > 1 else np.zeros(len(cloud), bool)


def _sample(points: Float32[np.ndarray, "n 3"]) -> Float64[np.ndarray, "m 3"]:
    """All points, or many drawn at random: every k-th would follow the rings of a scanner."""
    drawn = np.random.default_rng(0).integers(len(points), size=_SAMPLE)
    return (points[drawn] if len(points) > _SAMPLE else points).astype(np.float64)


def _grid(points: Float32[np.ndarray, "n 3"]) -> tuple[Float64[np.ndarray, "3"], float]:
    """The median point and the edge of the cells, infinite where all points are equal."""
    sample = _sample(points)
    middle = np.median(sample, axis=0)
    distances = np.linalg.norm(sample - middle, axis=1)
    some = distances if np.median(distances) > 0 else distances[distances > 0]
    return middle, GAP * float(np.median(some)) if len(some) else np.inf


def _outside(
    points: Float32[np.ndarray, "n 3"], middle: Float64[np.ndarray, "3"], reach: float
) -> Bool[np.ndarray, " n"]:
    low, high = middle - reach, middle + reach
    outside = np.zeros(len(points), bool)
    for axis, values in enumerate(points.T):
        if values.min() < low[axis] or values.max() > high[axis]:
            outside |= (values < low[axis]) | (values > high[axis])
    return outside


def _alone(
    points: Float32[np.ndarray, "n 3"], offsets: Float64[np.ndarray, "n 3"], fewest: int
) -> Bool[np.ndarray, " n"]:
    """Which of these points, given also in cells from the middle, belong to stray groups."""
    beyond = np.abs(offsets).max(axis=1) >= _FARTHEST_CELL
    clipped = np.clip(np.rint(offsets), -_FARTHEST_CELL, _FARTHEST_CELL).astype(np.int64)
    cells, cell_of_point = np.unique(clipped, axis=0, return_inverse=True)
    group_of_cell = _groups(cells)
    group = group_of_cell[cell_of_point.reshape(-1)]
    _, first = np.unique(group, return_index=True)
    differs = (points != points[first[group]]).any(axis=1)
    small = np.bincount(group) < fewest
    uniform = np.bincount(group, weights=differs) == 0
    bulk = np.zeros(len(first), bool)
    bulk[group_of_cell[np.abs(cells).max(axis=1) <= 2]] = True
    stray: Bool[np.ndarray, " n"] = beyond | ((small | uniform) & ~bulk)[group]
    return stray


def _groups(cells: Int[np.ndarray, "m 3"]) -> Int[np.ndarray, " m"]:
    """The number of the group that each cell belongs to; cells that touch, if only by a corner, share one."""
    touching = cKDTree(cells).query_pairs(1.0, p=np.inf, output_type="ndarray")
    links = coo_array(
        (np.ones(len(touching), bool), (touching[:, 0], touching[:, 1])), shape=(len(cells),) * 2
    )
    return np.asarray(connected_components(links, directed=False)[1])


def _require_extent(cloud: PointCloud, cleaning: Cleaning, name: str) -> None:
    if len(cloud) < FEWEST_POINTS:
        raise InputError(
            f"{name} holds too few usable points: {cleaning}",
            remedy=f"give a cloud of {FEWEST_POINTS} points or more",
        )
    widths = _widths(_sample(cloud.points))
    if widths[0] == 0:
        raise InputError(f"all {len(cloud)} points of {name} are equal", remedy="check what wrote the file")
    if widths[1] <= THINNEST * widths[0]:
        raise InputError(
            f"all {len(cloud)} points of {name} lie on one line", remedy="check what wrote the file"
        )


def _widths(points: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "3"]:
    """Standard deviations along the principal axes, widest first."""
    centred = points - points.mean(axis=0)
    variances = np.linalg.eigvalsh(centred.T @ centred / len(points))
    return np.sqrt(np.maximum(variances[::-1], 0))
