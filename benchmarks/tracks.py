"""Side by side on the same dense matches: hloc's way to keypoints, and ours.

Contenders:
  plain      hloc's rule as one would write it down: every point goes through dictionaries of cells and bins,
             then every match is assigned to the nearest keypoint and made one to one.
  hloc       hloc's own aggregate_matches and assign_matches, where hloc can be imported (PYTHONPATH).
  quantised  gim_sfm's strategy of that rule; merged, anchored and coarse-grid for comparison.

All read the matches from one HDF5 file in hloc's layout. They take turns, once for every repeat; times are
medians of processor seconds. "differing" counts matches, as places, that are in one result only.

    python benchmarks/tracks.py --points 1000000 --pairs 500 --repeats 3 --json result.json
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.spatial import KDTree

from gim_sfm.sfm.tracks import CoarseGrid, Tracks, anchored, coarse_grid, merged, quantised
from gim_sfm.types import Correspondences, Pair

CELL, ERROR, MOST = 8, 2, 8192
SIZE = (1024, 768)
PHOTOS = 40
SURFACE_POINTS = 60_000
NOISE = 0.7
GRID = CoarseGrid(origin=(0.0, 0.0), side=(8.0, 8.0))

Places = dict[Pair, set[tuple[float, ...]]]


def write_matches(path: Path, pairs: int, points: int, seed: int) -> list[Pair]:
    """Matches of a made-up collection: photos see parts of one surface, every pair places points anew."""
    random = np.random.default_rng(seed)
    every = [(f"{a:03}.jpg", f"{b:03}.jpg") for a, b in combinations(range(PHOTOS), 2)]
    chosen = [every[index] for index in sorted(random.choice(len(every), pairs, replace=False))]
    surface = random.random((SURFACE_POINTS, 2)) * SIZE
    with h5py.File(path, "w") as file:
        for first, second in chosen:
            seen = surface[random.choice(len(surface), points // pairs, replace=False)]
            group = file.create_group(f"{first}/{second}")
            for index, name in enumerate((first, second)):
                shift = (int(name[:3]) % 7) * 3.0
                moved = seen + shift + random.normal(0, NOISE, seen.shape)
                group[f"keypoints{index}"] = moved.astype(np.float32)
            group["scores"] = random.random(len(seen), np.float32)
    return chosen


def read_matches(path: Path, pairs: list[Pair]) -> Iterator[tuple[Pair, Correspondences]]:
    """One pair at a time."""
    with h5py.File(path) as file:
        for pair in pairs:
            group = file["/".join(pair)]
            arrays = (group[name][:] for name in ("keypoints0", "keypoints1", "scores"))
            yield pair, Correspondences(*arrays)


def run_ours(join: Callable[..., Tracks]) -> Callable[[Path, list[Pair]], Any]:
    """A strategy of gim_sfm: keypoints, then matches."""

    def run(path: Path, pairs: list[Pair]) -> Any:
        tracks = join(lambda: read_matches(path, pairs))
        found = {pair: tracks.matches(pair, seen).indices for pair, seen in read_matches(path, pairs)}
        return {
            pair: (tracks.keypoints[pair[0]], tracks.keypoints[pair[1]], rows) for pair, rows in found.items()
        }

    return run


def run_plain(path: Path, pairs: list[Pair]) -> Any:
    """Hloc's rule, point by point."""
    cells: dict[str, dict[tuple[float, ...], Counter[tuple[float, ...]]]] = defaultdict(dict)
    for pair, seen in read_matches(path, pairs):
        for name, points in zip(pair, (seen.points0, seen.points1), strict=True):
            owners = [tuple(row) for row in np.round((points + 0.5) / CELL) * CELL - 0.5]
            bins = [tuple(row) for row in np.round((points + 0.5) / ERROR) * ERROR - 0.5]
            for owner, place, score in zip(owners, bins, seen.scores, strict=True):
                cells[name].setdefault(owner, Counter())[place] += score
    keypoints = {}
    for name, votes in cells.items():
        best = [counter.most_common(1)[0] for counter in votes.values()]
        heaviest = np.argsort([score for _, score in best])[::-1][:MOST]
        keypoints[name] = np.array([place for place, _ in best], np.float32)[heaviest]
    found = {}
    for pair, seen in read_matches(path, pairs):
        rows = []
        for name, points in zip(pair, (seen.points0, seen.points1), strict=True):
            distance, index = KDTree(keypoints[name]).query(points)
            rows.append(np.where(distance <= ERROR, index, -1))
        joined = np.stack(rows, 1)
        kept = (joined >= 0).all(axis=1)
        found[pair] = best_of_both(joined[kept], seen.scores[kept])
    return {pair: (keypoints[pair[0]], keypoints[pair[1]], rows) for pair, rows in found.items()}


def best_of_both(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Matches that are the best scored of both their keypoints, keypoint by keypoint."""
    best: list[set[int]] = []
    for side in (0, 1):
        groups: dict[int, list[int]] = defaultdict(list)
        for place, keypoint in enumerate(rows[:, side].tolist()):
            groups[keypoint].append(place)
        best.append({max(places, key=lambda place: scores[place]) for places in groups.values()})
    return rows[sorted(best[0] & best[1])]


def run_hloc(path: Path, pairs: list[Pair]) -> Any:
    """Hloc's own functions; they write into the file of matches."""
    dense = import_module("hloc.match_dense")
    features = path.with_name("features.h5")
    h5py.File(features, "w").close()
    with h5py.File(path, "a") as file:
        for pair in pairs:
            for name in ("matches0", "matching_scores0"):
                file["/".join(pair)].pop(name, None)
    settings = {"max_error": ERROR, "cell_size": CELL}
    keypoints = dense.aggregate_matches(
        settings, pairs, path, features, max_kps=MOST, cpdict=defaultdict(list), bindict=defaultdict(list)
    )
    dense.assign_matches(pairs, path, keypoints, max_error=ERROR)
    found = {}
    with h5py.File(path) as file:
        for pair in pairs:
            matches = file["/".join(pair)]["matches0"][:]
            first = np.flatnonzero(matches >= 0)
            found[pair] = (keypoints[pair[0]], keypoints[pair[1]], np.stack([first, matches[first]], 1))
    return found


def places(result: Any) -> Places:
    """Matches as places, so that the numbering of keypoints does not matter."""
    return {
        pair: {tuple(row) for row in np.hstack([first[rows[:, 0]], second[rows[:, 1]]]).tolist()}
        for pair, (first, second, rows) in result.items()
    }


def anchors(name: str) -> np.ndarray:
    """Made-up keypoints for the anchored strategy."""
    random = np.random.default_rng(int(name[:3]))
    return (random.random((4096, 2)) * SIZE).astype(np.float32)


CONTENDERS: dict[str, Callable[[Path, list[Pair]], Any]] = {
    "plain": run_plain,
    "hloc": run_hloc,
    "quantised": run_ours(lambda read: quantised(read, cell=CELL, error=ERROR, most=MOST)),
    "merged": run_ours(lambda read: merged(read, radius=lambda _name: 3.0)),
    "anchored": run_ours(
        lambda read: anchored(read, anchors=anchors, snap=lambda _name: 1.5, radius=lambda _name: 3.0)
    ),
    "coarse-grid": run_ours(lambda read: coarse_grid(read, grid=lambda _name: GRID)),
}


def available(name: str) -> bool:
    """Whether a contender can run here."""
    if name != "hloc":
        return True
    try:
        import_module("hloc.match_dense")
    except ImportError:
        return False
    return True


def main() -> None:
    """Runs all contenders in turns and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    names = [name for name in CONTENDERS if available(name)]
    seconds: dict[str, list[float]] = defaultdict(list)
    results: dict[str, Places] = {}
    for repeat in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "matches.h5"
            pairs = write_matches(path, arguments.pairs, arguments.points, repeat)
            for name in names:
                began = time.process_time()
                found = CONTENDERS[name](path, pairs)
                seconds[name].append(time.process_time() - began)
                results[name] = places(found)
    rows = []
    for name in names:
        differing = sum(len(results[name][pair] ^ results["plain"][pair]) for pair in results[name])
        total = sum(map(len, results[name].values()))
        middle = statistics.median(seconds[name])
        rows.append({"name": name, "seconds": middle, "matches": total, "differing": differing})
    reference = next(row["seconds"] for row in rows if row["name"] == names[1 if "hloc" in names else 0])
    print(f"{arguments.points} points in {arguments.pairs} pairs of {PHOTOS} photos")
    for row in rows:
        factor = reference / row["seconds"]
        told = f"{row['differing']} differ" if row["name"] in ("plain", "hloc", "quantised") else ""
        print(f"{row['name']:12} {row['seconds']:8.2f} s {factor:6.1f}x {row['matches']:9} matches  {told}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "seconds": seconds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
