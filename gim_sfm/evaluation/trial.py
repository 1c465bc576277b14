"""A trial: one matcher on the sets of a benchmark, judged by one estimator, told in one table."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gim_sfm.errors import InputError
from gim_sfm.evaluation.benchmark import Asked, PairSet, Skipped
from gim_sfm.evaluation.contender import Contender
from gim_sfm.evaluation.judging import Judge, Run, judge_set
from gim_sfm.evaluation.league import League, build_league
from gim_sfm.evaluation.league_text import write_count
from gim_sfm.evaluation.predictions import Predictions, predict
from gim_sfm.evaluation.records import SetFacts, benchmark_digest, note_trial, read_rivals, write_views
from gim_sfm.evaluation.results import Results, write_results
from gim_sfm.geometry import auc

log = logging.getLogger(__name__)


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
        over = f", over {seeds} seeds (± deviation between them)" if seeds > 1 else ""
        seed = f", and of its seeds the median one, {self.best.seed}" if seeds > 1 else ""
        head = f"{self.estimator}, mean score by threshold{over}:"
        tail = f"The table shows the best of these thresholds, {self.best.pixels:g} px{seed}."
        return "\n".join([head, *rows, tail])


@dataclass(frozen=True, slots=True)
class Trial:
    """How a matcher did.

    Attributes:
        league: Its scores, beside those of others in the same folder and the published ones.
        sets: How each set went.
        folder: Its result files.
        sweep: All thresholds and seeds, where there are several.
        remarks: What must be known to read the table.
    """

    league: League
    sets: tuple[SetFacts, ...]
    folder: Path
    sweep: tuple[Sweep, ...] = ()
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        skipped = [facts.told_skipped for facts in self.sets if facts.skipped]
        notes = "\n".join([*self.remarks, *skipped])
        told = [str(self.league), *map(str, self.sweep), *filter(None, [notes]), f"Results  {self.folder}"]
        return "\n\n".join(told)


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
        InputError: No pair of any set is left; with `strict`, an image cannot be read.
        SettingsError: The contender's folder is that of other weights or settings.
        OutputError: The folder cannot be written, or another run uses it.
        WeightsError: The matcher's weights cannot be had.
    """
    home = contender.take_home(out)
    version = contender.version if judge.usual else f"{contender.version}-{judge.estimator}"
    judged: list[dict[Run, Results]] = []
    facts = []
    for pair_set in sets:
        log.info("%s: %s", pair_set.name, write_count(len(pair_set.pairs), "pair"))
        with predict(contender, pair_set, home / "predictions" / pair_set.name) as predictions:
            whole = _without_broken(pair_set, predictions, strict)
            began = time.perf_counter()
            if whole.pairs:
                judged.append(judge_set(judge, whole, predictions, contender.method, version))
            facts.append(_facts(whole, predictions, time.perf_counter() - began))
    if not judged:
        raise InputError(f"No pair is left. {facts[0].told_skipped}.", remedy="Mend the images.")
    return _conclude(contender, judge, sets, judged, facts, out)


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
    return replace(pair_set, pairs=tuple(kept), skipped=(*pair_set.skipped, *lost))


def _facts(pair_set: PairSet[Any], predictions: Predictions, seconds_estimating: float) -> SetFacts:
    return SetFacts(
        name=pair_set.name,
        benchmark=benchmark_digest(pair_set, predictions.contents),
        pairs=len(pair_set.pairs),
        skipped=pair_set.skipped,
        shown=predictions.longest,
        matched=predictions.matched,
        seconds_matching=predictions.seconds,
        seconds_in_network=predictions.seconds_in_network,
        seconds_estimating=seconds_estimating,
    )


def _conclude(
    contender: Contender,
    judge: Judge[Any],
    sets: Sequence[PairSet[Any]],
    judged: Sequence[Mapping[Run, Results]],
    facts: Sequence[SetFacts],
    out: Path,
) -> Trial:
    """Writes result files and notes, and makes the table."""
    folder = out / contender.label / judge.estimator
    sweep = _sweep(judge, judged) if len(judge.runs) > 1 else None
    run = sweep.best if sweep else judge.runs[0]
    reported = [results[run] for results in judged]
    for results in reported:
        write_results(folder, results)
    write_views(folder, sets)
    note_trial(folder, contender, judge, run, facts, {} if sweep is None else sweep.means)
    benchmarks = {each.name: each.benchmark for each in facts if each.pairs}
    rivals, remarks = read_rivals(out, folder, reported, benchmarks)
    if judge.usual and contender.settings.image_size:
        shown = contender.settings.image_size
        remarks.append(f"Images were shown at {shown} pixels at most, not as the published rows want it.")
    return Trial(
        league=build_league([*reported, *rivals], published=judge.usual),
        sets=tuple(facts),
        folder=folder,
        sweep=(sweep,) if sweep else (),
        remarks=tuple(remarks),
    )


def _sweep(judge: Judge[Any], judged: Sequence[Mapping[Run, Results]]) -> Sweep:
    main = judge.measure.thresholds[0]
    means = {
        run: float(np.mean([auc(results[run].errors, [main])[0] for results in judged])) for run in judge.runs
    }
    by_pixels = {run.pixels: [other for other in means if other.pixels == run.pixels] for run in means}
    best = max(by_pixels.values(), key=lambda runs: np.mean([means[run] for run in runs]))
    ordered = sorted(best, key=lambda run: means[run])
    return Sweep(judge.estimator, means, ordered[len(ordered) // 2])
