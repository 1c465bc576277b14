"""Any matcher of the package vismatch, as `vismatch:NAME`: two photos in, matched positions out.

The package is no part of this one. It fetches weights by its own ways, which this package cannot vouch for,
and some of its matchers fetch and run code besides; that is said when one is made. What comes out of them is
checked before it goes on.
"""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from difflib import get_close_matches
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from gim_sfm.errors import GimSfmError, SettingsError
from gim_sfm.matchers.batches import means_full
from gim_sfm.matchers.building import VISMATCH
from gim_sfm.matchers.contract import DenseMatcher, PhotoPair
from gim_sfm.matchers.frame import Frame, fit
from gim_sfm.types import Correspondences, Photo

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gim_sfm.matchers import MatcherRow
    from gim_sfm.matchers.building import Setup

MULTIPLE = 16
"""Sides of the photos that are handed over; nearly every network takes whole multiples of it as they are."""

HALF_PIXEL_OFF = frozenset(
    {
        "gim-dkm",
        "minima-roma",
        "minima-roma-tiny",
        "redimatch",
        "redimatch-indoor",
        "roma",
        "tiny-roma",
    }
)
"""Matchers that put the first pixel's centre at (0.5, 0.5), by the formula they end with; of the others it is
taken to be at (0, 0), as OpenCV has it, which may be wrong by half a pixel of what the network sees."""

SEED = 0

log = logging.getLogger(__name__)

_INSTALLING = (
    "Run `pip install 'gim_sfm[vismatch]'`, then `pip install --no-deps vismatch` (the kornia and the "
    "OpenCV that it asks for do not go with this package's)."
)


def row(name: str) -> "MatcherRow":
    """The facts of one matcher, for the registry; does not look whether it exists.

    Args:
        name: What follows `vismatch:`.
    """
    from gim_sfm.matchers import MatcherRow

    def build(setup: "Setup") -> DenseMatcher:
        samples, size = setup.max_keypoints, setup.image_size
        return DenseMatcher(VismatchMatcher(name, device=setup.device, image_size=size, samples=samples))

    return MatcherRow(
        name=VISMATCH + name,
        kind="dense",
        summary=f"The matcher {name} of the package vismatch.",
        licence="see vismatch: each of its matchers has terms of its own",
        weights=(),
        image_size=1024,
        max_keypoints=4096,
        build=build,
        joining="anchored",
        version=_version(),
    )


def _version() -> str:
    try:
        return f"vismatch {metadata.version('vismatch')}"
    except metadata.PackageNotFoundError:
        return ""


class VismatchMatcher:
    """A matcher of the package vismatch.

    Args:
        name: One of `vismatch.available_models`.
        device: Where it computes.
        image_size: Longest side in pixels of what it sees.
        samples: Most matches of a pair.

    Raises:
        SettingsError: The package or something it needs is not installed, or it has no such matcher.
        GimSfmError: The matcher cannot be made; says why.
    """

    def __init__(self, name: str, *, device: "torch.device", image_size: int, samples: int) -> None:
        self.name = VISMATCH + name
        self._image_size = image_size
        self._samples = samples
        self._centre = 0.5 if name in HALF_PIXEL_OFF else 0.0
        self._matcher = _make(name, device, samples)

    def correspond(self, pairs: Sequence[PhotoPair]) -> list[Correspondences]:
        """Matched positions of each pair, in file pixels, surest first where it tells how sure it is.

        Raises:
            GimSfmError: The matcher broke off, or gave something other than matched positions.
        """
        return [self._correspond(*pair) for pair in pairs]

    def _correspond(self, first: Photo, second: Photo) -> Correspondences:
        (image0, frame0), (image1, frame1) = self._see(first), self._see(second)
        try:
            with _repeatable(), redirect_stdout(sys.stderr):
                result = self._matcher(image0, image1)
        except Exception as error:  # somebody else's code may raise anything
            if means_full(error):
                raise
            raise self._failed(f"broke off on a pair: {_told(error)}") from error
        points0, points1, scores = self._positions(result)
        return self._in_files(points0 - self._centre, points1 - self._centre, scores, frame0, frame1)

    def _see(self, photo: Photo) -> "tuple[Tensor, Frame]":
        import torch

        pixels, frame = fit(photo, self._image_size, MULTIPLE)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), frame

    def _positions(self, result: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions in both inputs, (n, 2), and scores, (n,), once they are seen to be that."""
        if not isinstance(result, Mapping) or not {"matched_kpts0", "matched_kpts1"} <= result.keys():
            found = ", ".join(map(str, result)) if isinstance(result, Mapping) else type(result).__name__
            raise self._failed(f"gave no matched_kpts0 and matched_kpts1, but {found}")
        points0, points1 = self._numbers(result, "matched_kpts0"), self._numbers(result, "matched_kpts1")
        if points0.shape != points1.shape or points0.ndim != 2 or points0.shape[1] != 2:
            raise self._failed(f"gave points of shapes {points0.shape} and {points1.shape}, not (n, 2) twice")
        if result.get("matched_confidences") is None:
            return points0, points1, np.ones(len(points0))
        scores = self._numbers(result, "matched_confidences")
        if scores.shape != (len(points0),):
            raise self._failed(f"gave confidences of shape {scores.shape} for {len(points0)} matches")
        return points0, points1, scores

    def _numbers(self, result: Mapping[str, Any], key: str) -> np.ndarray:
        value = result[key]
        try:
            return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, np.float64)
        except (TypeError, ValueError) as error:
            raise self._failed(f"gave {key} that are no numbers ({_told(error)})") from error

    def _in_files(
        self,
        points0: Float[np.ndarray, "n 2"],
        points1: Float[np.ndarray, "n 2"],
        scores: Float[np.ndarray, " n"],
        frame0: Frame,
        frame1: Frame,
    ) -> Correspondences:
        """File pixels of what lies on both photos, the surest at most."""
        with np.errstate(invalid="ignore"):
            kept = frame0.shows(points0) & frame1.shows(points1) & np.isfinite(scores)
        if not kept.all():
            log.info("%s: %d of %d matches lie on no pixel; left out.", self.name, np.sum(~kept), len(kept))
        best = np.flatnonzero(kept)
        best = best[np.argsort(-scores[best], kind="stable")][: self._samples]
        return Correspondences(
            frame0.to_file(points0[best]), frame1.to_file(points1[best]), scores[best].astype(np.float32)
        )

    def _failed(self, what: str) -> GimSfmError:
        return GimSfmError(
            f"{self.name} {what}.",
            remedy="Take another matcher, or report it to the makers of vismatch: gim_sfm only calls it.",
        )


def _make(name: str, device: "torch.device", samples: int) -> Any:
    """The matcher itself, an untyped module."""
    library = _library()
    if name not in library.available_models:
        near = get_close_matches(name.lower().replace("_", "-"), library.available_models, n=3, cutoff=0.5)
        nearest = f"The nearest are {', '.join(VISMATCH + each for each in near)}. " if near else ""
        raise SettingsError(
            f"The package vismatch has no matcher {name!r}.",
            remedy=f"{nearest}There are: {', '.join(library.available_models)}.",
        )
    log.warning(
        "%s%s fetches its weights, and for some matchers code, by ways of its own, unchecked.", VISMATCH, name
    )
    try:
        # Its messages go to stdout, and some of its modules have torch.load run code from then on, for all.
        with _own_torch_load(), redirect_stdout(sys.stderr):
            matcher = library.get_matcher(name, device=str(device), max_num_keypoints=samples)
    except Exception as error:
        raise _not_made(name, error) from error
    matcher.skip_ransac = True  # the homography it fits to the matches is of no use here
    return matcher


def _library() -> Any:
    try:
        return import_module("vismatch")
    except ModuleNotFoundError as error:
        absent = "is not installed" if error.name == "vismatch" else f"needs {error.name}, which is missing"
        raise SettingsError(f"The package vismatch {absent}.", remedy=_INSTALLING) from error


def _not_made(name: str, error: Exception) -> GimSfmError:
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if package != error.name and package in sys.modules:
            return SettingsError(
                f"{VISMATCH}{name} was made for another version of {package}: this one has no {error.name}.",
                remedy="Take another matcher, or run vismatch in an environment of its own.",
            )
        return SettingsError(
            f"{VISMATCH}{name} needs {error.name}, which is not installed.",
            remedy=f"Run `pip install {error.name}` (the package may be called otherwise), and try again.",
        )
    return GimSfmError(
        f"{VISMATCH}{name} could not be made: {_told(error)}.",
        remedy="If its weights could not be fetched, try again with a network; else take another matcher.",
    )


def _told(error: Exception) -> str:
    return f"{error}".strip().partition("\n")[0].rstrip(".") or type(error).__name__


@contextmanager
def _own_torch_load() -> Iterator[None]:
    """Puts torch.load back to what it was."""
    import torch

    own = torch.load
    try:
        yield
    finally:
        torch.load = own


@contextmanager
def _repeatable() -> Iterator[None]:
    """Lets a pair's matches depend on nothing but the pair: some matchers draw them at random."""
    import torch

    numpy_state = np.random.get_state()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            np.random.seed(SEED)
            yield
    finally:
        np.random.set_state(numpy_state)
