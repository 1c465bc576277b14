"""Leave one out: each photo of a set is localized against the model of the others.

The set is matched once. For every photo the others are mapped anew from those matches, in one of two ways:
  free    gim_sfm.reconstruct; the model is laid over the truth by the cameras in it (a similarity), so that
          an error of a pose holds the model's own errors, too.
  known   gim_sfm.reconstruct with the true poses of the others: an error of a pose is the localization's.
The photo left out is then localized with the map's own matcher, its camera taken for the map's by its size.
Time is that of a second call (networks, map and files are warm), and beside it, in turn, the time that the
same networks need for nothing but extraction and matching with the same photos of the map.

    python benchmarks/localize.py ../shared/data/photos/fountain-P11 --json result.json

A folder holds ground_truth.json, and its photos in a subfolder `images`.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gim_sfm.errors import LocalizationError, ReconstructionError
from gim_sfm.geometry import camera_centres, read_ground_truth, rotation_angle_degrees, umeyama

WITHIN = ((0.01, 0.1), (0.05, 0.5), (0.25, 2.0))
"""Units of the truth (metres where it is surveyed) and degrees."""


@dataclass(frozen=True)
class Outcome:
    """What became of one photo.

    Attributes:
        photo: Its name.
        position: Error in units of the truth; None where it was not localized.
        rotation: Error in degrees.
        seconds: Of a warm query.
        floor: Seconds inside extraction and matching alone.
        inliers: Places that agree with the pose.
        reason: Why it was not localized.
    """

    photo: str
    position: float | None = None
    rotation: float | None = None
    seconds: float | None = None
    floor: float | None = None
    inliers: int = 0
    reason: str = ""


def others_of(photos: Path, left_out: str, folder: Path) -> Path:
    """A folder of links to all photos but one."""
    folder.mkdir(parents=True)
    for path in sorted(photos.iterdir()):
        if path.name != left_out:
            (folder / path.name).symlink_to(path.resolve())
    return folder


def map_others(photos: Path, left_out: str, matched: Path, work: Path, settings: dict[str, Any]) -> Path:
    """A map of all photos but one, from features and matches that are there already."""
    import gim_sfm

    out = work / "map"
    out.mkdir(parents=True)
    for store in matched.glob("*.h5"):
        shutil.copy2(store, out)
    gim_sfm.reconstruct(others_of(photos, left_out, work / "photos"), out, **settings)
    return out


def time_floor(localizer: Any, photo: Path, partners: list[str]) -> float:
    """Seconds that the networks need for extraction and matching, with everything else at hand."""
    from gim_sfm.images import read_photo
    from gim_sfm.matchers.contract import SparseMatcher

    lineup, decoded = localizer._lineup, read_photo(photo, longest=localizer._lineup.longest)
    if not isinstance(lineup.matcher, SparseMatcher):
        seen = localizer._viewer.view(decoded, None)
        started = time.perf_counter()
        localizer._viewer.look(seen, partners)
        return time.perf_counter() - started
    stored = [localizer._read(name) for name in partners]
    started = time.perf_counter()
    features = lineup.detector.extract([decoded])[0]
    for row in stored:
        lineup.matcher.matcher.match([(features, row)])
    return time.perf_counter() - started


def errors_of(
    pose: np.ndarray, truth: np.ndarray, model: Path, known: dict[str, np.ndarray]
) -> tuple[float, float]:
    """Position and rotation errors of a pose, the model laid over the true poses of its photos."""
    from gim_sfm.sfm.known import read_poses

    estimated = {name: view.cam_from_world.matrix() for name, view in read_poses(model).items()}
    names = sorted(estimated)
    laid = umeyama(
        camera_centres(np.stack([estimated[name] for name in names])),
        camera_centres(np.stack([known[name] for name in names])),
    )
    centre = laid.scale * laid.rotation @ camera_centres(pose[None])[0] + laid.translation
    turned = pose[:, :3] @ laid.rotation.T @ truth[:, :3].T
    position = float(np.linalg.norm(centre - camera_centres(truth[None])[0]))
    return position, float(rotation_angle_degrees(turned[None])[0])


def straight_errors(pose: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Position and rotation errors of a pose in the frame of the truth."""
    centres = camera_centres(np.stack([pose, truth]))
    turned = pose[:, :3] @ truth[:, :3].T
    return float(np.linalg.norm(centres[0] - centres[1])), float(rotation_angle_degrees(turned[None])[0])


def try_photo(
    folder: Path, name: str, matched: Path, work: Path, frame: str, settings: dict[str, Any], repeats: int
) -> Outcome:
    """Maps the others, and localizes this one."""
    import gim_sfm

    photos, truth_file = folder / "images", folder / "ground_truth.json"
    truth = dict(read_ground_truth(truth_file).cam_from_world)
    poses = {"poses": truth_file} if frame == "known" else {}
    try:
        out = map_others(photos, name, matched, work, {**settings, **poses})
    except ReconstructionError as error:
        return Outcome(name, reason=f"no map of the others: {error.message}")
    times, floors = [], []
    with gim_sfm.Localizer.open(out) as localizer:
        try:
            answer = localizer.localize(photos / name)
        except LocalizationError as error:
            return Outcome(name, reason=error.message)
        partners = [partner.name for partner in answer.partners]
        for _ in range(repeats):
            started = time.perf_counter()
            answer = localizer.localize(photos / name)
            times.append(time.perf_counter() - started)
            floors.append(time_floor(localizer, photos / name, partners))
    pose = answer.cam_from_world.matrix()
    errors = (
        straight_errors(pose, truth[name])
        if frame == "known"
        else errors_of(pose, truth[name], out / "sparse" / "0", truth)
    )
    return Outcome(name, *errors, statistics.median(times), statistics.median(floors), answer.inliers)


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """The figures of a set."""
    found = [row for row in outcomes if row.position is not None]
    shares = {
        f"within {metres:g}, {degrees:g} deg": sum(
            row.position <= metres and row.rotation <= degrees
            for row in found  # type: ignore[operator]
        )
        / len(outcomes)
        for metres, degrees in WITHIN
    }
    median = {
        key: statistics.median([getattr(row, key) for row in found]) if found else None
        for key in ("position", "rotation", "seconds", "floor")
    }
    ratios = [row.seconds / row.floor for row in found if row.seconds and row.floor]
    return {
        "localized": len(found),
        "photos": len(outcomes),
        **{f"median {key}": value for key, value in median.items()},
        "median time over floor": statistics.median(ratios) if ratios else None,
        **shares,
    }


def run_set(folder: Path, frame: str, settings: dict[str, Any], every: int, repeats: int) -> list[Outcome]:
    """All photos of a set, one after the other."""
    import gim_sfm

    photos = folder / "images"
    with tempfile.TemporaryDirectory() as scratch:
        matched = Path(scratch) / "matched"
        gim_sfm.reconstruct(photos, matched, **settings)
        outcomes = []
        for name in sorted(path.name for path in photos.iterdir())[::every]:
            work = Path(scratch) / Path(name).stem
            outcome = try_photo(folder, name, matched, work, frame, settings, repeats)
            shutil.rmtree(work, ignore_errors=True)
            print(folder.name, frame, outcome, flush=True)
            outcomes.append(outcome)
    return outcomes


def main() -> None:
    """Reads the arguments, runs every set and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--frames", nargs="+", default=["free", "known"], choices=["free", "known"])
    parser.add_argument("--matcher", default="aliked-lightglue")
    parser.add_argument("--every", type=int, default=1, help="leave out every k-th photo only")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls a photo")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    results = {}
    for folder in chosen.folders:
        for frame in chosen.frames:
            rows = run_set(folder, frame, {"matcher": chosen.matcher}, chosen.every, chosen.repeats)
            results[f"{folder.name} {frame}"] = {**summary(rows), "rows": [asdict(row) for row in rows]}
            print(json.dumps({f"{folder.name} {frame}": summary(rows)}, indent=1), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps({"matcher": chosen.matcher, "sets": results}, indent=1))


if __name__ == "__main__":
    main()
