"""Which pairs are matched when photos join a map: every one holds a new photo, and each has few partners."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from gim_sfm import cascade, pair_file, pairs, retrieval
from gim_sfm.errors import SettingsError
from gim_sfm.pair_choice import EXHAUSTIVE_UP_TO
from gim_sfm.progress import stage
from gim_sfm.recipe import ExtensionSettings
from gim_sfm.sfm.pairing import PairChoice
from gim_sfm.store import FeatureStore
from gim_sfm.types import Pair

FEW = EXHAUSTIVE_UP_TO * (EXHAUSTIVE_UP_TO - 1) // 2
"""Pairs that are all matched: as many as `reconstruct` matches of its largest collection of that kind."""

COMPARED = cascade.ALL_PAIRS_UP_TO * (cascade.ALL_PAIRS_UP_TO - 1) // 2
"""Pairs that are all compared cheaply, by the same measure; of more, retrieval proposes some."""

ALL_OLD = ""
"""Stands for all photos of the map together; no photo has that name."""


@dataclass(frozen=True, slots=True)
class Partners:
    """What the choice of pairs can go by.

    Attributes:
        old: Photos that the map knows.
        new: Photos that are to join.
        features: Features of all of them.
        seed: For the codebook of retrieval.
    """

    old: Sequence[str]
    new: Sequence[str]
    features: FeatureStore
    seed: int

    @property
    def names(self) -> list[str]:
        """All photos, sorted."""
        return sorted([*self.old, *self.new])

    @property
    def most(self) -> int:
        """Pairs that hold a new photo."""
        new = len(self.new)
        return new * len(self.old) + new * (new - 1) // 2


def choose_partners(settings: ExtensionSettings, partners: Partners) -> PairChoice:
    """Chooses the pairs to match.

    Raises:
        SettingsError: A pair list was asked for and not given.
        InputError: It cannot be used.
    """
    method, reason = settings.pairs, "as asked"
    if method == "auto":
        few = partners.most <= FEW
        method = "exhaustive" if few else "cascade"
        reason = f"there are {partners.most} with a new photo"
    chosen = pairs.union(partners.names, _STRATEGIES[method](settings, partners))
    alone = len(pairs.without(partners.new, chosen))
    lonely = f"; {alone} of the new photos are in no pair" if alone else ""
    told = f"{len(chosen)} pairs for {len(partners.new)} new photos chosen by {method} ({reason}){lonely}"
    return PairChoice(chosen, method, told)


def _exhaustive(_settings: ExtensionSettings, partners: Partners) -> Iterable[Pair]:
    with_old = ((new, old) for new in partners.new for old in partners.old)
    return chain(with_old, pairs.exhaustive(partners.new))


def _cascade(settings: ExtensionSettings, partners: Partners) -> Iterable[Pair]:
    to_compare = sorted(_retrieved(cascade.CANDIDATES, partners))
    if partners.most <= COMPARED:
        to_compare = sorted(_exhaustive(settings, partners))
    with stage("Comparing pairs", len(to_compare), "pair") as advance:
        counts = cascade.count_matches(to_compare, partners.features.read, advance=advance)
    return promising(counts, partners.new, best=settings.neighbours, minimum=cascade.MINIMUM)


def _file(settings: ExtensionSettings, partners: Partners) -> Iterable[Pair]:
    if settings.pairs_file is None:
        raise SettingsError("Pairs by file need a file.", remedy="Name it with --pairs-file.")
    new = set(partners.new)
    listed = pair_file.from_file(settings.pairs_file, partners.names)
    return (pair for pair in listed if new & set(pair))


_STRATEGIES: Mapping[str, Callable[[ExtensionSettings, Partners], Iterable[Pair]]] = {
    "exhaustive": _exhaustive,
    "cascade": _cascade,
    "file": _file,
}


def _retrieved(count: int, partners: Partners) -> Iterable[Pair]:
    names = partners.names
    descriptors = retrieval.describe_collection(names, partners.features.read, seed=partners.seed)
    return pairs.retrieval(names, descriptors, neighbours=count, queries=partners.new)


def promising(counts: Mapping[Pair, int], new: Collection[str], *, best: int, minimum: int) -> list[Pair]:
    """The pairs worth matching in full, given how many cheap matches each has.

    Only new photos choose: an old one cannot tell its best partners from those few that it was compared with.
    Groups of photos that this leaves apart are joined by their strongest pair, as in `cascade.promising`.

    Args:
        counts: Cheap matches of each pair compared; each holds a new photo.
        new: Photos that choose.
        best: Pairs that each new photo chooses at most.
        minimum: Fewer cheap matches are no sign of overlap.
    """
    mine: dict[str, list[Pair]] = defaultdict(list)
    for pair in counts:
        for name in pair:
            mine[name].append(pair)
    chosen: set[Pair] = set()
    for name in new:
        ranked = sorted(mine[name], key=lambda pair: (-counts[pair], pair))
        chosen.update(pair for pair in ranked[:best] if counts[pair] >= minimum)
    return sorted(chosen | _joining(counts, chosen, set(new)))


def _joining(counts: Mapping[Pair, int], chosen: Collection[Pair], new: Collection[str]) -> set[Pair]:
    """The strongest pairs that link new photos with the map, and with each other, where none does."""
    strongest: dict[Pair, Pair] = {}
    for pair in sorted(counts, key=lambda pair: (-counts[pair], pair)):
        strongest.setdefault(_ends(pair, new), pair)
    linked = {_ends(pair, new) for pair in chosen}
    most = max(counts.values(), default=0) + 1
    merged = {ends: counts[pair] + most * (ends in linked) for ends, pair in strongest.items()}
    kept = cascade.promising(merged, [ALL_OLD, *sorted(new)], best=len(merged), minimum=most)
    return {strongest[ends] for ends in kept if ends not in linked}


def _ends(pair: Pair, new: Collection[str]) -> Pair:
    first, second = sorted(name if name in new else ALL_OLD for name in pair)
    return first, second
