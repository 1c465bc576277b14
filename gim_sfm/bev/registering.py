"""The verb `bev register`: two clouds in, where one lies in the other out, with pictures; or why not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Unpack

import numpy as np

from gim_sfm.bev.alignment.scaled_registration import register_scaled
from gim_sfm.bev.alignment.standing import stand
from gim_sfm.bev.cloud_formats import load_cloud
from gim_sfm.bev.pictures import SOURCE, TARGET, draw_matches, draw_overlay, write_picture
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.bev.preparation import Prepared, prepare
from gim_sfm.bev.registration import Registration, register_prepared
from gim_sfm.bev.scene_page import Fact, PointLayer, write_scene
from gim_sfm.bev.topview import Channel
from gim_sfm.bev.view_matching import MATCHED, ViewMatcher, load_view_matcher
from gim_sfm.errors import RegistrationError
from gim_sfm.files import write_text
from gim_sfm.recipe import MatcherKeywords, TopViewSettings, section_of

ANSWER = "registration.json"
PAGE = "view.html"

Scale = Literal["known", "unknown"]


@dataclass(frozen=True, slots=True, eq=False)
class Registered:
    """What `bev register` found.

    Attributes:
        registration: Where the source lies.
        folder: registration.json and the pictures.
    """

    registration: Registration
    folder: Path

    def __str__(self) -> str:
        found = self.registration
        rows = ("  ".join(f"{value:12.6f}" for value in row) for row in found.target_from_source)
        return "\n".join(
            [
                "target_from_source",
                *rows,
                f"{100 * found.overlap:.0f} % of the structure overlaps, {100 * found.consistent:.1f} % of "
                f"it is consistent, rmse {found.rmse:.3g}, {found.inliers} of {found.matches} matches agree, "
                f"confidence {found.confidence:.2f}",
                f"Answer and pictures  {self.folder}",
            ]
        )


def register_clouds(
    source: Path | str,
    target: Path | str,
    *,
    output: Path | str = "registration",
    scale: Scale = "known",
    channels: Sequence[Channel] = MATCHED,
    turns: int | None = None,
    cell: float | None = None,
    device: str = "auto",
    **settings: Unpack[MatcherKeywords],
) -> Registered:
    """Finds where a cloud lies in another one, from whatever turn and place.

    Args:
        source: Any file that `load_cloud` reads.
        target: Likewise.
        output: Folder for registration.json, matches.png, overlay_before.png, overlay_after.png, and
            view.html to look at both clouds in three dimensions.
        scale: `known` where both clouds have the same unit; `unknown` for points of photos, whose place is
            then also searched for at all scales, and `target_from_source` is a similarity.
        channels: What of the top views is matched.
        turns: How many turns of the source are shown to the matcher; None for 1 where it does not mind
            turns, else 12.
        cell: Side of a cell in the unit of the clouds, of the target where the scale is not known; None for
            one that goes with the smaller scene.
        device: Where a network runs.
        **settings: See `gim_sfm.recipe.TopViewSettings`.

    Raises:
        RegistrationError: The clouds do not agree in any way, or in several; registration.json says so, too.
        InputError: A cloud cannot be used.
        SettingsError: A setting that does not exist or does not fit, or small_gicp is missing.
        OutputError: The folder cannot be written.
    """
    chosen = section_of(TopViewSettings, settings)
    clouds = load_cloud(Path(source)), load_cloud(Path(target))
    matcher = load_view_matcher(chosen, channels, turns, device)
    folder = Path(output)
    asked = {
        "source": str(source),
        "target": str(target),
        "matcher": chosen.matcher,
        "channels": list(channels),
    }
    try:
        prepared, found = WAYS[scale](*clouds, matcher, cell)
    except RegistrationError as error:
        write_text(folder / ANSWER, json.dumps({**asked, "refused": error.message}, indent=1) + "\n")
        raise
    draw_registration(found, *prepared, folder, f"{Path(source).name} in {Path(target).name}")
    write_text(folder / ANSWER, json.dumps({**asked, **tell_registration(found)}, indent=1) + "\n")
    return Registered(found, folder)


def _at_known_scale(
    source: PointCloud,
    target: PointCloud,
    matcher: ViewMatcher,
    cell: float | None,
) -> tuple[tuple[Prepared, Prepared], Registration]:
    prepared = prepare(source, target, cell=cell)
    return prepared, register_prepared(*prepared, matcher)


def _at_any_scale(
    source: PointCloud,
    target: PointCloud,
    matcher: ViewMatcher,
    cell: float | None,
) -> tuple[tuple[Prepared, Prepared], Registration]:
    standing = stand(source), stand(target, cell=cell)
    found = register_scaled(*standing, matcher)
    return (standing[0].prepared, standing[1].prepared), found


WAYS = {"known": _at_known_scale, "unknown": _at_any_scale}


def tell_registration(found: Registration) -> dict[str, object]:
    """What a registration found, as JSON holds it."""
    return {
        "target_from_source": found.target_from_source.tolist(),
        "scale": float(np.cbrt(np.linalg.det(found.target_from_source[:3, :3]))),
        "overlap": found.overlap,
        "consistent": found.consistent,
        "rmse": found.rmse,
        "inliers": found.inliers,
        "matches": found.matches,
        "confidence": found.confidence,
    }


def draw_registration(found: Registration, one: Prepared, other: Prepared, folder: Path, title: str) -> None:
    """Writes the pictures and the page that show a registration."""
    _show(found, one, other, folder / PAGE, title)
    write_picture(
        folder / "matches.png", draw_matches(one.view, other.view, found.source_places, found.target_places)
    )
    to_level = other.ground.level_from_cloud @ _shift(-other.cloud.origin)
    source_points = one.thinned.points + one.cloud.origin
    for name, moved in (("before", np.eye(4)), ("after", found.target_from_source)):
        there = to_level @ moved
        points = (source_points @ there[:3, :3].T + there[:3, 3]).astype(np.float32)
        picture = draw_overlay(points, other.level_points, other.view.grid.cell)
        write_picture(folder / f"overlay_{name}.png", picture)


def _show(found: Registration, one: Prepared, other: Prepared, page: Path, title: str) -> None:
    to_level = other.ground.level_from_cloud @ _shift(-other.cloud.origin)
    lying = {"target": other.ground.level_from_cloud}
    from_points = _shift(one.cloud.origin)
    write_scene(
        page,
        [PointLayer("source", one.cloud.points, SOURCE), PointLayer("target", other.cloud.points, TARGET)],
        title=title,
        facts=[
            Fact(f"{100 * found.overlap:.0f} %", "of the structure overlaps"),
            Fact(f"{100 * found.consistent:.1f} %", "of it is consistent"),
            Fact(f"{found.rmse:.3g} m", "rmse"),
            Fact(f"{found.confidence:.2f}", "confidence"),
        ],
        states={
            "after": {**lying, "source": to_level @ found.target_from_source @ from_points},
            "before": {**lying, "source": to_level @ from_points},
        },
    )


def _shift(by: np.ndarray) -> np.ndarray:
    moved = np.eye(4)
    moved[:3, 3] = by
    return moved
