"""Features and matches on disk, laid out as hloc does, so that either program reads the other's files.

features.h5: a group per photo, named by its path, with keypoints (n x 2, x and y in file pixels), scores,
scales, descriptors (d x n) and image_size (width, height). matches.h5: a group per pair, `<first>/<second>`
with '/' inside names written '-', with matches0 (the index of each first keypoint's match, or -1) and
matching_scores0; or keypoints0, keypoints1 and scores where the matcher gives positions, not indices.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from gim_sfm.archive import Archive, Packed
from gim_sfm.errors import InputError
from gim_sfm.groups import Arrays, read_group
from gim_sfm.images import Signature, is_unchanged
from gim_sfm.types import Correspondences, Features, Matches, Pair


class FeatureStore:
    """The features of every photo; open it with `FeatureStore.open` in a with block."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    @classmethod
    def open(
        cls, path: Path | str, digest: str, settings: Mapping[str, Any], *, uncertainty: float = 1.0
    ) -> "FeatureStore":
        """Opens or begins a features file.

        Args:
            path: Usually OUT/features.h5.
            digest: Names the settings and weights that make the features, in hexadecimal. A file with another
                digest is set aside under superseded/, and taken up again when its digest is asked for.
            settings: What the digest stands for; a warning names what changed.
            uncertainty: Standard deviation of the keypoints in pixels, noted for hloc.

        Raises:
            OutputError: The folder cannot be written, another run uses it, the file is damaged or not ours.
        """
        return cls(Archive(Path(path), digest, settings, {"keypoints": {"uncertainty": uncertainty}}))

    def names(self) -> tuple[str, ...]:
        """The photos that have features, of this run or earlier ones."""
        return self._archive.keys()

    def __contains__(self, name: str) -> bool:
        return self._archive.facts(name) is not None

    def is_current(self, name: str, photo: Path, mask: Path | None = None) -> bool:
        """Whether the features were made from the photo, and the mask, as they lie there now."""
        facts = self._facts(name)
        if facts is None:
            return False
        return is_unchanged(photo, Signature(*facts["photo"])) and _mask_unchanged(mask, facts["mask"])

    def content(self, name: str) -> str:
        """A digest of the features of one photo, by which pairs know what they were matched from.

        Raises:
            InputError: The photo has no features.
        """
        facts = self._facts(name)
        if facts is None:
            raise _no_features(name)
        return str(facts["content"])

    def read(self, name: str) -> Features:
        """The features of one photo.

        Raises:
            InputError: The photo has no features.
        """
        if name not in self:
            raise _no_features(name)
        return _features(self._archive.arrays(name), name)

    def write(self, name: str, features: Features, photo: Signature, mask: Signature | None = None) -> None:
        """Hands over the features of one photo; they are on disk soon after (`flush` waits for it).

        Raises:
            OutputError: Something handed over earlier could not be written.
        """
        self._archive.put(name, lambda: _pack_features(features, photo, mask))

    def flush(self) -> None:
        """Returns when everything written so far will outlast a kill or a loss of power."""
        self._archive.flush()

    def publish(self) -> None:
        """Brings the HDF5 file up to date for other programs; `close` does so as well."""
        self._archive.publish()

    def close(self) -> None:
        """Publishes and lets other runs in."""
        self._archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.__exit__(kind, error, trace)

    def _facts(self, name: str) -> dict[str, Any] | None:
        facts = self._archive.facts(name)
        return None if facts is None else json.loads(facts)


class MatchStore:
    """The matches of every pair; open it with `MatchStore.open` in a with block."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    @classmethod
    def open(cls, path: Path | str, digest: str, settings: Mapping[str, Any]) -> "MatchStore":
        """Opens or begins a matches file; see `FeatureStore.open`."""
        return cls(Archive(Path(path), digest, settings))

    def __len__(self) -> int:
        return len(self._archive.keys())

    def __contains__(self, pair: Pair) -> bool:
        return self._archive.facts(pair_key(pair)) is not None

    def is_current(self, pair: Pair, contents: tuple[str, str]) -> bool:
        """Whether the pair was matched from features (or photos) of exactly these content digests."""
        return self._archive.facts(pair_key(pair)) == " ".join(contents)

    def read(self, pair: Pair) -> Matches | Correspondences:
        """The matches of a pair, or the correspondences where the matcher gives positions.

        Raises:
            InputError: The pair has not been matched.
        """
        if pair not in self:
            raise InputError(f"{pair[0]} and {pair[1]} have not been matched", remedy="match the pair first")
        return _pair_result(self._archive.arrays(pair_key(pair)))

    def write(
        self, pair: Pair, result: Matches | Correspondences, contents: tuple[str, str], keypoints: int = 0
    ) -> None:
        """Hands over the result of a pair.

        Args:
            pair: The two names as matched.
            result: What was found, in the form of `as_stored`.
            contents: Content digests of what was matched.
            keypoints: Number of keypoints of the first photo, for matches.

        Raises:
            OutputError: Something handed over earlier could not be written.
        """
        self._archive.put(pair_key(pair), lambda: (" ".join(contents), _pack_pair(result, keypoints)))

    def flush(self) -> None:
        """Returns when everything written so far will outlast a kill or a loss of power."""
        self._archive.flush()

    def publish(self) -> None:
        """Brings the HDF5 file up to date for other programs; `close` does so as well."""
        self._archive.publish()

    def close(self) -> None:
        """Publishes and lets other runs in."""
        self._archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.__exit__(kind, error, trace)


def pair_key(pair: Pair) -> str:
    """The group of a pair in a matches file."""
    return "/".join(name.replace("/", "-") for name in pair)


def as_stored(result: Matches | Correspondences) -> Matches | Correspondences:
    """A result as reading it back gives it: matches by first index, scores in half precision.

    Positions that are no numbers, as networks give them when they overflow, are left out.
    """
    if isinstance(result, Correspondences):
        rows = np.column_stack([result.points0, result.points1, result.scores]).astype(np.float32)
        rows = rows[np.isfinite(rows).all(axis=1)]
        return Correspondences(rows[:, :2], rows[:, 2:4], rows[:, 4])
    order = np.argsort(result.indices[:, 0], kind="stable")
    scores = result.scores[order].astype(np.float16).astype(np.float32)
    return Matches(np.asarray(result.indices[order], np.int32), scores)


def feature_names(file: h5py.File) -> list[str]:
    """The photos of a features file written by this package or by hloc, sorted."""
    found = []

    def visit(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if path.endswith("/keypoints") and isinstance(item, h5py.Dataset):
            found.append(path.removesuffix("/keypoints"))

    file.visititems(visit)
    return sorted(found)


def read_features(file: h5py.File, name: str, size: tuple[int, int] | None = None) -> Features:
    """The features of a photo from our file or hloc's; missing scores and scales are ones.

    Args:
        file: A features file.
        name: The photo.
        size: Its (width, height), for files that do not tell. With it, keypoints suffice, and descriptors
            that are not there have length zero; hloc's dense matching writes such files.

    Raises:
        InputError: No such photo, or datasets that matching needs are missing.
    """
    if name not in file:
        raise _no_features(name)
    arrays = read_group(file[name])
    if size is not None and "keypoints" in arrays:
        none = np.zeros((0, len(arrays["keypoints"])), np.float16)
        arrays = {"descriptors": none, "image_size": np.array(size)} | arrays
    return _features(arrays, name)


def matched_pairs(file: h5py.File, names: Iterable[str]) -> tuple[list[Pair], int]:
    """The pairs of a matches file written by this package or by hloc.

    Args:
        file: A matches file.
        names: The photos there are; a file writes '-' for '/' in their names.

    Returns:
        The pairs of these photos, each once, in canonical order; and how many pairs of others there are.

    Raises:
        InputError: A pair of an old file can be read in two ways.
    """
    known = {name.replace("/", "-"): name for name in names}
    found, others = set[Pair](), 0
    for first, outer in file.items():
        inner = [key for key, item in outer.items() if isinstance(item, h5py.Group)]
        for keys in [(first, second) for second in inner] or _cuts(first, known):
            if known.keys() >= set(keys):
                one, other = sorted(known[key] for key in keys)
                found.add((one, other))
            else:
                others += 1
    return sorted(found), others


def _cuts(key: str, known: Mapping[str, str]) -> list[tuple[str, str]]:
    """The two photos that a key of hloc's files of old joins by '_'; a key of others comes back as it is."""
    cuts = [(key[:place], key[place + 1 :]) for place, mark in enumerate(key) if mark == "_"]
    possible = [cut for cut in cuts if known.keys() >= set(cut)]
    if len(possible) > 1:
        raise InputError(
            f"the pair {key} can be read as {possible[0]} or {possible[1]}",
            remedy="match again with a newer hloc, which parts the names by '/'",
        )
    return possible or [(key, "")]


def read_pair(file: h5py.File, pair: Pair) -> Matches | Correspondences:
    """The result of a pair from our file or hloc's, in whichever order and under whichever key.

    Raises:
        InputError: The file has no such pair.
    """
    for key in _pair_keys(pair):
        if key in file:
            return _pair_result(read_group(file[key]))
    for key in _pair_keys((pair[1], pair[0])):
        if key in file:
            return _reversed(_pair_result(read_group(file[key])))
    raise InputError(
        f"{file.filename} has no matches of {pair[0]} and {pair[1]}", remedy="match the pair first"
    )


def _pair_keys(pair: Pair) -> Iterator[str]:
    yield pair_key(pair)
    yield pair_key(pair).replace("/", "_")  # hloc's files of old


def _reversed(result: Matches | Correspondences) -> Matches | Correspondences:
    if isinstance(result, Correspondences):
        return Correspondences(result.points1, result.points0, result.scores)
    return as_stored(Matches(result.indices[:, ::-1], result.scores))


def _no_features(name: str) -> InputError:
    return InputError(f"there are no features of {name}", remedy="extract its features first")


def _mask_unchanged(mask: Path | None, signed: list[Any] | None) -> bool:
    if mask is None or not mask.exists():
        return signed is None
    return signed is not None and is_unchanged(mask, Signature(*signed))


def _pack_features(features: Features, photo: Signature, mask: Signature | None) -> Packed:
    arrays: dict[str, np.ndarray] = {
        "keypoints": np.asarray(features.keypoints, np.float32),
        "scores": np.asarray(features.scores, np.float32),
        "descriptors": np.ascontiguousarray(np.asarray(features.descriptors, np.float16).T),
        "scales": np.asarray(features.scales, np.float32),
        "image_size": np.asarray(features.size, np.int64),
    }
    facts = {
        "photo": list(asdict(photo).values()),
        "mask": mask and list(asdict(mask).values()),
        "content": _content(arrays),
    }
    return json.dumps(facts), arrays


def _content(arrays: Arrays) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays.values():
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def _features(arrays: Arrays, name: str) -> Features:
    missing = {"keypoints", "descriptors", "image_size"} - set(arrays)
    if missing:
        raise InputError(
            f"the features of {name} lack {', '.join(sorted(missing))}", remedy="extract its features again"
        )
    keypoints = arrays["keypoints"]
    ones = np.ones(len(keypoints), np.float32)
    # hloc writes keypoints of one axis where there are none.
    places = keypoints[:, :2] if keypoints.size else np.zeros((0, 2))
    return Features(
        keypoints=np.ascontiguousarray(places, np.float32),
        scores=arrays.get("scores", arrays.get("score", ones)).astype(np.float32, copy=False),
        descriptors=np.ascontiguousarray(arrays["descriptors"].T.astype(np.float16, copy=False)),
        scales=arrays.get("scales", ones).astype(np.float32, copy=False),
        size=(int(arrays["image_size"][0]), int(arrays["image_size"][1])),
    )


def _pack_pair(result: Matches | Correspondences, keypoints: int) -> Arrays:
    if isinstance(result, Correspondences):
        return {
            "keypoints0": np.asarray(result.points0, np.float32),
            "keypoints1": np.asarray(result.points1, np.float32),
            "scores": np.asarray(result.scores, np.float32),
        }
    matches0 = np.full(keypoints, -1, np.int32)
    scores0 = np.zeros(keypoints, np.float16)
    matches0[result.indices[:, 0]] = result.indices[:, 1]
    scores0[result.indices[:, 0]] = result.scores
    return {"matches0": matches0, "matching_scores0": scores0}


def _pair_result(arrays: Arrays) -> Matches | Correspondences:
    if "matches0" not in arrays:
        return Correspondences(arrays["keypoints0"], arrays["keypoints1"], arrays["scores"])
    matches0 = arrays["matches0"]
    if (matches0 < -1).any():
        raise InputError(
            "matches of keypoints beyond the 32767th were written as numbers of 16 bits and are lost",
            remedy="extract fewer keypoints and match again",
        )
    matched = np.flatnonzero(matches0 >= 0)
    scores0 = arrays.get("matching_scores0", np.ones(len(matches0), np.float16))
    indices = np.stack([matched, matches0[matched]], axis=1).astype(np.int32)
    return Matches(indices, scores0[matched].astype(np.float32))
