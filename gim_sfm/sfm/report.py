"""What came of a reconstruction, photo by photo, and why: report.json, and report.html to look at."""

import importlib.metadata
import json
import platform
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pycolmap

from gim_sfm.files import write_text
from gim_sfm.sfm.report_page import render_page
from gim_sfm.sfm.report_scene import draw_model
from gim_sfm.sfm.track_quality import TrackFigures
from gim_sfm.threads import processors
from gim_sfm.types import Pair

FEW_MATCHES = 15
"""COLMAP's mapper ignores pairs with fewer verified matches than this."""

NEEDED_TO_REGISTER = 30
"""COLMAP's mapper wants this many 2D-3D inliers before it registers a photo."""

LOW_PARALLAX_DEGREES = 1.5
"""Points seen under a smaller angle than this are not triangulated by COLMAP's mapper."""

PACKAGES = (
    "gim_sfm",
    "pycolmap",
    "torch",
    "kornia",
    "numpy",
    "scipy",
    "opencv-python-headless",
    "h5py",
    "pillow",
)

Status = Literal[
    "registered",
    "unreadable file",
    "no keypoints",
    "no pairs",
    "few matches",
    "no verified pair",
    "low parallax",
    "left out by the mapper",
    "in another model",
]

ADVICE: Mapping[Status, str] = {
    "registered": "",
    "unreadable file": "The file is damaged or no photo; replace it.",
    "no keypoints": "Nothing to hold on to: blank, blurred or masked all over.",
    "no pairs": "It was compared with no other photo; choose pairs otherwise (--pairs exhaustive).",
    "few matches": "It looks like none of the photos it was compared with; add photos in between, or check "
    "that it belongs here.",
    "no verified pair": "Its matches fit no geometry: repeated patterns, another place, or little overlap. "
    "A second matcher may find more (reconstruct --rescue).",
    "low parallax": "It shares its view point with its partners; add photos taken a step aside.",
    "left out by the mapper": "Matched, but too few of its points are seen by registered photos; add photos "
    "in between, or try a second matcher (reconstruct --rescue) or more seeds (reconstruct --tries 5).",
    "in another model": "It joined a smaller model that could not be linked with the best one; add photos in "
    "between.",
}


@dataclass(frozen=True, slots=True)
class PairFigures:
    """What became of one pair.

    Attributes:
        names: The two photos.
        matches: Matches found.
        inliers: Matches that agree with one two-view geometry; 0 where the pair was refused.
        angle_degrees: Median triangulation angle of the inliers, where it is known.
    """

    names: Pair
    matches: int
    inliers: int
    angle_degrees: float | None = None


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """One model of one try.

    Attributes:
        folder: Where it lies, relative to the output folder.
        seed: Seed it was made with.
        registered: Photos in it.
        points: 3D points.
        reprojection_error: Mean, in pixels.
        names: Photos in it.
        best: The one that the report is about.
    """

    folder: str
    seed: int
    registered: int
    points: int
    reprojection_error: float
    names: tuple[str, ...] = ()
    best: bool = False


@dataclass(frozen=True, slots=True)
class RunFacts:
    """All that a run knows beside its model; plain data, so that any stage can fill its part.

    Attributes:
        names: Every photo found, the broken ones too.
        keypoints: Number of keypoints by photo.
        pairs: Every pair that was matched.
        broken: What is wrong with each file that could not be read.
        models: All models of all tries.
        timings: Wall seconds by stage, in the order they ran.
        network_seconds: Seconds inside networks and pycolmap, by stage.
        calibration: What self-calibration did, one mapping a camera: `camera_id`, `verdict`, `before` and
            `after` (parameters), and whatever else is worth telling.
        recipe: All settings, by section.
        tracks: How the verified matches hang together.
        device: Where the networks ran, e.g. "cpu" or a GPU's name.
        notes: Further sentences worth telling, e.g. what `auto` picked.
    """

    names: Sequence[str]
    keypoints: Mapping[str, int]
    pairs: Sequence[PairFigures]
    broken: Mapping[str, str] = field(default_factory=dict)
    models: Sequence[ModelFigures] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    network_seconds: Mapping[str, float] = field(default_factory=dict)
    calibration: Sequence[Mapping[str, Any]] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    tracks: TrackFigures | None = None
    device: str = "cpu"
    notes: Sequence[str] = ()


def build_report(facts: RunFacts, model: pycolmap.Reconstruction | None) -> dict[str, Any]:
    """Gathers everything worth knowing about a run, as JSON-like values.

    Args:
        facts: What the run knows.
        model: Its best model, or None where none came of it.

    Returns:
        `summary`, `photos` (one row each), `pairs`, `cameras`, `calibration`, `models`, `timings_s`,
        `network_s`, `versions`, `machine`, `recipe`, `notes`.
    """
    seen = {} if model is None else _registered(model)
    mine = _pairs_by_photo(facts.pairs)
    photos = [_photo_row(name, mine[name], facts, seen) for name in facts.names]
    return {
        "summary": _summary(facts, model, photos),
        "photos": photos,
        "pairs": [_pair_row(pair) for pair in facts.pairs],
        "cameras": _camera_rows(model),
        "tracks": asdict(facts.tracks) if facts.tracks else None,
        "calibration": [dict(row) for row in facts.calibration],
        "models": [asdict(row) for row in facts.models],
        "timings_s": dict(facts.timings),
        "network_s": dict(facts.network_seconds),
        "versions": versions(),
        "machine": machine(facts.device),
        "recipe": dict(facts.recipe),
        "notes": list(facts.notes),
    }


def write_report(
    out: Path,
    report: Mapping[str, Any],
    model: pycolmap.Reconstruction | None,
    photos: Path,
    *,
    marked: Collection[str] = (),
) -> Path:
    """Writes OUT/report.json and OUT/report.html, each in one step.

    Args:
        out: Output folder.
        report: What `build_report` returned.
        model: The model to draw.
        photos: Folder of the photos, for thumbnails.
        marked: Photos that have joined an older model; they stand out among its cameras.

    Returns:
        Path of report.html.
    """
    write_text(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False, default=str) + "\n")
    page = out / "report.html"
    write_text(page, render_page(report, draw_model(model, marked), photos))
    return page


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine(device: str) -> dict[str, Any]:
    """The computer that did it."""
    return {
        "processor": _processor(),
        "cores": processors(),
        "system": platform.platform(),
        "device": device,
    }


def _processor() -> str:
    """The processor's marketing name where the system tells it."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True, slots=True)
class _Seen:
    camera_id: int
    observations: int
    reprojection_error: float | None


def _observed(image: pycolmap.Image, camera: pycolmap.Camera, places: Mapping[int, np.ndarray]) -> _Seen:
    """How a registered photo sees the model; its error is the mean over its own observations, in pixels."""
    observed = image.get_observation_points2D()
    if not observed:
        return _Seen(image.camera_id, 0, None)
    xyz = np.array([places[point.point3D_id] for point in observed])
    pose = image.cam_from_world().matrix()
    projected = np.asarray(camera.img_from_cam(xyz @ pose[:, :3].T + pose[:, 3]), np.float64)
    gaps = np.linalg.norm(projected - [point.xy for point in observed], axis=1)
    return _Seen(image.camera_id, len(observed), _rounded(np.nanmean(gaps)))


def _registered(model: pycolmap.Reconstruction) -> dict[str, _Seen]:
    """What each registered photo sees, by name."""
    places = {key: point.xyz for key, point in model.points3D.items()}
    images = [model.images[key] for key in model.reg_image_ids()]
    return {str(image.name): _observed(image, model.cameras[image.camera_id], places) for image in images}


def _pairs_by_photo(pairs: Iterable[PairFigures]) -> Mapping[str, list[PairFigures]]:
    mine: defaultdict[str, list[PairFigures]] = defaultdict(list)
    for pair in pairs:
        for name in pair.names:
            mine[name].append(pair)
    return mine


def _photo_row(
    name: str, mine: Sequence[PairFigures], facts: RunFacts, seen: Mapping[str, _Seen]
) -> dict[str, Any]:
    matches, inliers = sum(pair.matches for pair in mine), sum(pair.inliers for pair in mine)
    status = _status(name, mine, facts, seen)
    view = seen.get(name)
    return {
        "name": name,
        "registered": view is not None,
        "status": status,
        "reason": _reason(name, status, mine, facts),
        "camera_id": view.camera_id if view else None,
        "keypoints": facts.keypoints.get(name, 0),
        "pairs": len(mine),
        "verified_pairs": sum(pair.inliers > 0 for pair in mine),
        "matches": matches,
        "inliers": inliers,
        "inlier_ratio": _ratio(inliers, sum(pair.matches for pair in mine if pair.inliers)),
        "observations": view.observations if view else 0,
        "reprojection_error": view.reprojection_error if view else None,
    }


def _status(name: str, mine: Sequence[PairFigures], facts: RunFacts, seen: Mapping[str, _Seen]) -> Status:
    """The first thing that went wrong on the photo's way into the model."""
    verified = [pair for pair in mine if pair.inliers >= FEW_MATCHES]
    angles = [pair.angle_degrees for pair in verified if pair.angle_degrees is not None]
    stumbles: Sequence[tuple[bool, Status]] = (
        (name in seen, "registered"),
        (name in facts.broken, "unreadable file"),
        (facts.keypoints.get(name, 0) == 0 and not mine, "no keypoints"),
        (not mine, "no pairs"),
        (max((pair.matches for pair in mine), default=0) < FEW_MATCHES, "few matches"),
        (not verified, "no verified pair"),
        (any(name in row.names for row in facts.models if not row.best), "in another model"),
        (bool(angles) and max(angles, default=0.0) < LOW_PARALLAX_DEGREES, "low parallax"),
    )
    return next((status for stumbled, status in stumbles if stumbled), "left out by the mapper")


def _reason(name: str, status: Status, mine: Sequence[PairFigures], facts: RunFacts) -> str:
    """Why a photo is not registered, with figures, and what may help; empty for registered ones."""
    best = max(mine, key=lambda pair: (pair.inliers, pair.matches), default=None)
    figures = ""
    if status == "unreadable file":
        figures = facts.broken[name].rstrip(". ") + "."
    elif best is not None and status != "registered":
        partner = best.names[1] if best.names[0] == name else best.names[0]
        figures = (
            f"Best of {len(mine)} pairs: {best.matches} matches, {best.inliers} verified, with {partner}."
        )
    return " ".join(part for part in (figures, ADVICE[status]) if part)


def _pair_row(pair: PairFigures) -> dict[str, Any]:
    row = {"names": list(pair.names), "matches": pair.matches, "inliers": pair.inliers}
    return row if pair.angle_degrees is None else row | {"angle_degrees": pair.angle_degrees}


def _summary(
    facts: RunFacts, model: pycolmap.Reconstruction | None, photos: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    ratios = [pair.inliers / pair.matches for pair in facts.pairs if pair.inliers]
    lengths, errors = _tracks(model)
    return {
        "registered": sum(row["registered"] for row in photos),
        "total": len(photos),
        "points": len(lengths),
        "observations": int(np.sum(lengths)),
        "mean_track_length": _rounded(np.mean(lengths)) if len(lengths) else None,
        "track_lengths": {str(length): count for length, count in sorted(Counter(lengths).items())},
        "reprojection_error": _spread(errors),
        "inlier_ratio": _spread(ratios),
        "pairs": len(facts.pairs),
        "verified_pairs": sum(pair.inliers > 0 for pair in facts.pairs),
        "statuses": dict(Counter(str(row["status"]) for row in photos)),
        "models": len(facts.models),
        "seconds": _rounded(sum(facts.timings.values())),
        "network_seconds": _rounded(sum(facts.network_seconds.values())),
    }


def _tracks(model: pycolmap.Reconstruction | None) -> tuple[list[int], list[float]]:
    """Length of every track, and its mean reprojection error in pixels where COLMAP knows it."""
    points = list(model.points3D.values()) if model is not None else []
    return [point.track.length() for point in points], [point.error for point in points if point.has_error()]


def _spread(values: Iterable[float]) -> dict[str, float] | None:
    array = np.asarray(list(values), dtype=np.float64)
    if array.size == 0:
        return None
    low, middle, high = np.percentile(array, (10, 50, 90))
    return {
        "mean": _rounded(array.mean()),
        "median": _rounded(middle),
        "p10": _rounded(low),
        "p90": _rounded(high),
    }


def _ratio(part: int, whole: int) -> float | None:
    return _rounded(part / whole) if whole else None


def _rounded(value: "float | np.floating[Any]") -> float:
    return round(float(value), 4)


def _camera_rows(model: pycolmap.Reconstruction | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    photos = Counter(model.images[key].camera_id for key in model.reg_image_ids())
    return [
        {
            "camera_id": key,
            "model": camera.model_name,
            "width": camera.width,
            "height": camera.height,
            "params": dict(zip(_parameter_names(camera), camera.params.tolist(), strict=True)),
            "photos": photos[key],
        }
        for key, camera in sorted(model.cameras.items())
        if photos[key]
    ]


def _parameter_names(camera: pycolmap.Camera) -> list[str]:
    return [name.strip() for name in camera.params_info.split(",")]
