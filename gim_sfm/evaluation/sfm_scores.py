"""How far off reconstructed cameras are: photos whose poses are known, mapped with several seeds."""

import json
import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from gim_sfm import matchers
from gim_sfm.errors import InputError, OutputError, ReconstructionError, SettingsError
from gim_sfm.files import write_text
from gim_sfm.geometry import aligned_pose_errors, auc, pairwise_pose_errors, read_ground_truth
from gim_sfm.images import ImageFolder, signature
from gim_sfm.recipe import Recipe, ReconstructSettings, digest
from gim_sfm.sfm.known import read_poses
from gim_sfm.sfm.reconstruction import ReconstructResult, reconstruct

THRESHOLDS = (1.0, 3.0, 5.0, 10.0)
"""Degrees at which the area under the recall curve of relative poses is taken."""
SCORES_FILE = "sfm_scores.json"
NAMED = 3
"""Names shown as examples."""

Poses = Mapping[str, np.ndarray]
Reduction = Callable[[Sequence[float]], float]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Column:
    """How one figure is shown.

    Attributes:
        heading: Above it.
        decimals: Behind the point.
        worst: Picks the worst of several.
        factor: By which it is multiplied.
    """

    heading: str
    decimals: int
    worst: Reduction
    factor: float = 1.0

    def show(self, value: float | None) -> str:
        """The figure as text; a dash where there is none."""
        return "-" if value is None else f"{self.factor * value:.{self.decimals}f}"


COLUMNS = {
    "registered": Column("registered", 0, min),
    **{f"auc@{limit:g}": Column(f"AUC@{limit:g}", 1, min, factor=100) for limit in THRESHOLDS},
    "track_length": Column("track length", 2, min),
    "points": Column("points", 0, min),
    "reprojection_error": Column("error px", 2, max),
    "position_error": Column("position", 4, max),
    "seconds": Column("seconds", 1, max),
}
"""Every figure of a seed, by its name in `SeedScore.figures`."""


@dataclass(frozen=True, slots=True)
class SeedScore:
    """What came of one seed.

    Attributes:
        seed: The first that the mapper was given.
        figures: By the names of `COLUMNS`: photos with a true pose that are registered; AUC in [0, 1] of the
            relative poses of all pairs of photos with a true pose, those of unregistered photos failing; mean
            track length; points; mean reprojection error in pixels; median distance of the camera centres
            from the true ones after alignment, in the unit of the truth; wall time in seconds, which for the
            first seed includes extraction and matching. What is not determined is left out.
        failure: Why there is no model; empty where there is one.
    """

    seed: int
    figures: Mapping[str, float]
    failure: str = ""


@dataclass(frozen=True, slots=True)
class SfmScores:
    """Reconstructions of the same photos with several seeds, against the true cameras.

    Attributes:
        with_truth: Photos whose pose is known.
        without_truth: Photos that do not count, as their pose is unknown.
        without_photo: Names of the truth that the folder lacks; they do not count either.
        seeds: One by one.
        file: All of it as JSON.
    """

    with_truth: tuple[str, ...]
    without_truth: tuple[str, ...]
    without_photo: tuple[str, ...]
    seeds: tuple[SeedScore, ...]
    file: Path

    @property
    def median(self) -> dict[str, float]:
        """Of every figure, over the seeds that have it."""
        return self._reduced(lambda _: statistics.median)

    @property
    def worst(self) -> dict[str, float]:
        """Of every figure, over the seeds that have it; a seed without a model has 0 registered, AUC 0."""
        return self._reduced(lambda column: column.worst)

    def _reduced(self, reduction: Callable[[Column], Reduction]) -> dict[str, float]:
        known = {name: [s.figures[name] for s in self.seeds if name in s.figures] for name in COLUMNS}
        return {name: reduction(COLUMNS[name])(values) for name, values in known.items() if values}

    def __str__(self) -> str:
        rows = [["seed", *(column.heading for column in COLUMNS.values())]]
        rows += [_row(str(each.seed), each.figures) for each in self.seeds]
        rows += [_row("median", self.median), _row("worst", self.worst)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        head = f"{len(self.with_truth)} photos with a true pose; AUC in percent over all pairs of them"
        return "\n".join([head, *lines, *self._remarks(), f"Scores  {self.file}"])

    def _remarks(self) -> list[str]:
        told = [f"Seed {each.seed} gave no model: {each.failure}" for each in self.seeds if each.failure]
        if self.without_truth:
            told.append(f"Without a true pose, not counted: {_named(self.without_truth)}")
        if self.without_photo:
            told.append(f"In the truth, but no photo here, not counted: {_named(self.without_photo)}")
        return told


def _row(head: str, figures: Mapping[str, float]) -> list[str]:
    return [head, *(column.show(figures.get(name)) for name, column in COLUMNS.items())]


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def evaluate_sfm(
    photos: Path | str,
    truth: Path | str,
    out: Path | str,
    *,
    seeds: int = 3,
    device: str = "auto",
    strict: bool = False,
    recipe: Recipe | Path | str | None = None,
    **settings: Unpack[ReconstructSettings],
) -> SfmScores:
    """Reconstructs photos with several seeds and compares the cameras with the true ones.

    Features and matches are made once, mapping is repeated. Killed and called again, seeds that are done are
    not repeated; changed photos, truth or settings start anew.

    Args:
        photos: Folder of photos.
        truth: A ground_truth.json, or a COLMAP model.
        out: Folder of the reconstruction, as `reconstruct` writes it with the last seed, and of
            sfm_scores.json.
        seeds: How many, from the setting `seed` on, in steps of `tries`, so that none is used twice.
        device: auto, cpu, cuda or mps.
        strict: Raise on the first broken photo instead of leaving it out.
        recipe: Settings, or a TOML file of them; `settings` win over it.
        **settings: As of `reconstruct`.

    Raises:
        InputError: The truth cannot be read or names fewer than two of the photos; or as `reconstruct`.
        OutputError: sfm_scores.json in `out` is none; or as `reconstruct`.
        SettingsError: A setting that does not exist or does not fit.
        WeightsError: The matcher's weights cannot be had.
    """
    if seeds < 1:
        raise SettingsError(f"{seeds} seeds were asked for.", remedy="Ask for at least one.")
    base = recipe if isinstance(recipe, Recipe) else Recipe.load(Path(recipe)) if recipe else Recipe()
    chosen = base.with_settings(settings)
    folder = ImageFolder.scan(Path(photos))
    known = read_truth(Path(truth))
    _require_common(folder, known, Path(truth))
    path = Path(out) / SCORES_FILE
    record = {
        "made_from": _fingerprint(folder, known, chosen, device),
        "recipe": chosen.model_dump(mode="json"),
        "versions": {name: version(name) for name in ("gim_sfm", "pycolmap")},
    }
    done = _read_done(path, str(record["made_from"]))
    first, step = chosen.mapping.seed, chosen.mapping.tries
    asked = range(first, first + seeds * step, step)
    scores = _scores(folder, known, done, asked, path)
    for seed in asked:
        if seed in done:
            log.info("Seed %d is done already.", seed)
            continue
        done[seed] = _score_seed(folder, out, chosen, seed, device, strict, known)
        scores = _scores(folder, known, done, asked, path)
        _write(scores, record, done)
        log.info("Seed %d: %s", seed, dict(done[seed].figures))
    _write(scores, record, done)
    return scores


def read_truth(path: Path) -> dict[str, np.ndarray]:
    """True cam_from_world (3x4) by photo name, from a ground_truth.json or a COLMAP model's folder.

    Raises:
        InputError: It cannot be read.
    """
    if path.is_dir():
        return {name: view.cam_from_world.matrix() for name, view in read_poses(path).items()}
    return dict(read_ground_truth(path).cam_from_world)


def _require_common(folder: ImageFolder, known: Poses, truth: Path) -> None:
    """Refuses a truth that names fewer than two of the photos."""
    common = sorted(known.keys() & set(folder.names))
    if len(common) < 2:
        raise InputError(
            f"{truth} knows {len(common)} of the {len(folder.names)} photos in {folder.root}: there are "
            f"{_named(folder.names)}; the truth has {_named(sorted(known)) or 'no poses'}.",
            remedy="Give a truth that names photos by their paths below the folder, endings included.",
        )


def _score_seed(
    folder: ImageFolder,
    out: Path | str,
    recipe: Recipe,
    seed: int,
    device: str,
    strict: bool,
    known: Poses,
) -> SeedScore:
    began = time.perf_counter()
    truth = {name: pose for name, pose in known.items() if name in set(folder.names)}
    try:
        result = reconstruct(folder.root, out, recipe=recipe, device=device, strict=strict, seed=seed)
    except ReconstructionError as error:
        nothing = judge_poses({}, truth) | {"seconds": time.perf_counter() - began}
        return SeedScore(seed, nothing, error.message)
    return SeedScore(seed, _judge(result, truth) | {"seconds": time.perf_counter() - began})


def _judge(result: ReconstructResult, truth: Poses) -> dict[str, float]:
    """All figures of a model but its time."""
    model = result.read_model()
    poses = {image.name: image.cam_from_world().matrix() for image in model.images.values() if image.has_pose}
    return judge_poses(poses, truth) | {
        "track_length": float(model.compute_mean_track_length()),
        "points": float(model.num_points3D()),
        "reprojection_error": float(model.compute_mean_reprojection_error()),
    }


def judge_poses(poses: Poses, truth: Poses) -> dict[str, float]:
    """Registered photos, AUC and, where an alignment is determined, the median position error.

    Args:
        poses: cam_from_world (3x4) by photo name, in any frame; photos without a true pose are passed over.
        truth: The true ones.

    Returns:
        Figures by the names of `COLUMNS`.

    Raises:
        InputError: Fewer than two true poses.
    """
    areas = auc(pairwise_pose_errors(poses, truth).worst, THRESHOLDS)
    figures = {"registered": float(len(poses.keys() & truth.keys()))}
    figures |= {f"auc@{limit:g}": area for limit, area in zip(THRESHOLDS, areas, strict=True)}
    try:
        figures["position_error"] = float(np.median(aligned_pose_errors(poses, truth).position))
    except InputError:
        log.debug("The registered camera centres lie on one line; no position error.")
    return figures


def _scores(
    folder: ImageFolder, known: Poses, done: Mapping[int, SeedScore], asked: Sequence[int], path: Path
) -> SfmScores:
    names = set(folder.names)
    return SfmScores(
        with_truth=tuple(sorted(names & known.keys())),
        without_truth=tuple(sorted(names - known.keys())),
        without_photo=tuple(sorted(known.keys() - names)),
        seeds=tuple(done[seed] for seed in asked if seed in done),
        file=path,
    )


def _fingerprint(folder: ImageFolder, known: Poses, recipe: Recipe, device: str) -> str:
    """A digest of everything that the figures of a seed depend on."""
    settings = recipe.model_dump(mode="json")
    del settings["mapping"]["seed"]
    used = [recipe.matching.matcher, *filter(None, [recipe.matching.rescue])]
    named = [value for _, section in recipe for _, value in section if isinstance(value, Path)]
    return digest(
        settings,
        {name: pose.tolist() for name, pose in known.items()},
        {name: _content(folder.root / name) for name in folder.names},
        [_content(path) for path in named],
        [matchers.weights_digest(name, _weights_for(name, recipe)) for name in used],
        device,
        [version(name) for name in ("gim_sfm", "pycolmap", "torch")],
    )


def _weights_for(matcher: str, recipe: Recipe) -> Path | None:
    """Where the user wants weights looked for first; a single file is the first matcher's only."""
    weights = recipe.matching.weights
    return weights if weights and (weights.is_dir() or matcher == recipe.matching.matcher) else None


def _content(path: Path) -> object:
    """What tells a file, or the files of a folder, from others; nothing where it cannot be read."""
    if path.is_dir():
        return {str(each.relative_to(path)): _content(each) for each in path.rglob("*") if each.is_file()}
    try:
        return signature(path).digest
    except InputError:
        return None


def _read_done(path: Path, made_from: str) -> dict[int, SeedScore]:
    """Seeds of an earlier call with the same photos, truth and settings."""
    if not path.exists():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record["made_from"] == made_from:
            return {each["seed"]: SeedScore(**each) for each in record["seeds"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{path} holds no scores: {type(error).__name__}: {error}",
            remedy="Remove it, or name another folder for the output.",
        ) from error
    log.info("%s is of other photos, truth or settings; starting anew.", path)
    return {}


def _write(scores: SfmScores, record: Mapping[str, Any], done: Mapping[int, SeedScore]) -> None:
    told = {
        **record,
        "with_truth": scores.with_truth,
        "without_truth": scores.without_truth,
        "without_photo": scores.without_photo,
        "seeds": [asdict(done[seed]) for seed in sorted(done)],
        "asked": [each.seed for each in scores.seeds],
        "median": scores.median,
        "worst": scores.worst,
    }
    write_text(scores.file, json.dumps(told, indent=1) + "\n")
