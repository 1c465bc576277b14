"""comparison.html: one file with everything in it, for a browser without a network or scripts."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from jaxtyping import Float64

from gim_sfm.evaluation.comparison_charts import LIMITS, Chart
from gim_sfm.evaluation.contest import Contest
from gim_sfm.evaluation.league_text import short_name, unit, write_p
from gim_sfm.evaluation.statistics import Difference, PairedComparison
from gim_sfm.sfm.report_style import STYLE

LISTED = 10
"""Pairs each way."""

PICTURES = """
figure { margin: 0; } figure img { display: block; width: 100%; background: #fff; border-radius: 8px; }
h1 { line-height: 1.25; font-size: 26px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 16px; }
.charts section { margin: 0; }
"""


def render_page(
    contest: Contest,
    comparison: PairedComparison,
    verdict: Sequence[str],
    charts: Sequence[Chart],
    remarks: Sequence[str],
) -> str:
    """The comparison as one self-contained HTML page.

    Args:
        contest: What is compared.
        comparison: What came of it, first less second.
        verdict: Sentences; the first becomes the heading.
        charts: Pictures in their order; the first over the full width.
        remarks: What was left out and why.

    Returns:
        HTML text. Names are escaped: they can be anything.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    title = " against ".join(contest.names)
    first, *others = map(_figure, charts)
    body = [
        _header(verdict, contest, comparison),
        first,
        _set_table(contest, comparison),
        f'<div class="charts">{"".join(others)}</div>',
        _remarks(remarks),
        _pair_tables(contest),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{PICTURES}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _header(verdict: Sequence[str], contest: Contest, comparison: PairedComparison) -> str:
    mean = comparison.mean
    cards = [
        (f"{100 * mean.value:+.2f}", f"points of AUC@{comparison.threshold:g}{unit(contest.measure)}"),
        (f"{100 * mean.low:+.2f} to {100 * mean.high:+.2f}", "95 % interval"),
        (write_p(mean), "p, two-sided"),
        (f"{len(contest.pooled.identifiers)}", "pairs that both have"),
        (f"{len(contest.sets)}", "set" if len(contest.sets) == 1 else "sets"),
    ]
    figures = "".join(f'<div class="figure"><b>{value}</b><span>{what}</span></div>' for value, what in cards)
    notes = "".join(f'<p class="soft">{escape(line)}</p>' for line in verdict[1:])
    return f'<header><h1>{escape(verdict[0])}</h1>{notes}<div class="figures">{figures}</div></header>'


def _figure(chart: Chart) -> str:
    title = escape(chart.title)
    return (
        f'<section><h2>{title}</h2><figure><img alt="{title}" src="{chart.to_svg()}">'
        f"<figcaption>{escape(chart.caption)}</figcaption></figure></section>"
    )


def _remarks(remarks: Sequence[str]) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in remarks)
    return f"<section><h2>Left out</h2>{lines}</section>" if lines else ""


def _set_table(contest: Contest, comparison: PairedComparison) -> str:
    heads = ("Set", "Pairs", *contest.names, "Difference", "95 % interval", "p", "")
    rows = [
        (
            f"{short_name(each.set)} ({each.set})" if short_name(each.set) != each.set else each.set,
            f"{each.pairs}",
            *(f"{100 * score:.1f}" for score in each.scores),
            *_difference_cells(each.difference),
            _better(contest, each.difference),
        )
        for each in comparison.sets
    ]
    note = f"Differences in points, {contest.names[0]} less {contest.names[1]}, on the same pairs."
    return (
        f"<section><h2>Paired differences</h2>{_table(heads, rows, {0, 7})}"
        f"<figcaption>{escape(note)}</figcaption></section>"
    )


def _difference_cells(difference: Difference) -> tuple[str, str, str]:
    return (
        f"{100 * difference.value:+.1f}",
        f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}",
        write_p(difference),
    )


def _better(contest: Contest, difference: Difference) -> str:
    if not difference.told_apart:
        return "cannot be told apart"
    return f"{contest.names[0 if difference.value > 0 else 1]} is better"


def _pair_tables(contest: Contest) -> str:
    sides = (contest.pooled.first, contest.pooled.second)
    tables = "".join(
        f"<section><h2>Where {escape(contest.names[better])} is better by most</h2>"
        f"{_pair_table(contest, sides[better], sides[1 - better])}</section>"
        for better in (0, 1)
    )
    return f'{tables}<p class="soft">"none": no estimate; counts as {_limit(contest)} in the order.</p>'


def _limit(contest: Contest) -> str:
    return f"{LIMITS[contest.measure.unit][1]:g}{unit(contest.measure)}"


def _pair_table(contest: Contest, better: Float64[np.ndarray, " n"], worse: Float64[np.ndarray, " n"]) -> str:
    pooled = contest.pooled
    heads = ("Set", "Pair", "Overlap", *(f"{name}, {contest.measure.unit}" for name in contest.names))
    rows = [
        (
            short_name(pooled.sets[row]),
            pooled.identifiers[row],
            "-" if np.isnan(pooled.overlaps[row]) else f"{pooled.overlaps[row]:.2f}",
            _error(pooled.first[row]),
            _error(pooled.second[row]),
        )
        for row in farthest(better, worse, LIMITS[contest.measure.unit][1])
    ]
    return _table(heads, rows, {0, 1}) if rows else "<p>There is no such pair.</p>"


def farthest(better: Float64[np.ndarray, " n"], worse: Float64[np.ndarray, " n"], limit: float) -> list[int]:
    """Rows where one method leads by most; failures and larger errors count as `limit`."""
    lead = np.minimum(worse, limit) - np.minimum(better, limit)
    order = np.lexsort((better, -lead))[:LISTED]
    return [int(row) for row in order if lead[row] > 0]


def _error(error: float) -> str:
    return f"{error:.2f}" if np.isfinite(error) else "none"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], texts: set[int]) -> str:
    """Columns are numbers, save those named."""
    kinds = ["" if column in texts else ' class="n"' for column in range(len(heads))]
    top = "".join(f"<th{kind}>{escape(head)}</th>" for kind, head in zip(kinds, heads, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
