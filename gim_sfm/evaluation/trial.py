"""A trial: one matcher on the sets of a benchmark, judged by one estimator, told in one table."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gim_sfm.errors import InputError
from gim_sfm.evaluation.benchmark import Asked, PairSet, PosedPair, Skipped
from gim_sfm.evaluation.contender import Contender
from gim_sfm.evaluation.judging import Judge, Run, judge_set
from gim_sfm.evaluation.league import League, build_league
from gim_sfm.evaluation.predictions import Predictions, predict
from gim_sfm.evaluation.results import Results, find_results, read_results, write_results
from gim_sfm.files import write_text
from gim_sfm.geometry import auc, rotation_angle_degrees
from gim_sfm.recipe import digest

JUDGING_VERSION = 1
"""Raised when the same matches would get other errors than before."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SetFacts:
    """How a set went.

    Attributes:
        name: The set.
        pairs: Pairs that count.
        skipped: Pairs that could not be used, and why.
        matched: Pairs matched in this run.
        seconds_matching: Wall time of matching, with reading and writing; without loading the network.
        seconds_in_network: Part of it inside the networks.
        seconds_estimating: Wall time of all robust estimation.
    """

    name: str
    pairs: int
    skipped: tuple[Skipped, ...]
    matched: int
    seconds_matching: float
    seconds_in_network: float
    seconds_estimating: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """Several thresholds and seeds of one estimator.

    Attributes:
        estimator: Its name.
        means: Mean score of each run over the sets.
        best: The threshold whose mean over the seeds is best, with its median seed.
    """

    estimator: str
    means: Mapping[Run, float]
    best: Run

    def __str__(self) -> str:
        rows = []
        for pixels in dict.fromkeys(run.pixels for run in self.means):
            scores = [100 * mean for run, mean in self.means.items() if run.pixels == pixels]
            spread = f" ± {np.std(scores, ddof=1):.2f}" if len(scores) > 1 else ""
            rows.append(f"  {pixels:g} px: {np.mean(scores):.2f}{spread}")
        seeds = len({run.seed for run in self.means})
        head = f"{self.estimator}, mean score by threshold over {seeds} seeds (± deviation between them):"
        best = f"{self.best.pixels:g} px, and its median seed, {self.best.seed}"
        tail = f"The table shows the best of these thresholds, {best}."
        return "\n".join([head, *rows, tail])


@dataclass(frozen=True, slots=True)
class Trial:
    """How a matcher did.

    Attributes:
        league: Its scores, beside those of others in the same folder and the published ones.
        sets: How each set went.
        folder: Its result files.
        sweep: All thresholds and seeds, where there are several.
    """

    league: League
    sets: tuple[SetFacts, ...]
    folder: Path
    sweep: tuple[Sweep, ...] = ()

    def __str__(self) -> str:
        told = [str(self.league), *map(str, self.sweep), *self._skipped(), f"Results  {self.folder}"]
        return "\n\n".join(told)

    def _skipped(self) -> list[str]:
        return [
            f"{facts.name}: {len(facts.skipped)} pairs skipped, e.g. {facts.skipped[0].source}: "
            f"{facts.skipped[0].reason}"
            for facts in self.sets
            if facts.skipped
        ]


def hold_trial(
    sets: Sequence[PairSet[Asked]],
    contender: Contender,
    judge: Judge[Asked],
    out: Path,
    *,
    strict: bool = False,
) -> Trial:
    """Matches and judges all sets; goes on where an earlier run stopped.

    Args:
        sets: The benchmark.
        contender: The matcher.
        judge: The estimator.
        out: Folder of all trials; a contender has a folder in it, with `predictions/` and the result files of
            each estimator.
        strict: Refuse images that cannot be read instead of skipping their pairs.

    Raises:
        InputError: No pair of a set is left; with `strict`, an image cannot be read.
        OutputError: The folder cannot be written, or another run uses it.
        WeightsError: The matcher's weights cannot be had.
    """
    home = out / contender.label
    judged: dict[Run, list[Results]] = {run: [] for run in judge.runs}
    facts = []
    for pair_set in sets:
        log.info("%s: %d pairs", pair_set.name, len(pair_set.pairs))
        with predict(contender, pair_set, home / "predictions" / pair_set.name) as predictions:
            whole = _without_broken(pair_set, predictions, strict)
            began = time.perf_counter()
            for run in judge.runs:
                judged[run].append(_judged(judge, run, whole, predictions, contender, home))
        facts.append(_facts(whole, predictions, time.perf_counter() - began))
    return _conclude(contender, judge, judged, sets, facts, out)


def _without_broken(pair_set: PairSet[Asked], predictions: Predictions, strict: bool) -> PairSet[Asked]:
    """The pairs whose images could be read."""
    broken = predictions.broken
    if broken and strict:
        raise InputError(next(iter(broken.values())), remedy="Mend the image, or leave --strict out.")
    kept: list[Asked] = []
    lost: list[Skipped] = []
    for pair in pair_set.pairs:
        reason = next((broken[name] for name in pair.images if name in broken), None)
        if reason is None:
            kept.append(pair)
        else:
            lost.append(Skipped(pair.identifier, reason))
    if not kept:
        raise InputError(
            f"No pair of {pair_set.name} is left; {lost[0].source}: {lost[0].reason}.",
            remedy="Mend the images, or leave the set out.",
        )
    return replace(pair_set, pairs=tuple(kept), skipped=(*pair_set.skipped, *lost))


def _judged(
    judge: Judge[Asked],
    run: Run,
    pair_set: PairSet[Asked],
    predictions: Predictions,
    contender: Contender,
    home: Path,
) -> Results:
    """The results of one run on one set; read where the same matches were judged before."""
    several = len(judge.runs) > 1
    folder = home / f"{judge.estimator}-runs" / str(run) if several else home / judge.estimator
    named = f"{contender.version}-{judge.estimator}-{run}" if several else contender.version
    made_from = digest(
        JUDGING_VERSION, judge.estimator, asdict(run), predictions.content, _truth(pair_set), cv2.__version__
    )
    note = folder / f".{pair_set.name}.json"
    known = json.loads(note.read_text()) if note.exists() else {}
    if known.get("made_from") == made_from and (folder / known["file"]).exists():
        return read_results(folder / known["file"])
    results = judge_set(
        judge, run, pair_set, lambda pair: predictions.read(pair.images), contender.method, named
    )
    note.unlink(missing_ok=True)
    path = write_results(folder, results)
    write_text(note, json.dumps({"made_from": made_from, "file": path.name}))
    return results


def _truth(pair_set: PairSet[Any]) -> str:
    """A digest of what is known of the pairs."""
    return digest([[np.asarray(value).tolist() for value in astuple(pair)] for pair in pair_set.pairs])


def _facts(pair_set: PairSet[Any], predictions: Predictions, seconds_estimating: float) -> SetFacts:
    return SetFacts(
        name=pair_set.name,
        pairs=len(pair_set.pairs),
        skipped=pair_set.skipped,
        matched=predictions.matched,
        seconds_matching=predictions.seconds,
        seconds_in_network=predictions.seconds_in_network,
        seconds_estimating=seconds_estimating,
    )


def _conclude(
    contender: Contender,
    judge: Judge[Any],
    judged: Mapping[Run, Sequence[Results]],
    sets: Sequence[PairSet[Any]],
    facts: Sequence[SetFacts],
    out: Path,
) -> Trial:
    """Puts the reported run and its notes into the estimator's folder, and makes the table."""
    folder = out / contender.label / judge.estimator
    sweep = _sweep(judge, judged) if len(judged) > 1 else None
    reported = judged[sweep.best if sweep else judge.runs[0]]
    if sweep:
        for former in folder.glob("[[]?[]] *.txt"):
            former.unlink()
        for results in reported:
            write_results(folder, results)
    _write_views(folder / "views.tsv", sets)
    trial = Trial(
        league=build_league([*reported, *_rivals(out, folder, reported)]),
        sets=tuple(facts),
        folder=folder,
        sweep=(sweep,) if sweep else (),
    )
    write_text(folder / "trial.json", json.dumps(_record(contender, judge, trial), indent=1))
    return trial


def _sweep(judge: Judge[Any], judged: Mapping[Run, Sequence[Results]]) -> Sweep:
    main = judge.measure.thresholds[0]
    means = {
        run: float(np.mean([auc(results.errors, [main])[0] for results in sets]))
        for run, sets in judged.items()
    }
    by_pixels = {run.pixels: [other for other in means if other.pixels == run.pixels] for run in means}
    best = max(by_pixels.values(), key=lambda runs: np.mean([means[run] for run in runs]))
    ordered = sorted(best, key=lambda run: means[run])
    return Sweep(judge.estimator, means, ordered[len(ordered) // 2])


def _rivals(out: Path, own: Path, reported: Sequence[Results]) -> list[Results]:
    """Results of others on the same sets by the same estimator."""
    wanted = {results.set for results in reported}
    found: list[Results] = []
    for folder in sorted(out.glob(f"*/{own.name}")):
        if folder != own and (folder / "trial.json").exists():
            theirs = [results for results in find_results([folder]) if results.set in wanted]
            found += theirs if len(theirs) == len(wanted) else []
    return [results for results in found if results.measure == reported[0].measure]


def _write_views(path: Path, sets: Sequence[PairSet[Any]]) -> None:
    """Notes how far the two views of each pair are turned against each other, for plots."""
    pairs = [pair for pair_set in sets for pair in pair_set.pairs if isinstance(pair, PosedPair)]
    if pairs:
        rotations = np.stack([pair.second_from_first[:, :3] for pair in pairs])
        angles = rotation_angle_degrees(rotations)
        rows = [f"{pair.identifier}\t{angle:.4f}" for pair, angle in zip(pairs, angles, strict=True)]
        write_text(path, "\n".join(["identifier\tdegrees", *rows, ""]))


def _record(contender: Contender, judge: Judge[Any], trial: Trial) -> dict[str, Any]:
    return {
        "matcher": contender.settings.model_dump(mode="json"),
        "device": contender.device,
        "estimator": judge.estimator,
        "runs": [asdict(run) for run in judge.runs],
        "sweep": [{**asdict(run), "mean": mean} for each in trial.sweep for run, mean in each.means.items()],
        "reported": [asdict(each.best) for each in trial.sweep] or [asdict(judge.runs[0])],
        "sets": [asdict(facts) for facts in trial.sets],
        "league": trial.league.to_json(),
        "versions": {name: version(name) for name in ("gim_sfm", "torch", "numpy", "poselib")}
        | {"opencv": cv2.__version__},
    }
