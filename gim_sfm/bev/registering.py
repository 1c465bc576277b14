"""The verb `bev register`: two clouds in, where one lies in the other out, with pictures; or why not."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
from jaxtyping import Float64

from gim_sfm.bev.alignment.scaled_registration import register_scaled
from gim_sfm.bev.alignment.standing import stand
from gim_sfm.bev.checks import check_positive, clear_output, naming, open_output, writing
from gim_sfm.bev.cloud_formats import load_cloud
from gim_sfm.bev.ground import find_ground
from gim_sfm.bev.pictures import SOURCE, TARGET, draw_matches, draw_overlay, write_picture
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.bev.preparation import Prepared, prepare
from gim_sfm.bev.registration import Registration, register_prepared
from gim_sfm.bev.scene_page import Fact, Layer, LineLayer, PointLayer, write_scene
from gim_sfm.bev.topview import Channel, choose_grid
from gim_sfm.bev.view_matching import MATCHED, ViewMatcher, demand_channels, load_view_matcher
from gim_sfm.errors import InputError, RegistrationError
from gim_sfm.files import write_text
from gim_sfm.recipe import MatcherKeywords, TopViewSettings, section_of

ANSWER = "registration.json"
PAGE = "view.html"
MATCHES = "matches.png"
OVERLAYS = {state: f"overlay_{state}.png" for state in ("before", "after")}
SHOWN = (MATCHES, *OVERLAYS.values(), PAGE)
"""What shows a registration, beside the answer."""

CAMERAS = (204, 121, 167)
NO_SIGHTS = np.empty((0, 2, 3))

Scale = Literal["known", "unknown"]
Sights = Float64[np.ndarray, "n 2 3"]


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
    check_positive(turns=turns, cell=cell)
    folder = Path(output)
    open_output(folder)
    clouds = _Named.load(Path(source)), _Named.load(Path(target))
    matcher = load_view_matcher(chosen, channels, turns, device)
    clear_output(folder, (*SHOWN, ANSWER))
    asked = {
        "source": str(source),
        "target": str(target),
        "matcher": chosen.matcher,
        "channels": list(channels),
    }
    try:
        prepared, found = WAYS[scale](*clouds, matcher, cell)
    except RegistrationError as error:
        write_answer(folder / ANSWER, {**asked, "refused": error.message})
        raise RegistrationError(error.message, remedy=error.remedy + HINTS[scale]) from error
    draw_registration(found, *prepared, folder, f"{Path(source).name} in {Path(target).name}")
    write_answer(folder / ANSWER, {**asked, **tell_registration(found)})
    return Registered(found, folder)


def write_answer(path: Path, answer: dict[str, object]) -> None:
    """Writes what was asked and what was found as JSON.

    Raises:
        OutputError: It cannot be written.
    """
    with writing(path.parent):
        write_text(path, json.dumps(answer, indent=1) + "\n")


@dataclass(frozen=True, slots=True, eq=False)
class _Named:
    """A cloud, and where it is from."""

    path: Path
    cloud: PointCloud

    @classmethod
    def load(cls, path: Path) -> "_Named":
        return cls(path, load_cloud(path))


Found = tuple[tuple[Prepared, Prepared], Registration]


def _at_known_scale(source: _Named, target: _Named, matcher: ViewMatcher, cell: float | None) -> Found:
    try:
        prepared = prepare(source.cloud, target.cloud, cell=cell)
    except InputError:
        _blame((source, target), cell)
        raise
    for named, each in zip((source, target), prepared, strict=True):
        with naming(named.path):
            demand_channels(each.view, matcher.channels)
    return prepared, register_prepared(*prepared, matcher)


def _blame(clouds: Sequence[_Named], cell: float | None) -> None:
    """Finds out which of two clouds could not be prepared.

    Raises:
        InputError: Begins with its file.
    """
    for each in clouds:
        with naming(each.path):
            choose_grid(each.cloud, find_ground(each.cloud), cell=cell)


def _at_any_scale(source: _Named, target: _Named, matcher: ViewMatcher, cell: float | None) -> Found:
    with naming(source.path):
        one = stand(source.cloud)
        demand_channels(one.prepared.view, matcher.channels)
    with naming(target.path):
        other = stand(target.cloud, cell=cell)
        demand_channels(other.prepared.view, matcher.channels)
    return (one.prepared, other.prepared), register_scaled(one, other, matcher)


WAYS: dict[Scale, Callable[[_Named, _Named, ViewMatcher, float | None], Found]] = {
    "known": _at_known_scale,
    "unknown": _at_any_scale,
}
HINTS: dict[Scale, str] = {
    "known": " Where their units may differ, as that of photos does, ask for --scale unknown.",
    "unknown": "",
}


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


def draw_registration(
    found: Registration,
    one: Prepared,
    other: Prepared,
    folder: Path,
    title: str,
    sights: Sights = NO_SIGHTS,
) -> None:
    """Writes the pictures and the page that show a registration.

    Args:
        found: Where the source lies.
        one: The source.
        other: The target.
        folder: For matches.png, the overlays, which leave out ceilings, and view.html.
        title: Of the page.
        sights: Lines from the source's cameras, in its full coordinates, for the page.

    Raises:
        OutputError: The folder cannot be written.
    """
    with writing(folder):
        _show(found, one, other, folder / PAGE, title, sights)
    matched = draw_matches(one.view, other.view, found.source_places, found.target_places)
    write_picture(folder / MATCHES, matched)
    to_level = other.ground.level_from_cloud @ _shift(-other.cloud.origin)
    from_level = _shift(one.cloud.origin) @ np.linalg.inv(one.ground.level_from_cloud)
    for state, moved in (("before", np.eye(4)), ("after", found.target_from_source)):
        there = to_level @ moved @ from_level
        points = (one.level_points @ there[:3, :3].T + there[:3, 3]).astype(np.float32)
        picture = draw_overlay(points, other.level_points, other.voxel)
        write_picture(folder / OVERLAYS[state], picture)


def _show(
    found: Registration, one: Prepared, other: Prepared, page: Path, title: str, sights: Sights
) -> None:
    to_level = other.ground.level_from_cloud @ _shift(-other.cloud.origin)
    lying = {"target": other.ground.level_from_cloud}
    from_points = _shift(one.cloud.origin)
    states = {}
    for state, moved in (("after", found.target_from_source), ("before", np.eye(4))):
        there = to_level @ moved @ from_points
        states[state] = {**lying, "source": there, "cameras": there}
    layers: list[Layer] = [
        PointLayer("source", one.cloud.points, SOURCE),
        PointLayer("target", other.cloud.points, TARGET),
    ]
    if len(sights):
        layers.append(LineLayer("cameras", sights - one.cloud.origin, CAMERAS))
    write_scene(page, layers, title=title, facts=_facts(found), states=states)


def _facts(found: Registration) -> list[Fact]:
    return [
        Fact(f"{100 * found.overlap:.0f} %", "of the structure overlaps"),
        Fact(f"{100 * found.consistent:.1f} %", "of it is consistent"),
        Fact(f"{found.rmse:.3g}", "rmse"),
        Fact(f"{found.confidence:.2f}", "confidence"),
    ]


def _shift(by: np.ndarray) -> np.ndarray:
    moved = np.eye(4)
    moved[:3, 3] = by
    return moved
