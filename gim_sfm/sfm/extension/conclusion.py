"""What comes of an extension: a larger map with its report, or word why no photo could join."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pycolmap

from gim_sfm.errors import ReconstructionError
from gim_sfm.pair_file import write_pairs
from gim_sfm.recipe import ExtensionSettings
from gim_sfm.sfm.extension.enlarging import Enlarged
from gim_sfm.sfm.extension.frames import Displacement
from gim_sfm.sfm.extension.workplace import Workplace
from gim_sfm.sfm.known import read_model
from gim_sfm.sfm.maps import EXTENSION, SPARSE, keep_former, read_provenance
from gim_sfm.sfm.modelling import model_figures, plain
from gim_sfm.sfm.reconstruction import with_parallax
from gim_sfm.sfm.report import RunFacts, build_report, write_report
from gim_sfm.sfm.stopwatch import Stopwatch

TOLD = 5
"""Photos of which a message tells why they are left out."""


@dataclass(frozen=True, slots=True)
class ExtendResult:
    """What came of an extension.

    Attributes:
        model: Folder of the larger model, as COLMAP writes it.
        report: The page to look at; report.json lies beside it.
        former: Folder of the models as they were before.
        joined: New photos that are in the model now.
        left_out: New photos that are not, with the reason.
        returned: Photos that had stayed out of the model before and are in it now.
        registered: Photos in the model.
        points: 3D points.
        reprojection_error: Mean, in pixels.
        displacement: How far old photos moved.
        seconds: Wall time of the run that made it.
        settings: What it was made with, see `gim_sfm.recipe.ExtensionSettings`.
        notes: What was picked, skipped or found on the way.
    """

    model: Path
    report: Path
    former: Path
    joined: tuple[str, ...]
    left_out: Mapping[str, str]
    returned: tuple[str, ...]
    registered: int
    points: int
    reprojection_error: float
    displacement: Displacement
    seconds: float
    settings: Mapping[str, Any]
    notes: tuple[str, ...]

    def read_model(self) -> pycolmap.Reconstruction:
        """The larger model."""
        return pycolmap.Reconstruction(self.model)

    def __str__(self) -> str:
        asked = len(self.joined) + len(self.left_out)
        return "\n".join(
            [
                f"{len(self.joined)} of {asked} new photos joined; now {self.registered} photos, "
                f"{self.points} points, mean reprojection error {self.reprojection_error:.2f} px, "
                f"in {self.seconds:.0f} s",
                *self.notes,
                f"Model   {self.model}",
                f"Before  {self.former}",
                f"Report  {self.report}",
            ]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """An extension that is complete but for its publication.

    Attributes:
        place: Where it was made.
        photos: Folder of all photos.
        newcomers: The photos that were to join.
        enlarged: The model.
        facts: All that the report tells beside it.
        inputs: Digest of what the database was made from.
    """

    place: Workplace
    photos: Path
    newcomers: Sequence[str]
    enlarged: Enlarged
    facts: RunFacts
    inputs: str


def publish_extension(outcome: Outcome, watch: Stopwatch) -> ExtendResult:
    """Puts the larger model in the place of the former one, which is kept.

    Raises:
        ReconstructionError: None of the new photos is in it; the map is as it was.
    """
    model, place = outcome.enlarged.settled.model, outcome.place
    facts = _facts(outcome)
    rows = {row["name"]: row for row in build_report(facts, model)["photos"]}
    left_out = {name: _why(rows[name]) for name in outcome.newcomers if not rows[name]["registered"]}
    if len(left_out) == len(outcome.newcomers):
        raise _nobody_joined(outcome, facts, left_out, watch)
    with watch.stage("publishing"):
        former = keep_former(place.root)
    notes = (*facts.notes, *_told(outcome, left_out, former))
    result = ExtendResult(
        model=place.root / SPARSE / "0",
        report=place.root / "report.html",
        former=former,
        joined=tuple(sorted(set(outcome.newcomers) - left_out.keys())),
        left_out=left_out,
        returned=tuple(sorted(outcome.enlarged.names - set(outcome.newcomers))),
        registered=model.num_reg_images(),
        points=model.num_points3D(),
        reprojection_error=model.compute_mean_reprojection_error(),
        displacement=outcome.enlarged.displacement,
        seconds=watch.total,
        settings=facts.recipe["extension"],
        notes=notes,
    )
    facts = replace(facts, notes=notes, timings=watch.stages, network_seconds=watch.inside)
    write_pairs(place.root / "pairs.txt", [row.names for row in facts.pairs])
    write_report(place.root, build_report(facts, model), model, outcome.photos, marked=result.joined)
    models = [model, *_other_models(place.root, model)]
    place.replace(models, outcome.photos, _record(outcome, facts, result), outcome.enlarged.names)
    return result


def read_finished(root: Path, offered: Mapping[str, object]) -> ExtendResult | None:
    """The result of the last extension, if these photos were there; None where it was another or none."""
    row = read_provenance(root).get(EXTENSION)
    if row is None or "settings" not in row or not offered.keys() >= {*row["joined"], *row["left_out"]}:
        return None
    row = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    paths = {"model": root / SPARSE / "0", "report": root / "report.html", "former": root / row["former"]}
    return ExtendResult(**{**row, **paths, "displacement": Displacement(**row["displacement"])})


def plain_settings(settings: ExtensionSettings) -> dict[str, Any]:
    """Settings as a record has them."""
    return settings.model_dump(mode="json")


def _facts(outcome: Outcome) -> RunFacts:
    """The facts with what the model tells of itself and of its past."""
    settled, before = outcome.enlarged.settled, read_provenance(outcome.place.root)
    new = [asdict(row) for row in settled.calibration]
    changed = {row["camera_id"] for row in new}
    old = [row for row in before.get("calibration", ()) if row["camera_id"] not in changed]
    rows: list[Mapping[str, Any]] = json.loads(json.dumps([*old, *new], default=plain))
    return replace(
        outcome.facts,
        pairs=with_parallax(outcome.place.grown, outcome.facts, settled.model),
        models=(model_figures(settled.model, Path(SPARSE, "0"), 0, True),),
        calibration=rows,
        notes=(*outcome.facts.notes, *outcome.enlarged.notes),
    )


def _why(row: Mapping[str, Any]) -> str:
    return f"{row['status']}. {row['reason']}"


def _told(outcome: Outcome, left_out: Mapping[str, str], former: Path) -> list[str]:
    """Notes for people: who joined, who did not, and where the former model is."""
    joined = len(outcome.newcomers) - len(left_out)
    told = [f"{joined} of {len(outcome.newcomers)} new photos joined"]
    told += [f"{name} did not join: {reason}" for name, reason in sorted(left_out.items())]
    returned = sorted(outcome.enlarged.names - set(outcome.newcomers))
    told += [f"{name}, which had stayed out before, came in as well" for name in returned]
    return [*told, f"The former model is kept in {former}"]


def _record(outcome: Outcome, facts: RunFacts, result: ExtendResult) -> dict[str, Any]:
    written = asdict(result)
    written |= {"former": str(result.former.relative_to(outcome.place.root))}
    for key in ("model", "report"):
        del written[key]
    return {
        "inputs": outcome.inputs,
        "models": [asdict(row) for row in facts.models],
        "calibration": list(facts.calibration),
        "notes": list(facts.notes),
        EXTENSION: written,
    }


def _other_models(root: Path, best: pycolmap.Reconstruction) -> list[pycolmap.Reconstruction]:
    """Smaller models of the map that hold photos the best one still lacks."""
    posed = {best.images[number].name for number in best.reg_image_ids()}
    folders = sorted((root / SPARSE).glob("[1-9]*"), key=lambda folder: int(folder.name))
    models = [read_model(folder) for folder in folders]
    return [
        model for model in models if not {model.images[key].name for key in model.reg_image_ids()} <= posed
    ]


def _nobody_joined(
    outcome: Outcome, facts: RunFacts, left_out: Mapping[str, str], watch: Stopwatch
) -> ReconstructionError:
    facts = replace(facts, timings=watch.stages, network_seconds=watch.inside)
    before = read_model(outcome.place.root / SPARSE / "0")
    page = write_report(outcome.place.draft, build_report(facts, before), before, outcome.photos)
    reasons = [f"{name}: {reason}" for name, reason in sorted(left_out.items())]
    more = [f"and {len(reasons) - TOLD} more"] if len(reasons) > TOLD else []
    return ReconstructionError(
        "None of the new photos could join; the model is as it was. " + " ".join([*reasons[:TOLD], *more]),
        remedy=f"Add photos that overlap with old ones. {page} tells it photo by photo.",
    )
