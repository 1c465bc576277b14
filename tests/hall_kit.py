"""Scans of halls that are known exactly, drawn by casting rays: what stands in front hides the rest."""

from dataclasses import dataclass

import numpy as np
from cloud_kit import move
from scipy.spatial.transform import Rotation

from gim_sfm.bev.pointcloud import PointCloud

THICKNESS = 0.2
"""Of walls, metres."""

DOOR = (1.6, 2.2)
"""Width and height, metres."""


@dataclass(frozen=True, slots=True, eq=False)
class Hall:
    """Boxes between a floor at height 0 and a ceiling.

    Attributes:
        middles: Of the boxes, metres.
        halves: Half their sides.
        box_from_world: Their rotations.
        size: Of the floor along x and y, about (0, 0).
        height: Of the ceiling; infinite in the open.
    """

    middles: np.ndarray
    halves: np.ndarray
    box_from_world: np.ndarray
    size: tuple[float, float]
    height: float


@dataclass(frozen=True, slots=True)
class Scanner:
    """What rays a scanner sends: rows from the lowest to the highest angle in degrees, columns all round.

    Attributes:
        rows: Beams.
        low: Angle of the lowest to the horizontal plane of the sensor.
        high: Of the highest.
        columns: Rays of a beam in one turn.
        noise: Standard deviation of the range, metres.
        reach: Farthest range, metres.
    """

    rows: int = 32
    low: float = -22.5
    high: float = 22.5
    columns: int = 900
    noise: float = 0.015
    reach: float = 60.0


SPINNING = {rows: Scanner(rows, low=-angle, high=angle) for rows, angle in ((16, 15), (32, 22.5), (64, 45))}
TERRESTRIAL = Scanner(rows=170, low=-60, high=90, columns=400, noise=0.01)


def draw_hall(place: int, *, size: tuple[float, float] = (24.0, 16.0), height: float = 4.5) -> Hall:
    """A hall with doors, partitions, columns, shelves, tables, clutter and lamps; one for each number."""
    random, boxes = np.random.default_rng(place), _Boxes()
    _draw_walls(boxes, random, size, height, doors=3)
    area = size[0] * size[1]
    for _ in range(1 + int(area / 180)):
        _draw_partition(boxes, random, size, height)
    step = random.uniform(4.5, 7)
    for x in np.arange(-size[0] / 2 + step * 0.7, size[0] / 2 - 1, step):
        for y in np.arange(-size[1] / 2 + step * 0.7, size[1] / 2 - 1, step):
            if random.random() < 0.7:
                side = random.uniform(0.3, 0.6)
                boxes.add((x, y, height / 2), (side, side, height), 0)
    for _ in range(int(area / 30)):
        _draw_furniture(boxes, random, size, height)
    for _ in range(int(area / 12)):
        sides = random.uniform(0.15, 0.9, 3)
        boxes.add((*_spot(random, size), sides[2] / 2), sides, *random.uniform(0, [360, 25]))
    for _ in range(int(area / 25)):
        boxes.add(
            (*_spot(random, size), height - 0.4),
            (random.uniform(0.6, 2.4), 0.3, 0.25),
            90 * (random.random() < 0.5),
        )
    return boxes.hall(size, height)


def draw_empty_room(*, size: tuple[float, float] = (14.0, 9.0), height: float = 3.0) -> Hall:
    """Four walls: it looks alike from either end."""
    boxes = _Boxes()
    _draw_walls(boxes, np.random.default_rng(0), size, height, doors=0)
    return boxes.hall(size, height)


def find_spots(hall: Hall, seed: int, count: int, *, apart: tuple[float, float] = (2.0, 15.0)) -> np.ndarray:
    """Places (x, y) where a scanner can stand, each this far from the one before it."""
    random, found = np.random.default_rng([seed, 1]), []
    for _ in range(20_000):
        spot = _spot(random, hall.size, margin=1.5)
        gaps = np.linalg.norm(spot - found[-1]) if found else apart[0]
        if apart[0] <= gaps <= apart[1] and _is_free(hall, spot):
            found.append(spot)
        if len(found) == count:
            return np.array(found)
    raise ValueError(f"only {len(found)} spots")


def scan_hall(
    hall: Hall,
    spot: np.ndarray,
    *,
    seed: int,
    scanner: Scanner = SPINNING[32],
    height: float = 1.2,
    yaw: float = 0.0,
    tilt: float = 0.0,
    towards: float = 0.0,
) -> tuple[PointCloud, np.ndarray]:
    """A scan in the frame of its sensor, and world_from_sensor."""
    random = np.random.default_rng([seed, 2])
    pose = move(yaw, tilt, towards, (*spot, height))
    rays = _rays(scanner)
    ranges = _cast(hall, pose[:3, 3], rays @ pose[:3, :3].T)
    seen = ranges < scanner.reach
    ranges = ranges[seen] + random.normal(0, scanner.noise, int(seen.sum()))
    return PointCloud((rays[seen] * ranges[:, None]).astype(np.float32)), pose


def _rays(scanner: Scanner) -> np.ndarray:
    up = np.radians(np.linspace(scanner.low, scanner.high, scanner.rows))[:, None]
    round_ = np.radians(np.arange(scanner.columns) * 360 / scanner.columns)[None]
    flat = np.cos(up)
    rays = [
        flat * np.cos(round_),
        flat * np.sin(round_),
        np.broadcast_to(np.sin(up), (len(up), scanner.columns)),
    ]
    return np.stack(rays, axis=-1).reshape(-1, 3)


def _cast(hall: Hall, eye: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Range of the first surface along each ray, infinite where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        floor, ceiling = -eye[2] / rays[:, 2], (hall.height - eye[2]) / rays[:, 2]
        nearest = np.where(rays[:, 2] < 0, floor, np.where(rays[:, 2] > 0, ceiling, np.inf))
        beyond = np.abs(eye[:2] + nearest[:, None] * rays[:, :2]) > np.array(hall.size) / 2 + 6
        nearest[beyond.any(axis=1) | ~np.isfinite(nearest)] = np.inf
        for middle, half, turn in zip(hall.middles, hall.halves, hall.box_from_world, strict=True):
            there, ahead = turn @ (eye - middle), rays @ turn.T
            one, other = (-half - there) / ahead, (half - there) / ahead
            enters = np.fmin(one, other).max(axis=1)
            leaves = np.fmax(one, other).min(axis=1)
            met = (enters > 0.05) & (enters <= leaves)
            nearest[met] = np.minimum(nearest[met], enters[met])
    return nearest


class _Boxes:
    def __init__(self) -> None:
        self.rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(
        self, middle: tuple[float, ...], sides: tuple[float, ...] | np.ndarray, yaw: float, lean: float = 0
    ) -> None:
        turn = Rotation.from_euler("zx", [yaw, lean], degrees=True).as_matrix().T
        self.rows.append((np.array(middle, float), np.array(sides, float) / 2, turn))

    def hall(self, size: tuple[float, float], height: float) -> Hall:
        middles, halves, turns = (np.stack(column) for column in zip(*self.rows, strict=True))
        return Hall(middles, halves, turns, size, height)


def _draw_walls(
    boxes: _Boxes, random: np.random.Generator, size: tuple[float, float], height: float, *, doors: int
) -> None:
    holes = random.permutation(4)[:doors]
    for side, (length, away) in enumerate(
        [(size[0], size[1]), (size[0], -size[1]), (size[1], size[0]), (size[1], -size[0])]
    ):
        gaps = [random.uniform(0.2, 0.8) * (length - DOOR[0])] if side in holes else []
        ends = [0.0, *(edge for gap in gaps for edge in (gap, gap + DOOR[0])), length]
        pieces = [(*ends[k : k + 2], height, 0.0) for k in range(0, len(ends), 2)]
        pieces += [(gap, gap + DOOR[0], height - DOOR[1], DOOR[1]) for gap in gaps]
        for start, end, tall, low in pieces:
            along, out = (start + end - length) / 2, away / 2
            place = (along, out) if side < 2 else (out, along)
            sides = (end - start, THICKNESS) if side < 2 else (THICKNESS, end - start)
            boxes.add((*place, low + tall / 2), (*sides, tall), 0)


def _draw_partition(
    boxes: _Boxes, random: np.random.Generator, size: tuple[float, float], height: float
) -> None:
    """A wall into the hall, at right angles to one of its sides."""
    tall = height if random.random() < 0.5 else random.uniform(1.8, 2.6)
    axis = int(random.integers(2))
    length, at = random.uniform(0.2, 0.5) * size[axis], random.uniform(-0.35, 0.35) * size[1 - axis]
    along = random.choice([-1, 1]) * (size[axis] - length) / 2
    place, sides = (along, at), (length, THICKNESS)
    boxes.add(
        (*(place if axis == 0 else place[::-1]), tall / 2), (*(sides if axis == 0 else sides[::-1]), tall), 0
    )


def _draw_furniture(
    boxes: _Boxes, random: np.random.Generator, size: tuple[float, float], height: float
) -> None:
    """A shelf or a table, most of them along the walls' directions."""
    spot, yaw = (
        _spot(random, size),
        90.0 * random.integers(2) if random.random() < 0.7 else random.uniform(0, 180),
    )
    if random.random() < 0.5:
        boxes.add(
            (*spot, 0.5 * (tall := min(random.uniform(1.4, 2.4), height))),
            (random.uniform(1, 3.5), 0.45, tall),
            yaw,
        )
        return
    long, wide, top = random.uniform(1, 2.2), random.uniform(0.6, 1), random.uniform(0.65, 1.0)
    boxes.add((*spot, top), (long, wide, 0.05), yaw)
    turn = Rotation.from_euler("z", yaw, degrees=True).as_matrix()[:2, :2]
    for x, y in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        leg = spot + turn @ (x * (long / 2 - 0.05), y * (wide / 2 - 0.05))
        boxes.add((*leg, top / 2), (0.06, 0.06, top), yaw)


def _spot(random: np.random.Generator, size: tuple[float, float], margin: float = 0.5) -> np.ndarray:
    return random.uniform(-0.5, 0.5, 2) * (np.array(size) - 2 * margin)


def _is_free(hall: Hall, spot: np.ndarray) -> bool:
    """Whether nothing taller than a box stands within 0.7 m."""
    for height in (0.3, 0.9, 1.5):
        eye = np.array([*spot, height])
        there = np.einsum("nij,nj->ni", hall.box_from_world, eye - hall.middles)
        if (np.linalg.norm(np.maximum(np.abs(there) - hall.halves, 0), axis=1) < 0.7).any():
            return False
    return True
