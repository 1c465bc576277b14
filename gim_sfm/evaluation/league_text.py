"""The league in plain text, in the shape of the paper's table."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from gim_sfm.evaluation.league import Duel, Entry, League, PublishedEntry, SetScore, Table
from gim_sfm.evaluation.results import POSE, Measure
from gim_sfm.evaluation.statistics import PERMUTATIONS, Difference, Estimate
from gim_sfm.evaluation.zeb_sets import ZEB_BY_NAME, ZEB_SETS

WIDTH = 130
LONGEST_NAME = 26
"""Longer names stand on a line of their own."""

OURS = "> "
INCOMPLETE = "*"
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table: its name, and a cell a column."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """Head of a column, and of the group that it and its neighbours are in; "" for none."""

    name: str
    group: str = ""


def write_league(league: League) -> str:
    """All tables of a league, at most 130 columns wide."""
    return "\n\n".join("\n".join(_write_table(table)) for table in league.tables)


def _write_table(table: Table) -> Iterator[str]:
    yield _title(table)
    yield ""
    yield from _layout(_heads(table), _lines(table))
    yield ""
    yield from _notes(table)
    if table.duels:
        yield ""
        yield from _write_duels(table)


def _title(table: Table) -> str:
    cuts = "/".join(f"{threshold:g}" for threshold in _shown(table))
    of = (
        f"ZEB, {len(table.sets)} of {len(ZEB_SETS)} sets"
        if table.benchmark
        else write_count(len(table.sets), "set")
    )
    what = "poses" if table.measure == POSE else "homography corners"
    return f"AUC@{cuts}{unit(table.measure)} of {what}, percent ({of})"


def write_count(number: int, what: str) -> str:
    """A number of things, in English."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def unit(measure: Measure) -> str:
    """The unit as it stands behind a number."""
    return measure.unit if measure.unit == "°" else f" {measure.unit}"


def _shown(table: Table) -> tuple[float, ...]:
    """Thresholds in the table: the first for poses, all for homographies."""
    return table.measure.thresholds[:1] if table.measure == POSE else table.measure.thresholds


def short_name(name: str) -> str:
    """Three letters for sets of ZEB, other names as they are."""
    return ZEB_BY_NAME[name].short if name in ZEB_BY_NAME else name


def _heads(table: Table) -> list[Head]:
    cuts = [f"@{threshold:g}" for threshold in _shown(table)]
    if len(cuts) == 1:
        return [Head(name) for name in ("mean", "rank", *map(short_name, table.sets))]
    means = [Head(cut, "mean") for cut in cuts]
    return [*means, Head("rank"), *(Head(cut, short_name(name)) for name in table.sets for cut in cuts)]


def _lines(table: Table) -> list[Line]:
    published = [_published_line(each, table) for each in table.published]
    rule = [Line("", ())] if published else []
    return [*published, *rule, *(line for entry in table.entries for line in _entry_lines(entry, table))]


def _published_line(entry: PublishedEntry, table: Table) -> Line:
    mean = _padded(None if entry.mean is None else 100 * entry.mean)
    scores = (_padded(100 * entry.auc[name]) for name in table.sets)
    return Line(entry.name, (mean, _padded(entry.rank), *scores))


def _padded(number: float | None, mark: str = " ") -> str:
    return f"{NOTHING} " if number is None else f"{number:.1f}{mark}"


def _entry_lines(entry: Entry, table: Table) -> tuple[Line, Line]:
    count = len(_shown(table))
    mark = _mark(all(entry.scores[name].comparable for name in table.common))
    values = _values(entry.mean, count, mark)
    widths = _half_widths(entry.mean, count)
    for name in table.sets:
        score = entry.scores.get(name)
        values += _values(score.auc, count, _mark(score.comparable)) if score else [_padded(None)] * count
        widths += _half_widths(score.auc if score else (), count)
    return (
        Line(OURS + entry.name, (*values[:count], _padded(entry.rank, mark), *values[count:])),
        Line("  ±", (*widths[:count], "", *widths[count:])),
    )


def _mark(comparable: bool) -> str:
    return " " if comparable else INCOMPLETE


def _values(estimates: Sequence[Estimate], count: int, mark: str) -> list[str]:
    values = [_padded(100 * each.value, mark) for each in estimates[:count]]
    return values or [_padded(None)] * count


def _half_widths(estimates: Sequence[Estimate], count: int) -> list[str]:
    return [f"{100 * each.half_width:.1f} " for each in estimates[:count]] or [""] * count


def _layout(heads: Sequence[Head], lines: Sequence[Line]) -> Iterator[str]:
    """Columns under their heads, in blocks one below the other where they do not fit."""
    left = min(LONGEST_NAME, max(len(line.name) for line in lines)) + 1
    widths = [_width(heads, lines, column) for column in range(len(heads))]
    for number, block in enumerate(_blocks(widths, WIDTH - left)):
        if number:
            yield ""
        inside = [widths[column] for column in block]
        if any(heads[column].group for column in block):
            yield " " * left + _groups([heads[column].group for column in block], inside)
        yield _row("", [f"{heads[column].name} " for column in block], inside, left)
        for line in lines:
            yield from _block_lines(line, block, widths, left)


def _width(heads: Sequence[Head], lines: Sequence[Line], column: int) -> int:
    """Room for the column's head and cells, and its share of the group's head."""
    head = heads[column]
    share = -(-(len(head.group) + 2) // sum(each.group == head.group for each in heads)) if head.group else 0
    return max(share, len(head.name) + 2, *(len(line.cells[column]) + 1 for line in lines if line.cells))


def _groups(groups: Sequence[str], widths: Sequence[int]) -> str:
    """Each group's head over the end of its columns."""
    spans = groupby(zip(groups, widths, strict=True), key=lambda each: each[0])
    return "".join(f"{f'{group} ':>{sum(width for _, width in span)}}" for group, span in spans).rstrip()


def _block_lines(line: Line, block: range, widths: Sequence[int], left: int) -> Iterator[str]:
    inside = [widths[column] for column in block]
    if not line.cells:
        yield "-" * (left + sum(inside) - 1)
        return
    name = line.name
    if len(name) >= left:
        yield name
        name = ""
    yield _row(name, [line.cells[column] for column in block], inside, left)


def _row(name: str, cells: Iterable[str], widths: Iterable[int], left: int) -> str:
    body = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{name:<{left}}{body}".rstrip()


def _blocks(widths: Sequence[int], room: int) -> Iterator[range]:
    start, used = 0, 0
    for column, width in enumerate(widths):
        if column > start and used + width > room:
            yield range(start, column)
            start, used = column, 0
        used += width
    yield range(start, len(widths))


def _notes(table: Table) -> Iterator[str]:
    yield f"{OURS}ours; ± half the 95 % interval (bootstrap over pairs)." + _published_note(table)
    if not table.common:
        yield "No set is common to all methods: there is no mean and no rank."
    elif len(table.common) < len(table.sets):
        count, names = write_count(len(table.common), "set"), ", ".join(map(short_name, table.common))
        yield f"Mean and rank are over the {count} that all of ours have: {names}."
    elif table.published and len(table.sets) < len(ZEB_SETS):
        count = write_count(len(table.sets), "set")
        yield f"Mean and rank are over the {count} shown, for the published methods, too."
    for entry in table.entries:
        yield from _entry_notes(entry, table.measure)


def _published_note(table: Table) -> str:
    return " The others: published, one decimal (README of GIM's authors)." if table.published else ""


def _entry_notes(entry: Entry, measure: Measure) -> Iterator[str]:
    if measure == POSE and entry.mean:
        cuts = "/".join(f"{cut:g}" for cut in measure.thresholds)
        means = " / ".join(f"{100 * mean.value:.1f}" for mean in entry.mean)
        yield f"{entry.name}: mean AUC@{cuts}{unit(measure)} {means}"
    lost, pairs = (
        sum(getattr(score, what) for score in entry.scores.values()) for what in ("failures", "pairs")
    )
    if lost:
        yield f"{entry.name}: {lost} of {pairs} pairs without an estimate; they count as failures."
    for name, score in entry.scores.items():
        if not score.comparable:
            yield f"{INCOMPLETE} {entry.name}, {short_name(name)}: {_shortfall(score)}"


def _shortfall(score: SetScore) -> str:
    return f"{score.pairs} of {score.published_pairs} pairs: not comparable."


def _write_duels(table: Table) -> Iterator[str]:
    best, cut = table.duels[0].best, table.duels[0].comparison.threshold
    what = f"points of AUC@{cut:g}{unit(table.measure)}"
    yield f"Less {best} on the same pairs, {what}, with 95 % interval and p:"
    yield ""
    heads = [Head(name) for name in ("mean", *map(short_name, table.common))]
    yield from _layout(heads, [line for duel in table.duels for line in _duel_lines(duel)])
    yield ""
    yield EVIDENCE
    for duel in table.duels:
        yield from _duel_notes(duel)


def _duel_lines(duel: Duel) -> tuple[Line, ...]:
    columns = [duel.comparison.mean, *(each.difference for each in duel.comparison.sets)]
    return (
        Line(OURS + duel.other, tuple(f"{100 * each.value:+.1f}" for each in columns)),
        Line("  from", tuple(f"{100 * each.low:+.1f}" for each in columns)),
        Line("  to", tuple(f"{100 * each.high:+.1f}" for each in columns)),
        Line("  p", tuple(write_p(each) for each in columns)),
    )


EVIDENCE = (
    f"p is two-sided, from {PERMUTATIONS} sign flips, for each set by itself; pairs count as independent, "
    "though they share images."
)


def write_p(difference: Difference) -> str:
    """P to two or more digits that say something."""
    return f"{difference.p:.4f}" if difference.p < 0.01 else f"{difference.p:.2f}"


def _duel_notes(duel: Duel) -> Iterator[str]:
    for each in duel.comparison.sets:
        if alone := each.only_first + each.only_second:
            pairs = write_count(alone, "pair")
            yield f"{short_name(each.set)}: {pairs} only of {duel.other} or only of {duel.best}; not counted."
