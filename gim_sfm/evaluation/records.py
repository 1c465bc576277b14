"""What a trial leaves beside its result files, and what it finds of others."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gim_sfm import matchers
from gim_sfm.errors import InputError
from gim_sfm.evaluation.benchmark import PairSet, PosedPair, Skipped
from gim_sfm.evaluation.contender import Contender
from gim_sfm.evaluation.difficulty import VIEWS, read_views
from gim_sfm.evaluation.judging import Judge, Run
from gim_sfm.evaluation.league_text import write_count
from gim_sfm.evaluation.results import Results, find_results
from gim_sfm.files import write_text
from gim_sfm.geometry import rotation_angle_degrees
from gim_sfm.recipe import digest

NOTE = "trial.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SetFacts:
    """How a set went.

    Attributes:
        name: The set.
        benchmark: Digest of its images and pairs; results on equal ones may be compared.
        pairs: Pairs that count.
        skipped: Pairs that could not be used, and why.
        shown: Longest side in pixels at which the network saw the images.
        matched: Pairs matched in this run.
        seconds_matching: Wall time of matching, with reading and writing; without loading the network.
        seconds_in_network: Part of it inside the networks.
        seconds_estimating: Wall time of all robust estimation.
    """

    name: str
    benchmark: str
    pairs: int
    skipped: tuple[Skipped, ...]
    shown: int
    matched: int
    seconds_matching: float
    seconds_in_network: float
    seconds_estimating: float

    @property
    def told_skipped(self) -> str:
        """What was skipped, for people."""
        first = self.skipped[0]
        count = write_count(len(self.skipped), "pair")
        return f"{self.name}: {count} skipped, e.g. {first.source}: {first.reason}"


def benchmark_digest(pair_set: PairSet[Any], contents: Mapping[str, str]) -> str:
    """A digest of the images of a set and of all that is known of its pairs."""
    known = [[np.asarray(value).tolist() for value in astuple(pair)] for pair in pair_set.pairs]
    return digest(pair_set.name, known, contents)


def note_trial(
    folder: Path,
    contender: Contender,
    judge: Judge[Any],
    run: Run,
    facts: Sequence[SetFacts],
    means: Mapping[Run, float],
) -> None:
    """Notes in the folder of the result files how they came about, set by set; other sets stay noted."""
    device = matchers.resolve_device(contender.device)
    made_by = {
        "matcher": contender.settings.model_dump(mode="json"),
        "weights": contender.weights,
        "device": str(device),
        "precision": contender.number_format,
        "estimator": judge.estimator,
        "reported": asdict(run),
        "sweep": [{**asdict(each), "mean": mean} for each, mean in means.items()],
        "versions": {name: version(name) for name in ("gim_sfm", "torch", "numpy", "poselib")}
        | {"opencv": cv2.__version__},
    }
    sets = _noted(folder) | {each.name: asdict(each) | {"made_by": made_by} for each in facts}
    write_text(folder / NOTE, json.dumps({"sets": sets}, indent=1))


def read_rivals(
    out: Path, own: Path, reported: Sequence[Results], benchmarks: Mapping[str, str]
) -> tuple[list[Results], list[str]]:
    """Results of others in the same folder, by the same estimator, on the very same images and pairs.

    Args:
        out: Folder of all trials.
        own: The folder that is not theirs.
        reported: The results that are not theirs.
        benchmarks: Digest of each set that they must have.

    Returns:
        Their results, and who had to be left out and why.
    """
    found: list[Results] = []
    remarks = []
    names = {(each.method, each.version) for each in reported}
    for folder in sorted(path for path in out.glob(f"*/{own.name}") if path != own):
        try:
            theirs = _read_rival(folder, benchmarks)
            if taken := names & {(each.method, each.version) for each in theirs}:
                raise ValueError(f"it holds {' '.join(min(taken))} once more")
            names |= {(each.method, each.version) for each in theirs}
            found += theirs
        except ValueError as error:
            remarks.append(f"{folder.parent.name} is not in the table: {error}.")
    return found, remarks


def _read_rival(folder: Path, benchmarks: Mapping[str, str]) -> list[Results]:
    """Its results; ValueError says why they cannot stand beside ours."""
    theirs = {name: facts.get("benchmark") for name, facts in _noted(folder).items()}
    if missing := benchmarks.keys() - theirs.keys():
        raise ValueError(f"it was not put to {', '.join(sorted(missing))}")
    if changed := [name for name in benchmarks if benchmarks[name] != theirs[name]]:
        raise ValueError(f"images or pairs of {changed[0]} were others")
    try:
        return [each for each in find_results([folder]) if each.set in benchmarks]
    except InputError as error:
        raise ValueError(error.message.rstrip(".")) from error


def write_views(folder: Path, sets: Sequence[PairSet[Any]]) -> None:
    """Notes how far the two views of each pair are turned against each other; other pairs stay noted."""
    pairs = [pair for pair_set in sets for pair in pair_set.pairs if isinstance(pair, PosedPair)]
    if not pairs:
        return
    angles = rotation_angle_degrees(np.stack([pair.second_from_first[:, :3] for pair in pairs]))
    turned = dict(zip([pair.identifier for pair in pairs], angles.tolist(), strict=True))
    rows = [f"{name}\t{angle:.4f}" for name, angle in sorted((_views(folder) | turned).items())]
    write_text(folder / VIEWS, "\n".join(["identifier\tdegrees", *rows, ""]))


def _views(folder: Path) -> dict[str, float]:
    try:
        return read_views([folder])
    except InputError as error:
        log.warning("%s It is written anew.", error.message)
        return {}


def _noted(folder: Path) -> dict[str, Any]:
    """The sets that were noted; none where that cannot be read."""
    try:
        sets: dict[str, Any] = json.loads((folder / NOTE).read_text(encoding="utf-8"))["sets"]
        return sets
    except (OSError, ValueError, KeyError, TypeError):
        return {}
