"""Going on from keypoints and matches that hloc, or another run of this package, wrote: no network is run."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from gim_sfm import matchers
from gim_sfm.errors import InputError, SettingsError
from gim_sfm.images import ImageFolder, read_header, signature
from gim_sfm.matchers.contract import FeaturePair, SparseMatcher
from gim_sfm.matching import ExtractionOutcome
from gim_sfm.progress import stage
from gim_sfm.recipe import MatchingSettings, Recipe
from gim_sfm.sfm.lineup import Lineup
from gim_sfm.sfm.pairing import PairChoice
from gim_sfm.sfm.positions import Positions
from gim_sfm.store import (
    FeatureStore,
    MatchStore,
    as_stored,
    feature_names,
    matched_pairs,
    read_features,
    read_pair,
)
from gim_sfm.types import Correspondences, Features, Matches, Pair, Photo

logger = logging.getLogger(__name__)

GIVEN = "given"
"""Stands for the name of a matcher where stores tell what made them."""


@dataclass(frozen=True, slots=True)
class GivenFiles:
    """A features file and the matches file that belongs to it.

    Attributes:
        features: Keypoints of photos, by name.
        matches: Matches of pairs, as indices of these keypoints.
        contents: Digests of the two.
    """

    features: Path
    matches: Path
    contents: tuple[str, str]

    @classmethod
    def of(cls, recipe: Recipe, out: Path) -> "GivenFiles | None":
        """The files of the settings; None where photos shall be matched here.

        Raises:
            SettingsError: One is named without the other, or with settings that they leave no room for.
            InputError: They cannot be read.
        """
        features, matches = recipe.given.features, recipe.given.matches
        if features is None and matches is None:
            return None
        if features is None or matches is None:
            raise SettingsError(
                "Features and matches are of no use without each other.",
                remedy="Name both files, with --features and --matches.",
            )
        _require_room(recipe)
        _require_elsewhere((features, matches), out)
        return cls(features, matches, (signature(features).digest, signature(matches).digest))

    def line_up(self, settings: MatchingSettings) -> Lineup:
        """Stands in for the matcher of the settings, whose name tells what made the files."""
        row = replace(matchers.find(settings.matcher), joining=None)
        key = {
            "matcher": GIVEN,
            "given features": self.contents[0],
            "given matches": self.contents[1],
        }
        return Lineup(
            row=row,
            matcher=SparseMatcher(_Nobody(), _Nobody()),
            detector=_Nobody(),
            joining=None,
            longest=row.image_size,
            decoded=row.image_size,
            detected=row.image_size,
            batch=1,
            features_key=key,
            matches_key=key,
        )

    def take_features(self, folder: ImageFolder, store: FeatureStore, *, strict: bool) -> ExtractionOutcome:
        """Puts the keypoints of the photos into the store; photos without features have none there.

        Args:
            folder: The photos.
            store: Takes the features; published at the end.
            strict: Raise on the first photo that cannot be read or has no features.

        Raises:
            InputError: The features are of photos of another size, or of none of the photos there are; with
                `strict`, a photo cannot be read or has no features.
        """
        broken: dict[str, str] = {}
        todo = [name for name in folder.names if not _is_kept(folder, name, store)]
        kept = len(folder.names) - len(todo)
        with (
            _opened(self.features) as file,
            stage("Taking features", len(folder.names), "photo", done=kept) as go,
        ):
            present = set(feature_names(file))
            self._require_some(present, folder, all_of_them=strict)
            for name in todo:
                try:
                    size, signed = read_header(folder.path(name)).size, signature(folder.path(name))
                except InputError as error:
                    if strict:
                        raise
                    logger.warning("%s is left out: %s", name, error.message)
                    broken[name] = error.message
                else:
                    found = read_features(file, name, size) if name in present else _nothing(size)
                    self._require_size(name, found.size, size)
                    store.write(name, found, signed)
                go(1)
        store.publish()
        return ExtractionOutcome(len(todo) - len(broken), kept, broken, (), 0.0)

    def choose(self, features: FeatureStore, names: Iterable[str]) -> PairChoice:
        """The pairs of the matches file whose photos are there and have keypoints.

        Raises:
            InputError: There is none, or the file cannot be read.
        """
        known = sorted(names)
        bare = [name for name in known if not len(features.read(name))]
        pairs, others = self.pairs_of(set(known) - set(bare))
        told = f"{len(pairs)} pairs of {len(known)} photos taken from {self.matches}"
        told += (
            f"; {others} others there are of photos that are not here or have no features" if others else ""
        )
        told += f"; {len(bare)} photos have no features in {self.features}: {_few(bare)}" if bare else ""
        return PairChoice(pairs, GIVEN, told)

    def pairs_of(self, names: Iterable[str]) -> tuple[list[Pair], int]:
        """The pairs of these photos in the matches file, and how many pairs of others it holds.

        Raises:
            InputError: There is none, or the file cannot be read.
        """
        with _opened(self.matches) as file:
            pairs, others = matched_pairs(file, names)
        if not pairs:
            raise InputError(
                f"{self.matches} holds no pair of photos that have features in {self.features}.",
                remedy="Name the files that belong to these photos; names count from the folder of photos.",
            )
        return pairs, others

    def take_matches(self, pairs: Sequence[Pair], positions: Positions) -> None:
        """Puts the matches of these pairs into the store of the matcher at work.

        Raises:
            InputError: A pair has no matches of keypoints, or of keypoints that are not there.
        """
        features, store = positions.features, positions.matches
        contents = {name: features.content(name) for pair in pairs for name in pair}
        todo = [pair for pair in pairs if not store.is_current(pair, (contents[pair[0]], contents[pair[1]]))]
        with (
            _opened(self.matches) as file,
            stage("Taking matches", len(pairs), "pair", done=len(pairs) - len(todo)) as advance,
        ):
            for pair in todo:
                self._take(file, pair, features, store)
                advance(1)
        store.publish()

    def _take(self, file: h5py.File, pair: Pair, features: FeatureStore, store: MatchStore) -> None:
        found, counts = read_pair(file, pair), (len(features.read(pair[0])), len(features.read(pair[1])))
        if isinstance(found, Correspondences):
            raise InputError(
                f"{self.matches} holds positions of {pair[0]} and {pair[1]}, which join no keypoints: it is "
                "of a dense matcher, or hloc was stopped before it joined them.",
                remedy="Let the program that made it finish, or match the photos here.",
            )
        if len(found) and (found.indices.max(axis=0) >= counts).any():
            raise InputError(
                f"The matches of {pair[0]} and {pair[1]} in {self.matches} name keypoints that are not in "
                f"{self.features}.",
                remedy="Name two files that belong together.",
            )
        stored = as_stored(found)
        store.write(pair, stored, (features.content(pair[0]), features.content(pair[1])), counts[0])

    def _require_some(self, present: set[str], folder: ImageFolder, *, all_of_them: bool) -> None:
        missing = [name for name in folder.names if name not in present]
        if len(missing) == len(folder.names) or (missing and all_of_them):
            raise InputError(
                f"{self.features} has features of {len(present)} photos ({_few(sorted(present))}), but not "
                f"of {len(missing)} in {folder.root} ({_few(missing)}).",
                remedy="Name the folder from which the names in the file count, or extract the others.",
            )

    def _require_size(self, name: str, found: tuple[int, int], size: tuple[int, int]) -> None:
        if found != size:
            raise InputError(
                f"The features of {name} in {self.features} are of a photo of {found[0]} x {found[1]} "
                f"pixels; the photo has {size[0]} x {size[1]}.",
                remedy="Name the folder of the photos that the features were made of.",
            )


class _Nobody:
    """Stands where a network would; there is nothing left for one to do."""

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        raise AssertionError(f"the features of {len(photos)} photos are given")

    def match(self, pairs: Sequence[FeaturePair]) -> list[Matches]:
        raise AssertionError(f"the matches of {len(pairs)} pairs are given")


def _require_room(recipe: Recipe) -> None:
    if recipe.matching.masks is not None:
        raise SettingsError(
            "Masks act when features are extracted; these are given.",
            remedy="Leave --masks out, or --features and --matches.",
        )
    if recipe.matching.tracks != "auto":
        raise SettingsError(
            f"{recipe.matching.tracks} tracks were asked for; matches that are given have their keypoints.",
            remedy="Leave --tracks out, or --features and --matches.",
        )
    if recipe.pairing.pairs != "auto":
        raise SettingsError(
            f"Pairs by {recipe.pairing.pairs} were asked for, but the matches that are given have their own.",
            remedy="Leave --pairs out, or --features and --matches.",
        )


def _require_elsewhere(files: Sequence[Path], out: Path) -> None:
    for path in files:
        if path.resolve().parent == out.resolve():
            raise SettingsError(
                f"{path} lies in the output folder, where this run writes files of that kind.",
                remedy="Name another output folder.",
            )


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise InputError(
            f"{path} is damaged or no HDF5 file: {error}", remedy="Name a file that hloc or gim-sfm wrote."
        ) from error
    with file:
        yield file


def _is_kept(folder: ImageFolder, name: str, store: FeatureStore) -> bool:
    try:
        return store.is_current(name, folder.path(name))
    except InputError:
        return False  # reading it meets the same error and names it


def _nothing(size: tuple[int, int]) -> Features:
    """The features of a photo of which none are given."""
    none = np.zeros(0, np.float32)
    return Features(none.reshape(0, 2), none, np.zeros((0, 0), np.float16), none, size)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
