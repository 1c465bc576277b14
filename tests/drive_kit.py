"""Scans of a drawn city, taken along a drive: walls hide what is behind them, and the truth is exact."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gim_sfm.bev.pointcloud import PointCloud

SENSOR_HEIGHT = 1.8
MOST_RANGE = 80.0
BEAMS = 32
AZIMUTHS = 900


@dataclass(frozen=True)
class City:
    """Upright walls: ends (n, 2, 2) in metres, and their heights."""

    ends: np.ndarray
    heights: np.ndarray


def draw_city(seed: int, *, width: float = 160.0, depth: float = 100.0, lane: float = 7.0) -> City:
    """A block of houses, trees and cars inside and outside a street that runs round it."""
    random = np.random.default_rng(seed)
    ends, heights = [], []
    while len(ends) < 330:
        middle = random.uniform((-45, -45), (width + 45, depth + 45))
        kind = random.choice(["house", "house", "tree", "car"])
        low, high = {"house": (4, 16), "tree": (0.4, 1.5), "car": (1.6, 4.5)}[kind]
        size = random.uniform(low, high, 2)
        if _from_street(middle, width, depth) < lane + np.hypot(*size) / 2 - (3 if kind == "car" else 0):
            continue
        angle = random.uniform(0, np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = middle + (np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size / 2) @ turn.T
        ends.append(np.stack([corners, np.roll(corners, -1, axis=0)], axis=1))
        tall = {"house": (3, 12), "tree": (4, 9), "car": (1.3, 2.2)}[kind]
        heights.append(np.full(4, random.uniform(*tall)))
    return City(np.concatenate(ends), np.concatenate(heights))


def drive_round(width: float = 160.0, depth: float = 100.0, *, step: float, aside: float = 0.0) -> np.ndarray:
    """world_from_scan of a drive round the block, this far to the right of the street's middle."""
    corners = np.array([[0, 0], [width, 0], [width, depth], [0, depth], [0, 0.0]])
    sides = [drive_along(*ends, step=step, aside=aside) for ends in pairwise(corners)]
    return np.concatenate(sides)


def drive_along(start: np.ndarray, end: np.ndarray, *, step: float, aside: float = 0.0) -> np.ndarray:
    """world_from_scan of a straight drive."""
    length = float(np.linalg.norm(end - start))
    ahead = (end - start) / length
    right = aside * np.array([ahead[1], -ahead[0]])
    return np.array([standing(start + way * ahead + right, ahead) for way in np.arange(0, length, step)])


def standing(place: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """world_from_scan of a sensor over this place that looks ahead."""
    pose = np.eye(4)
    pose[:2, 0], pose[:2, 1], pose[:2, 3] = ahead, (-ahead[1], ahead[0]), place
    pose[2, 3] = SENSOR_HEIGHT
    return pose


def scan_city(city: City, world_from_scan: np.ndarray, seed: int) -> PointCloud:
    """What a spinning sensor sees from there: the nearest wall or the ground along each beam."""
    random = np.random.default_rng(seed)
    angles = np.linspace(-np.pi, np.pi, AZIMUTHS, endpoint=False) + random.uniform(0, 0.007)
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ world_from_scan[:2, :2].T
    ranges = _distances(city.ends - world_from_scan[:2, 3], ways)
    slopes = np.tan(np.radians(np.linspace(-24, 12, BEAMS)))
    found = np.full((BEAMS, AZIMUTHS), np.inf)
    for row, slope in enumerate(slopes):
        hit = ranges * slope + SENSOR_HEIGHT < city.heights
        found[row] = np.where(hit, ranges, np.inf).min(axis=1)
        if slope < 0:
            found[row] = np.minimum(found[row], -SENSOR_HEIGHT / slope)
    found += random.normal(0, 0.02, found.shape)
    seen = found < MOST_RANGE
    row, column = np.nonzero(seen)
    flat = found[seen][:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)[column]
    return PointCloud.of(np.column_stack([flat, found[seen] * slopes[row]]))


def drifting(
    world_from_scan: np.ndarray, seed: int, *, turn: float = 0.005, share: float = 0.01
) -> np.ndarray:
    """The same as odometry would tell: small errors of every step add up; degrees a metre, and of the way."""
    random = np.random.default_rng(seed)
    poses = [world_from_scan[0]]
    for before, after in pairwise(world_from_scan):
        step = np.linalg.inv(before) @ after
        length = float(np.linalg.norm(step[:3, 3]))
        wrong = np.eye(4)
        angle = np.radians(turn) * length * (1 + random.normal(0, 0.5))
        wrong[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        wrong[:3, 3] = random.normal(0, share * length, 3)
        poses.append(poses[-1] @ step @ wrong)
    return np.array(poses)


def _from_street(place: np.ndarray, width: float, depth: float) -> float:
    x, y = place
    inside = 0 <= x <= width and 0 <= y <= depth
    if inside:
        return float(min(x, width - x, y, depth - y))
    return float(np.hypot(max(-x, 0, x - width), max(-y, 0, y - depth)))


def _distances(ends: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """Range to each wall along each way, infinite where it is missed: (ways, walls)."""
    start, along = ends[:, 0], ends[:, 1] - ends[:, 0]
    cross = ways[:, None, 0] * along[:, 1] - ways[:, None, 1] * along[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (start[:, 0] * along[:, 1] - start[:, 1] * along[:, 0]) / cross
        share = (start[:, 0] * ways[:, None, 1] - start[:, 1] * ways[:, None, 0]) / cross
    return np.where((distance > 0) & (share >= 0) & (share <= 1), distance, np.inf)
