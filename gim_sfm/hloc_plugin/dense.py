"""hloc's dense matching, made so that it can be killed at any moment and run again.

hloc writes the matched points of every pair into the matches file and joins them to keypoints at the end. A
run that is killed before leaves pairs without `matches0`, which the next run takes for done. Here the points
go to files of their own, a block of pairs each, and both results are written in one step when all is joined.
"""

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py

from gim_sfm.files import replacing
from gim_sfm.hloc_plugin.reopening import changeable
from gim_sfm.hloc_plugin.unfinished import counts_of, pair_groups, take_out_unsound
from gim_sfm.recipe import digest
from gim_sfm.store import pair_key
from gim_sfm.types import Pair

PAIRS_TO_A_FILE = 200
"""Pairs that a kill can cost; every file costs hloc the start of its 16 loaders."""

log = logging.getLogger(__name__)


class DenseMatching:
    """Stands in for `match_and_assign` of hloc's `match_dense`, with the same results.

    Args:
        module: `hloc.match_dense`; matching pairs and joining points is left to it.
    """

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def __call__(
        self,
        conf: Mapping[str, Any],
        pairs_path: Path,
        image_dir: Path,
        match_path: Path,
        feature_path_q: Path,
        feature_paths_refs: Sequence[Path] = (),
        max_kps: int | None = 8192,
        overwrite: bool = False,
    ) -> None:
        """Matches the pairs of a list that are not in the matches file, and joins them to keypoints.

        Args:
            conf: A conf of `match_dense`.
            pairs_path: The list.
            image_dir: Folder of the photos.
            match_path: Takes the matches.
            feature_path_q: Takes the keypoints; those it has already stay.
            feature_paths_refs: Files of keypoints to join, and not to change.
            max_kps: Most keypoints of a photo.
            overwrite: Match all pairs anew.

        Raises:
            InputError: A file is damaged.
        """
        fixed = [path for path in (*feature_paths_refs, feature_path_q) if path.exists()]
        known = counts_of(fixed)
        raw = match_path.with_name(f"{match_path.name}.raw-{digest(conf)[:8]}")
        listed = _listed(self.module, pairs_path)
        take_out_unsound(match_path, listed, known, raw)
        pairs = sorted(self.module.find_unique_new_pairs(listed, None if overwrite else match_path))
        if not pairs:
            log.info("All pairs are matched already.")
            return
        self._match(conf, pairs, image_dir, raw, set(known))
        with replacing(match_path) as matches, replacing(feature_path_q) as features:
            _copy_or_begin(match_path, matches)
            _copy_or_begin(feature_path_q, features)
            _gather(raw, pairs, matches)
            self._join(conf, pairs, (matches, features), fixed, max_kps)
        shutil.rmtree(raw)

    def _match(
        self, conf: Mapping[str, Any], pairs: Sequence[Pair], image_dir: Path, raw: Path, known: set[str]
    ) -> None:
        """Points of all pairs, each block in a file of its own; those of a killed run count."""
        done = set(chain.from_iterable(map(_keys, raw.glob("*.h5"))))
        if done:
            log.info("%d pairs were matched by a run before.", len(done))
        missing = [pair for pair in pairs if pair_key(pair) not in done]
        for start in range(0, len(missing), PAIRS_TO_A_FILE):
            block = missing[start : start + PAIRS_TO_A_FILE]
            with replacing(raw / f"{digest(block)}.h5") as path:
                self.module.match_dense(conf, block, image_dir, path, existing_refs=known)

    def _join(
        self,
        conf: Mapping[str, Any],
        pairs: Sequence[Pair],
        written: tuple[Path, Path],
        fixed: Sequence[Path],
        max_kps: int | None,
    ) -> None:
        matches, features = written
        required = set(chain.from_iterable(pairs)) - counts_of(fixed).keys()
        keypoints, bins = self.module.load_keypoints(conf, fixed, quantize=required)
        keypoints = self.module.aggregate_matches(
            conf,
            pairs,
            matches,
            feature_path=features,
            required_queries=required,
            max_kps=max_kps,
            cpdict=keypoints,
            bindict=bins,
        )
        if max_kps is not None:
            self.module.assign_matches(pairs, matches, keypoints, max_error=conf["max_error"])


def _listed(module: ModuleType, path: Path) -> list[Pair]:
    listed = module.parse_retrieval(path)
    return [(query, other) for query, others in listed.items() for other in others]


def _keys(path: Path) -> Iterable[str]:
    with h5py.File(path, "r") as file:
        return pair_groups(file)


def _copy_or_begin(source: Path, target: Path) -> None:
    if source.exists():
        shutil.copyfile(source, target)
    else:
        h5py.File(target, "w").close()


def _gather(raw: Path, pairs: Sequence[Pair], matches: Path) -> None:
    """Copies the matched points of these pairs into the matches file."""
    wanted = {pair_key(pair) for pair in pairs}
    with changeable(matches) as target:
        for path in sorted(raw.glob("*.h5")):
            with h5py.File(path, "r") as source:
                for key in wanted.intersection(pair_groups(source)):
                    with suppress(KeyError):
                        del target[key]
                    source.copy(key, target, name=key)
