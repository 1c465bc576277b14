"""Dense and semi-dense matches through each way of joining them to tracks, on photos with ground truth.

Every scene is matched once; then each strategy builds its tracks, verifies and maps them with every seed.
Registered photos, mean length of the model's tracks, and the area under the recall curve of the relative
poses of all pairs (unregistered photos fail in theirs), in per cent; medians over the seeds, the worst seed's
registered photos.

    python benchmarks/dense.py --photos PHOTOS... --matcher xfeat-star --seeds 0 1 2 3 4 --json result.json

A folder of photos holds ground_truth.json and its photos in a subfolder `images`.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gim_sfm
from gim_sfm.errors import ReconstructionError
from gim_sfm.geometry import auc, pairwise_pose_errors, read_ground_truth

THRESHOLDS = (1.0, 3.0, 5.0)
STRATEGIES = ("anchored", "merged", "quantised")


def run(scene: Path, out: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """One reconstruction and its score."""
    truth = read_ground_truth(scene / "ground_truth.json").cam_from_world
    began = time.perf_counter()
    try:
        result = gim_sfm.reconstruct(scene / "images", out, **settings)
    except ReconstructionError as error:
        return {"registered": 0, "length": 0.0, "auc": [0.0] * 3, "told": error.message}
    model = result.read_model()
    poses = {image.name: image.cam_from_world().matrix() for image in model.images.values() if image.has_pose}
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    errors = pairwise_pose_errors(poses, truth).worst
    return {
        "registered": result.registered,
        "photos": result.photos,
        "points": result.points,
        "length": report["summary"]["mean_track_length"],
        "auc": [100 * area for area in auc(errors, THRESHOLDS)],
        "tracks": report["tracks"],
        "seconds": time.perf_counter() - began,
    }


def main() -> None:
    """Runs all scenes, strategies and seeds and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument("--matcher", default="xfeat-star")
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--work", type=Path, help="keep outputs here instead of a temporary folder")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    logging.getLogger("gim_sfm").setLevel(logging.ERROR)
    rows: list[dict[str, Any]] = []
    print(
        f"{'photos':14} {'tracks':11} registered  length   AUC@1  AUC@3  AUC@5  joined: of three, conflicting"
    )
    with tempfile.TemporaryDirectory() as temporary:
        for scene in arguments.photos:
            out = (arguments.work or Path(temporary)) / f"{scene.name}-{arguments.matcher}"
            for strategy in arguments.strategies:
                runs = [
                    run(scene, out, {"matcher": arguments.matcher, "tracks": strategy, "seed": seed})
                    for seed in arguments.seeds
                ]
                rows.append({"photos": scene.name, "tracks": strategy, "runs": runs})
                print(told(rows[-1]), flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def told(row: Mapping[str, Any]) -> str:
    """A line of the table."""
    runs = row["runs"]
    registered = [found["registered"] for found in runs]
    areas = [statistics.median(found["auc"][index] for found in runs) for index in range(3)]
    length = statistics.median(found["length"] for found in runs)
    tracks = next((found["tracks"] for found in runs if "tracks" in found), None)
    joined = (
        f"{100 * tracks['of_three']:.0f} %, {100 * tracks['conflicting']:.1f} %" if tracks else "collapsed"
    )
    total = max((found.get("photos", 0) for found in runs), default=0)
    return (
        f"{row['photos']:14} {row['tracks']:11} {min(registered):3} of {total:<3}  {length:6.2f}  "
        + " ".join(f"{area:6.1f}" for area in areas)
        + f"  {joined}"
    )


if __name__ == "__main__":
    main()
