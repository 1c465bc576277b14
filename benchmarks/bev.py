"""Registering LiDAR scans: ours, kiss-matcher and map-closures side by side on the same pairs.

Pairs come from all folders with a ground_truth.json in the layout of shared/data/lidar:
  pairs              as they are; null is a pair of different places, which must be refused.
  world_from_scan    every scan as source, the ones 5 and 10 files later as targets.
  other folders      first, middle and last scan of each folder against those of every other folder, which
                     must show other places; `--others 0` leaves these out.
Sources of the last two kinds are moved first: any turn, 5 degrees of tilt about any horizontal axis, 30 m of
shift to any side. The moves go by the names of the files: `--every 3`, for a quick run, meets the same ones.

Contenders, each with the settings that its documentation has for the data, on as many threads as there are
processors:
  ours          `gim_sfm.bev.registration.register` with its defaults, for every matcher of `--matchers` and
                every entry of `--channels`: channels joined by "+", or "default" for the verb's.
  matches       what the matches of the same matcher and channels tell alone: the move that most of them agree
                on, refined as ours is, without the search that `register` makes besides.
  kiss-matcher  `estimate` with voxels of `--voxel`, its default of 0.3 m; then small_gicp's GICP at the same
                voxels, partners within five of them, as in its SLAM system.
  map-closures  a fresh database; both scans through its voxel map as its pipeline does it, cells of 0.5 m;
                its move, which its ground alignments lift to space, is refined by GICP just the same. It is
                made to find loops among local maps of 100 m of driving, not for single scans.

Neither peer has a verification like ours, so their answers are judged by all of these:
  its inliers        kiss-matcher: valid, and 5 final inliers or more, its example's line between "likely
                     succeeded" and "might have failed". map-closures: more inliers than its
                     `inliers_threshold`, 5.
  its SLAM           kiss-matcher: 100 final inliers and 90 % of the points with a partner after GICP, the
                     defaults of its SLAM system.
  our verification   what `register` asks of a move of its own, without its test for a second place.

A right answer is less than 0.5 m and 1 degree from the truth; "other places" are false acceptances between
different places, "wrong" counts the accepted answers that are not right for one place. Metres are between
translations, in the moved frame, whose origin lies 30 m beside the sensor. Errors are over the right answers.
Seconds are medians, over the pairs of one place and over those of others, for what is refused may take
longer; they count from clouds in memory to the answer, by the clock and of the processors.
GICP is the part of the former that the peers' refinement takes where there is something to refine; ours has
it within. Our verification of the peers' answers is not counted. The contenders take turns on every pair, in
rotating order, after one round for warming up, so that noise of the machine hits all alike.
kiss-matcher and map-closures draw at random: their results differ a little from run to run.

    python benchmarks/bev.py shared/data/lidar --channels default density max_height --json bev.json
    python benchmarks/bev.py shared/data/lidar --contenders kiss-matcher map-closures --every 3
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import small_gicp
from scipy.spatial.transform import Rotation

from gim_sfm.bev import refinement as fine
from gim_sfm.bev import registration
from gim_sfm.bev.cloud_formats import load_cloud
from gim_sfm.bev.planar import fit_moves
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.bev.preparation import Prepared, prepare
from gim_sfm.bev.view_matching import MATCHED, ViewMatcher, load_view_matcher, match_views
from gim_sfm.errors import InputError, RegistrationError
from gim_sfm.recipe import TopViewSettings
from gim_sfm.threads import processors

METRES, DEGREES = 0.5, 1.0
"""Errors of a right answer are below."""
GAPS = (5, 10)
TILT, SHIFT = 5.0, 30.0
PARTNERS_WITHIN = 5.0
"""Voxels."""
KISS_INLIERS = 5
KISS_SLAM_INLIERS, KISS_SLAM_OVERLAP = 100, 0.9
CELL, FARTHEST = 0.5, 100.0
"""Of map-closures' voxel map, metres."""
QUERY = 4
"""map-closures never compares a map with its three predecessors."""
OWN, INLIERS, SLAM, OURS = "itself", "its inliers", "its SLAM", "our verification"


@dataclass(frozen=True)
class Asked:
    """A pair of scans; the truth is None for different places, the move what is done to the source first."""

    kind: str
    source: Path
    target: Path
    target_from_source: np.ndarray | None
    moved: bool

    @property
    def name(self) -> str:
        """Folders and files."""
        return f"{self.source.parent.name}/{self.source.name} {self.target.parent.name}/{self.target.name}"


@dataclass(frozen=True)
class Answer:
    """What a contender says of a pair: a move, who accepts it, and the seconds that GICP took."""

    target_from_source: np.ndarray | None
    accepted: Mapping[str, bool]
    refining: float = 0.0
    told: str = ""


Contender = Callable[[PointCloud, PointCloud], Answer]


# The pairs


def find_pairs(folder: Path, every: int, others: int) -> list[Asked]:
    """All pairs below a folder, those of different folders last."""
    truths = {path.parent: json.loads(path.read_text()) for path in sorted(folder.rglob("ground_truth.json"))}
    if not truths:
        sys.exit(f"{folder} holds no ground_truth.json")
    asked = [pair for scans, truth in truths.items() for pair in pairs_of(scans, truth, every)]
    shown = [spread(scans_of(scans, truth), others) for scans, truth in truths.items()]
    return asked + [
        Asked("other folders", source, target, None, moved=True)
        for targets, sources in combinations(shown, 2)
        for source in sources
        for target in targets
    ]


def pairs_of(scans: Path, truth: Any, every: int) -> Iterator[Asked]:
    """Pairs within a folder."""
    for pair in truth.get("pairs", ()):
        known = pair["target_from_source"]
        relative = None if known is None else np.array(known, float)
        yield Asked(scans.name, scans / pair["source"], scans / pair["target"], relative, moved=False)
    poses = {name: np.array(pose, float) for name, pose in truth.get("world_from_scan", {}).items()}
    names = sorted(poses)
    for gap in GAPS:
        for source, target in list(zip(names, names[gap:], strict=False))[::every]:
            relative = np.linalg.inv(poses[target]) @ poses[source]
            yield Asked(f"{scans.name} +{gap}", scans / source, scans / target, relative, moved=True)


def scans_of(scans: Path, truth: Any) -> list[Path]:
    """The scans that a ground truth names."""
    paired = {pair[side] for pair in truth.get("pairs", ()) for side in ("source", "target")}
    return [scans / name for name in sorted(paired | truth.get("world_from_scan", {}).keys())]


def spread(scans: Sequence[Path], count: int) -> list[Path]:
    """This many of them, evenly."""
    return [scans[k] for k in sorted(set(np.linspace(0, len(scans) - 1, count).round().astype(int).tolist()))]


def read_pair(pair: Asked) -> tuple[PointCloud, PointCloud, np.ndarray | None]:
    """Source, as moved, and target, both relative to their origins, and the truth between them."""
    source, target = load_cloud(pair.source), load_cloud(pair.target)
    move = draw_move(pair.name) if pair.moved else np.eye(4)
    points = (source.points @ move[:3, :3].T + move[:3, 3]).astype(np.float32)
    truth = pair.target_from_source
    if truth is not None:
        truth = shift(-target.origin) @ truth @ shift(source.origin) @ np.linalg.inv(move)
    moved, still = PointCloud(points, intensity=source.intensity), target.points
    return moved, PointCloud(still, intensity=target.intensity), truth


def draw_move(name: str) -> np.ndarray:
    """Any turn, the tilt, and the shift to any side; always the same for a name."""
    yaw, axis, side = np.random.default_rng(crc32(name.encode())).uniform(-np.pi, np.pi, 3)
    tilt = np.radians(TILT) * np.array([np.cos(axis), np.sin(axis), 0])
    moved = shift(SHIFT * np.array([np.cos(side), np.sin(side), 0]))
    moved[:3, :3] = (Rotation.from_rotvec(tilt) * Rotation.from_euler("z", yaw)).as_matrix()
    return moved


def shift(by: np.ndarray) -> np.ndarray:
    """4x4."""
    moved = np.eye(4)
    moved[:3, 3] = by
    return moved


# The contenders


def accepts(move: np.ndarray, one: Prepared, other: Prepared) -> bool:
    """The very judgement of the package, so that nobody meets another one."""
    return registration._measured(registration._judge(move, one, other), one, other).passes


def view_matcher(name: str, channels: str) -> ViewMatcher:
    """A matcher with its weights' defaults, and channels joined by "+" or "default"."""
    asked: Any = MATCHED if channels == "default" else channels.split("+")
    return load_view_matcher(TopViewSettings(matcher=name), asked, None, "auto")


def ours(name: str, channels: str) -> Contender:
    """The function behind the verb."""
    matcher = view_matcher(name, channels)

    def answer(source: PointCloud, target: PointCloud) -> Answer:
        try:
            found = registration.register(source, target, matcher)
        except (RegistrationError, InputError) as error:
            return Answer(None, {OWN: False}, told=error.message)
        told = f"overlap {found.overlap:.2f}, consistent {found.consistent:.3f}"
        return Answer(found.target_from_source, {OWN: True}, told=told)

    return answer


def matches_alone(name: str, channels: str) -> Contender:
    """Matching and fitting as in `register`, refinement and nothing else."""
    matcher = view_matcher(name, channels)

    def answer(source: PointCloud, target: PointCloud) -> Answer:
        try:
            one, other = prepare(source, target)
        except InputError as error:
            return Answer(None, {OURS: False}, told=error.message)
        places = match_views(matcher, one.view, other.view)
        fits = fit_moves(*places, within=registration.FITTED_WITHIN * other.view.grid.cell, most=1)
        if not fits:
            return Answer(None, {OURS: False}, told=f"{len(places[0])} matches")
        move = registration.lift(fits[0].target_from_source, one.ground, other.ground)
        for first, second, reach in zip(one.clouds, other.clouds, registration.REACHES, strict=True):
            move = fine.refine(first, second, move, within=reach * one.voxel)
        told = f"{fits[0].inliers.sum()} of {len(places[0])} matches agree"
        return Answer(move, {OURS: accepts(move, one, other)}, told=told)

    return answer


def kiss_matcher(voxel: float) -> Contender:
    """Features, matches, pruning and solving as its example calls them, and GICP."""
    kiss = peer("kiss_matcher", "kiss-matcher")

    def answer(source: PointCloud, target: PointCloud) -> Answer:
        matcher = kiss.KISSMatcher(kiss.KISSMatcherConfig(voxel))
        found = matcher.estimate(source.points, target.points)
        if not found.valid:
            return Answer(None, {INLIERS: False, SLAM: False}, told="not valid")
        coarse = np.eye(4)
        coarse[:3, :3], coarse[:3, 3] = found.rotation, np.ravel(found.translation)
        fine, overlap, seconds = refine(source, target, coarse, voxel)
        count = matcher.get_num_final_inliers()
        slam = count >= KISS_SLAM_INLIERS and overlap >= KISS_SLAM_OVERLAP
        accepted = {INLIERS: count >= KISS_INLIERS, SLAM: slam}
        return Answer(fine, accepted, seconds, f"{count} inliers, {overlap:.2f} with a partner")

    return answer


def map_closures(voxel: float) -> Contender:
    """The best closure of two local maps of one scan each, and GICP."""
    closures = peer("map_closures.map_closures", "map-closures")
    maps = peer("map_closures.voxel_map", "map-closures")
    config = closures.MapClosuresConfig(density_map_resolution=CELL)

    def local_map(cloud: PointCloud) -> np.ndarray:
        gathered = maps.VoxelMap(config.density_map_resolution, FARTHEST)
        gathered.add_points(cloud.points)
        return np.asarray(gathered.point_cloud())

    def answer(source: PointCloud, target: PointCloud) -> Answer:
        database = closures.MapClosures(config)
        database.get_best_closure(0, local_map(source))
        found = database.get_best_closure(QUERY, local_map(target))
        if found.source_id != 0:
            return Answer(None, {INLIERS: False}, told="no closure")
        fine, _, seconds = refine(source, target, np.array(found.pose), voxel)
        accepted = {INLIERS: found.number_of_inliers > config.inliers_threshold}
        return Answer(fine, accepted, seconds, f"{found.number_of_inliers} inliers")

    return answer


def peer(module: str, package: str) -> Any:
    """A package that ours does not need."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        sys.exit(f"{error}: pip install {package}, or leave it out of --contenders")


def refine(
    source: PointCloud, target: PointCloud, coarse: np.ndarray, voxel: float
) -> tuple[np.ndarray, float, float]:
    """GICP from there: the move, the share of thinned points with a partner, and the seconds."""
    began = time.perf_counter()
    threads = processors()
    (still, tree), (moving, _) = (
        small_gicp.preprocess_points(cloud.points.astype(float), voxel, num_threads=threads)
        for cloud in (target, source)
    )
    found = small_gicp.align(
        still,
        moving,
        tree,
        init_T_target_source=coarse,
        max_correspondence_distance=PARTNERS_WITHIN * voxel,
        num_threads=threads,
    )
    overlap = found.num_inliers / max(moving.size(), 1)
    return found.T_target_source, overlap, time.perf_counter() - began


def verify(source: PointCloud, target: PointCloud, target_from_source: np.ndarray) -> bool:
    """Whether a move passes what `register` asks of its own."""
    try:
        one, other = prepare(source, target)
    except InputError:
        return False
    return accepts(target_from_source, one, other)


def make_contenders(options: argparse.Namespace) -> dict[str, Contender]:
    """Everybody asked for, ours first."""
    made: dict[str, Contender] = {}
    if "ours" in options.contenders:
        asked = [(name, channels) for name in options.matchers for channels in options.channels]
        made = {f"`{name}`, {channels}": ours(name, channels) for name, channels in asked}
    if "matches" in options.contenders:
        for name in options.matchers:
            for channels in options.channels:
                made[f"`{name}`, {channels}, matches alone"] = matches_alone(name, channels)
    for name, make in (("kiss-matcher", kiss_matcher), ("map-closures", map_closures)):
        if name in options.contenders:
            made[name] = make(options.voxel)
    return made


# The run


def run(asked: Sequence[Asked], contenders: Mapping[str, Contender]) -> Iterator[dict[str, Any]]:
    """All contenders on all pairs, in turns."""
    names = list(contenders)
    for index, pair in enumerate(asked):
        began = time.perf_counter()
        source, target, truth = read_pair(pair)
        reading = time.perf_counter() - began
        if index == 0:
            for contender in contenders.values():
                contender(source, target)
        for name in np.roll(names, index).tolist():
            row = ask(contenders[name], source, target, truth)
            yield {"contender": name, "kind": pair.kind, "pair": pair.name, "reading": reading, **row}
        print(f"{index + 1} of {len(asked)}: {pair.kind}, {pair.name}", file=sys.stderr)


def ask(
    contender: Contender, source: PointCloud, target: PointCloud, truth: np.ndarray | None
) -> dict[str, Any]:
    """One answer, its seconds and its errors."""
    began, worked = time.perf_counter(), time.process_time()
    answer = contender(source, target)
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    found, accepted = answer.target_from_source, dict(answer.accepted)
    if OWN not in accepted and OURS not in accepted:
        accepted[OURS] = found is not None and verify(source, target, found)
    metres, degrees = (np.inf, np.inf) if found is None or truth is None else measure_errors(found, truth)
    return {
        "same": truth is not None,
        "right": bool(metres < METRES and degrees < DEGREES),
        "metres": metres if np.isfinite(metres) else None,
        "degrees": degrees if np.isfinite(degrees) else None,
        "accepted": {name: bool(each) for name, each in accepted.items()},
        "seconds": seconds,
        "processor seconds": worked,
        "refining": answer.refining,
        "told": answer.told,
    }


def measure_errors(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Metres between the translations and degrees between the rotations."""
    left = np.linalg.inv(truth) @ found
    turn = Rotation.from_matrix(left[:3, :3]).magnitude()
    return float(np.linalg.norm(left[:3, 3])), float(np.degrees(turn))


# The tables


def judged(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """The rows of each contender, once for each of its judges."""
    found = {row["contender"]: row["accepted"] for row in rows}
    return [
        (name, judge, [row for row in rows if row["contender"] == name])
        for name, judges in found.items()
        for judge in judges
    ]


def summarise(name: str, judge: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts, errors and seconds."""
    taken = [row for row in rows if row["accepted"][judge]]
    same = [row for row in rows if row["same"]]
    right = [row for row in taken if row["right"]]
    errors = {
        unit: [float(np.percentile([row[unit] for row in right], share)) for share in (50, 90)]
        if right
        else []
        for unit in ("metres", "degrees")
    }
    return {
        "contender": name,
        "accepted by": judge,
        "pairs": len(same),
        "right": len(right),
        "refused": sum(not row["accepted"][judge] for row in same),
        "wrong": sum(row["same"] and not row["right"] for row in taken),
        "others": len(rows) - len(same),
        "others accepted": sum(not row["same"] for row in taken),
        **errors,
        **{
            f"{unit}, {'one place' if place else 'other places'}": middle(
                [row[unit] for row in rows if row["same"] == place]
            )
            for unit in ("seconds", "processor seconds")
            for place in (True, False)
        },
        "refining": middle([row["refining"] for row in rows if row["refining"]]),
    }


def middle(values: Sequence[float]) -> float:
    """The median; 0 of none."""
    return float(np.median(values)) if values else 0.0


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a line for every contender and judge."""
    lines = [
        "| | accepted by | right | refused | wrong | other places "
        "| m, 50 and 90 % | degrees | s, one place / other | GICP s | processor s |",
        f"|---|---|{'--:|' * 9}",
    ]
    for name, judge, of_contender in judged(rows):
        told = summarise(name, judge, of_contender)
        metres = ", ".join(f"{value:.2f}" for value in told["metres"])
        degrees = ", ".join(f"{value:.2f}" for value in told["degrees"])
        cells = [
            f"{told['right']} of {told['pairs']}",
            f"{told['refused']}",
            f"{told['wrong']}",
            f"{told['others accepted']} of {told['others']}",
            metres,
            degrees,
            f"{told['seconds, one place']:.2f} / {told['seconds, other places']:.2f}",
            f"{told['refining']:.2f}" if told["refining"] else "",
            f"{told['processor seconds, one place']:.2f} / {told['processor seconds, other places']:.2f}",
        ]
        lines.append(f"| {name} | {judge} | {' | '.join(cells)} |")
    return "\n".join(lines)


def table_by_kind(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: right answers of each kind of pair; accepted ones of different places."""
    kinds = list(dict.fromkeys((row["kind"], row["same"]) for row in rows))
    heads = [kind if same else f"{kind}: accepted" for kind, same in kinds]
    lines = [f"| | accepted by | {' | '.join(heads)} |", f"|---|---|{'--:|' * len(kinds)}"]
    for name, judge, of_contender in judged(rows):
        cells = []
        for kind, same in kinds:
            these = [row for row in of_contender if (row["kind"], row["same"]) == (kind, same)]
            counted = sum(row["accepted"][judge] and (row["right"] or not same) for row in these)
            cells.append(f"{counted} of {len(these)}")
        lines.append(f"| {name} | {judge} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs everything and prints two tables, of what is done where it is stopped."""
    everybody = ("ours", "matches", "kiss-matcher", "map-closures")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="LIDAR_FOLDER")
    parser.add_argument("--matchers", nargs="+", default=["root-sift"])
    parser.add_argument("--channels", nargs="+", default=["default"], help="such as density+max_height")
    parser.add_argument("--contenders", nargs="+", choices=everybody, default=everybody)
    parser.add_argument("--every", type=int, default=1, help="take every n-th scan of a drive as source")
    parser.add_argument("--others", type=int, default=3, help="scans of a folder shown to other folders")
    parser.add_argument(
        "--voxel", type=float, default=0.3, help="metres, of kiss-matcher and the peers' GICP"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    asked = find_pairs(options.folder, options.every, options.others)
    rows: list[dict[str, Any]] = []
    try:
        rows.extend(run(asked, make_contenders(options)))
    finally:
        if rows:
            report(rows, len(asked), options)


def report(rows: Sequence[dict[str, Any]], asked: int, options: argparse.Namespace) -> None:
    """Prints the tables, and writes the file."""
    done = len({(row["kind"], row["pair"]) for row in rows})
    reading = float(np.median([row["reading"] for row in rows]))
    print(f"{done} of {asked} pairs, {processors()} processors, {reading:.2f} s to read a pair\n")
    print(f"{table(rows)}\n\n{table_by_kind(rows)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(tell(options, rows), indent=1) + "\n")


def tell(options: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What goes into the file."""
    settings = {
        name: str(value) if name in ("folder", "json") else value for name, value in vars(options).items()
    }
    packages = ["small_gicp"] + [name.replace("-", "_") for name in options.contenders if "-" in name]
    return {
        "settings": settings,
        "versions": {name: version(name) for name in packages},
        "processors": processors(),
        "summary": [summarise(*each) for each in judged(rows)],
        "pairs": rows,
    }


if __name__ == "__main__":
    main()
