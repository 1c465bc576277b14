"""From a verified database to the models of a run: mapped, calibrated, published and accounted for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from gim_sfm import matchers
from gim_sfm.files import mend_folder, replacing_folder
from gim_sfm.progress import Advance, stage
from gim_sfm.recipe import Recipe, digest
from gim_sfm.sfm.calibration import Calibration, adjust_points, calibrate
from gim_sfm.sfm.known import read_intrinsics, read_poses
from gim_sfm.sfm.mapping import build_models, publish, quiet, triangulate
from gim_sfm.sfm.maps import DATABASE, MODEL, SPARSE, has_grown, keep_former, read_provenance
from gim_sfm.sfm.matched import DatabaseFigures
from gim_sfm.sfm.refinement import read_view, refine_keypoints
from gim_sfm.sfm.report import ModelFigures
from gim_sfm.sfm.stopwatch import Stopwatch


@dataclass(frozen=True, slots=True)
class Modelled:
    """The models of a run.

    Attributes:
        best: The one to go on with, as it lies in sparse/0.
        models: Figures of all models of all tries, the best one first.
        calibration: What self-calibration found, one mapping a camera.
        notes: What had to be relaxed.
    """

    best: pycolmap.Reconstruction
    models: tuple[ModelFigures, ...]
    calibration: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Drafts:
    """Models as the mapper left them: those to publish, best first, and the figures of all."""

    models: Sequence[pycolmap.Reconstruction]
    figures: Sequence[ModelFigures]
    notes: Sequence[str]


def build_and_publish(
    photos: Path, out: Path, recipe: Recipe, database: DatabaseFigures, watch: Stopwatch
) -> Modelled:
    """Maps out/database.db, calibrates the models and writes them to out/sparse, best first.

    What an earlier run finished with the same inputs is taken as it is.

    Raises:
        ReconstructionError: No model came of the matches.
    """
    inputs = _inputs(recipe, database)
    mend_folder(out / SPARSE)
    record = read_provenance(out)
    if record.get("inputs") != inputs:
        record = _build(photos, out, recipe, database, watch)
    return Modelled(
        best=pycolmap.Reconstruction(out / MODEL),
        models=tuple(ModelFigures(**{**row, "names": tuple(row["names"])}) for row in record["models"]),
        calibration=tuple(record["calibration"]),
        notes=tuple(record["notes"]),
    )


def _inputs(recipe: Recipe, database: DatabaseFigures) -> str:
    return digest(
        database.inputs, recipe.mapping.model_dump(mode="json"), recipe.calibration.model_dump(mode="json")
    )


def _build(
    photos: Path, out: Path, recipe: Recipe, database: DatabaseFigures, watch: Stopwatch
) -> dict[str, Any]:
    known = known_cameras(out / DATABASE, recipe)
    with watch.stage("mapping", inside=True), stage("Mapping", len(database.keypoints), "photo") as advance:
        if recipe.mapping.poses is None:
            drafts = _map(photos, out, recipe, database, known, advance)
        else:
            drafts = _triangulate(photos, out, recipe.mapping.poses, advance)
    with watch.stage("refinement"):
        refined = [_refined(model, photos, recipe) for model in drafts.models]
    with watch.stage("calibration"), quiet():
        calibrated = [_calibrated(model, recipe, known) for model in drafts.models]
    with watch.stage("publishing"):
        record: dict[str, Any] = {
            "inputs": _inputs(recipe, database),
            "models": [asdict(row) for row in drafts.figures],
            "calibration": [asdict(row) for row in calibrated[0].cameras],
            "notes": [*drafts.notes, *refined[0], *_kept(out)],
        }
        record |= json.loads(json.dumps(record, default=plain))
        publish([row.model for row in calibrated], photos, out / SPARSE, record)
    return record


def _kept(out: Path) -> list[str]:
    """A model that has grown is not made again as it was, so it is kept; says where."""
    return [f"The model that had grown is kept in {keep_former(out)}"] if has_grown(out) else []


def _refined(model: pycolmap.Reconstruction, photos: Path, recipe: Recipe) -> list[str]:
    """Places the model's keypoints to sub-pixels, in place; says what came of it."""
    if not wants_refinement(recipe):
        return []
    done = refine_keypoints(model, lambda name: read_view(photos / name))
    return [
        f"Refinement moved {done.moved} of {done.compared} observations by {done.shift:.2f} px (median); "
        "the others were taken off their points"
    ]


def wants_refinement(recipe: Recipe) -> bool:
    """Whether keypoints are placed to sub-pixels, which those of some matchers are already."""
    wanted = recipe.calibration.refinement
    used = filter(None, [recipe.matching.matcher, recipe.matching.rescue])
    return wanted == "on" or (wanted == "auto" and not all(matchers.find(name).subpixel for name in used))


def _calibrated(model: pycolmap.Reconstruction, recipe: Recipe, known: frozenset[int]) -> Calibration:
    """The model with cameras as its photos determine them, unless poses or the person fix them."""
    if recipe.mapping.poses is not None and wants_refinement(recipe):
        return Calibration(adjust_points(model), ())
    if recipe.mapping.poses is not None or recipe.calibration.self_calibration == "off":
        return Calibration(model, ())
    return calibrate(model, fixed=known, seed=recipe.mapping.seed)


def known_cameras(database: Path, recipe: Recipe) -> frozenset[int]:
    """Cameras in the database whose intrinsics the person gave."""
    with pycolmap.Database.open(database) as opened:
        images = opened.read_all_images()
    if recipe.camera.camera_params is not None:
        return frozenset(image.camera_id for image in images)
    given = read_intrinsics(recipe.camera.intrinsics) if recipe.camera.intrinsics is not None else {}
    return frozenset(image.camera_id for image in images if image.name in given)


def plain(value: Any) -> Any:
    """What JSON has in the place of an array."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no place in a record")


def _map(
    photos: Path,
    out: Path,
    recipe: Recipe,
    database: DatabaseFigures,
    known: frozenset[int],
    advance: Advance,
) -> _Drafts:
    attempts = build_models(
        out / DATABASE,
        photos,
        out,
        recipe.mapping,
        inputs=database.inputs,
        constant=known,
        advance=advance,
    )
    figures: list[ModelFigures] = []
    best = [pycolmap.Reconstruction(part.folder) for part in attempts[0].components]
    for attempt in attempts:
        for part in attempt.components:
            model = pycolmap.Reconstruction(part.folder)
            figures.append(model_figures(model, part.folder.relative_to(out), attempt.seed, not figures))
    notes = [f"Seed {attempt.seed}: {attempt.relaxation}" for attempt in attempts if attempt.relaxation]
    return _Drafts(best, figures, notes)


def _triangulate(photos: Path, out: Path, poses: Path, advance: Advance) -> _Drafts:
    folder = out / "tries" / "known-poses"
    with replacing_folder(folder) as temporary:
        (temporary / "0").mkdir()
        model = triangulate(out / DATABASE, photos, read_poses(poses), temporary / "0")
    advance(model.num_reg_images())
    return _Drafts([model], [model_figures(model, (folder / "0").relative_to(out), 0, True)], [])


def model_figures(model: pycolmap.Reconstruction, folder: Path, seed: int, best: bool) -> ModelFigures:
    """What a report tells of a model."""
    names = sorted(image.name for image in model.images.values() if image.has_pose)
    return ModelFigures(
        folder=folder.as_posix(),
        seed=seed,
        registered=model.num_reg_images(),
        points=model.num_points3D(),
        reprojection_error=model.compute_mean_reprojection_error(),
        names=tuple(names),
        best=best,
    )
