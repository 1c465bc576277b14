"""A matcher of the table, loaded with all that it needs to stand in a reconstruction."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gim_sfm import matchers
from gim_sfm.errors import SettingsError
from gim_sfm.matchers import Joining, MatcherRow
from gim_sfm.matchers.contract import Detector, Matcher, SparseMatcher
from gim_sfm.recipe import MatcherSettings, MatchingSettings

STORES_VERSION = 1
"""Raised when the same settings would give other features or matches than before."""

Key = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lineup:
    """A matcher ready to work.

    Attributes:
        row: Its row of the table.
        matcher: Its network.
        detector: Finds keypoints that repeat: a sparse matcher's own, a companion's for the others.
        joining: How its matches become tracks; None where they join keypoints already.
        longest: Longest side in pixels of a photo as the matcher sees it; its tolerances go by this.
        decoded: Longest side in pixels that it makes use of.
        detected: Longest side in pixels of a photo as the detector sees it.
        batch: Photos or pairs it takes at once.
        features_key: What the detector's features depend on besides the photos and masks.
        matches_key: What matches, and a semi-dense matcher's own features, depend on besides.
    """

    row: MatcherRow
    matcher: Matcher
    detector: Detector
    joining: Joining | None
    longest: int
    decoded: int
    detected: int
    batch: int
    features_key: Key
    matches_key: Key

    @property
    def carries(self) -> bool:
        """Whether the detector's keypoints go along with the matches."""
        return self.joining == "anchored"


def assemble(settings: MatchingSettings, device: str, *, beside: Lineup | None = None) -> Lineup:
    """Loads the matcher of the settings, and its companion where it finds no keypoints.

    Args:
        settings: Which, and how.
        device: Where it shall compute.
        beside: A matcher whose keypoints it shall use, instead of a companion's.

    Raises:
        SettingsError: Matcher, device or way of joining do not exist or do not go together.
        WeightsError: Weights cannot be had.
    """
    row = matchers.find(settings.matcher)
    joining = choose_joining(row, settings.tracks)
    matcher = load_matcher(row, settings, device)
    finder = beside or _finder(row, matcher, settings, device)
    key = stores_key(row, settings)
    longest = settings.image_size or row.image_size
    return Lineup(
        row=row,
        matcher=matcher,
        detector=finder.detector,
        joining=joining,
        longest=longest,
        decoded=round(longest * row.finest),
        detected=finder.detected,
        batch=batch_size(row, settings, device),
        features_key=finder.features_key,
        matches_key=key | {"carried": finder.features_key["matcher"]} if joining == "anchored" else key,
    )


@dataclass(frozen=True, slots=True)
class _Finder:
    """What finds keypoints that repeat, as far as a `Lineup` tells of it."""

    detector: Detector
    detected: int
    features_key: Key


def _finder(row: MatcherRow, matcher: Matcher, settings: MatchingSettings, device: str) -> _Finder:
    if isinstance(matcher, SparseMatcher):
        return _Finder(matcher.detector, settings.image_size or row.image_size, stores_key(row, settings))
    asked = companion_settings(settings, row)
    companion = matchers.find(asked.matcher)
    loaded = load_matcher(companion, asked, device)
    assert isinstance(loaded, SparseMatcher)
    return _Finder(loaded.detector, companion.image_size, stores_key(companion, asked))


def choose_joining(row: MatcherRow, asked: str) -> Joining | None:
    """The way from a matcher's matches to tracks.

    Raises:
        SettingsError: It was asked for and does not suit the matcher.
    """
    known: dict[str, Joining] = {"anchored": "anchored", "merged": "merged", "quantised": "quantised"}
    if row.grid:
        known["coarse-grid"] = "coarse-grid"
    if asked == "auto":
        return row.joining
    if row.joining is None or asked not in known:
        raise SettingsError(
            f"{asked} tracks do not suit {row.name}.",
            remedy=f"Use one of auto, {', '.join(known)}."
            if row.joining
            else "Leave --tracks out: its matches join keypoints that repeat by themselves.",
        )
    return known[asked]


def companion_settings(settings: MatchingSettings, row: MatcherRow) -> MatchingSettings:
    """Settings of the matcher whose keypoints serve one that has none, or none that repeat."""
    return MatchingSettings(
        matcher=row.anchors,
        weights=_folder(settings),
        precision=settings.precision,
        max_keypoints=settings.max_keypoints or row.max_keypoints,
    )


def rescue_settings(settings: MatchingSettings) -> MatchingSettings | None:
    """Settings of the second matcher, if one is named: its own defaults, in the same precision.

    Raises:
        SettingsError: It is the first one again.
    """
    if settings.rescue is None:
        return None
    if settings.rescue == settings.matcher:
        raise SettingsError(
            f"{settings.rescue} cannot rescue what it failed at itself.",
            remedy="Name another matcher with --rescue.",
        )
    return MatchingSettings(
        matcher=settings.rescue,
        weights=_folder(settings),
        precision=settings.precision,
        batch=settings.batch,
        tracks="anchored" if matchers.find(settings.rescue).joining else "auto",
    )


def _folder(settings: MatchingSettings) -> Path | None:
    """The folder of weights, if one is named; a single file is the first matcher's."""
    return settings.weights if settings.weights and settings.weights.is_dir() else None


def load_matcher(row: MatcherRow, settings: MatcherSettings, device: str) -> Matcher:
    """Loads the network of a row as the settings want it; see `gim_sfm.matchers.load`."""
    return matchers.load(
        row.name,
        weights=settings.weights,
        device=device,
        precision=settings.precision,
        max_keypoints=settings.max_keypoints,
        image_size=settings.image_size,
    )


def stores_key(row: MatcherRow, settings: MatcherSettings) -> dict[str, Any]:
    """What a matcher's features and matches depend on besides the photos; fetches missing weights."""
    return {
        "matcher": row.name,
        "weights": matchers.weights_digest(row.name, settings.weights),
        "image_size": settings.image_size or row.image_size,
        "max_keypoints": settings.max_keypoints or row.max_keypoints,
        "precision": settings.precision,
        "version": STORES_VERSION,
    }


def batch_size(row: MatcherRow, settings: MatcherSettings, device: str) -> int:
    """Photos or pairs that the network takes at once."""
    return settings.batch or (1 if matchers.resolve_device(device).type == "cpu" else row.batch)
