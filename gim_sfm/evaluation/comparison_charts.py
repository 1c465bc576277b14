"""Pictures of a comparison. Drawn without pyplot: no state is left behind, and no display is needed."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from gim_sfm.evaluation.contest import Contest
from gim_sfm.evaluation.difficulty import Curve
from gim_sfm.evaluation.league_text import short_name, unit, write_count
from gim_sfm.evaluation.results import Measure
from gim_sfm.evaluation.statistics import Estimate, Scores
from gim_sfm.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

FIRST, SECOND = "#0072b2", "#d55e00"
"""Blue and vermilion of Okabe and Ito, which colour-blind people tell apart."""

INK, GRID = "#22252a", "#e3e1db"
LOOKS: dict[Any, Any] = {
    "font.size": 10.0,
    "text.parse_math": False,
    "svg.hashsalt": "gim_sfm",
    "axes.edgecolor": "#9aa0a8",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "axes.labelcolor": INK,
    "legend.frameon": False,
}

FEWEST_PLACES = 6
"""Room for as many sets, so that the bars of one do not fill the picture."""

DRAWN_POINTS = 2500
"""With more pairs than these, cells are drawn in place of points."""

LIMITS: Mapping[str, tuple[float, float]] = {"°": (0.02, 180.0), "px": (0.02, 1000.0)}
"""Errors below are drawn at the lower end, errors above count as the upper end, by unit."""


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """A picture and what is said about it.

    Attributes:
        name: Of its PNG file, without ending.
        title: Heading.
        caption: How to read it.
        figure: The picture.
    """

    name: str
    title: str
    caption: str
    figure: "Figure"

    def to_svg(self) -> str:
        """The picture as a data address for HTML; letters are outlines, so that no font is needed."""
        stream = io.BytesIO()
        with _looks():
            self.figure.savefig(stream, format="svg", metadata={"Date": None})
        return f"data:image/svg+xml;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"

    def write_png(self, folder: Path) -> Path:
        """Writes `<name>.png` in one step."""
        path = folder / f"{self.name}.png"
        with replacing(path) as temporary, _looks():
            self.figure.savefig(temporary, format="png", dpi=150)
        return path


@contextmanager
def _looks() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(LOOKS):
        yield


def _panel(width: float, height: float) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def draw_sets(contest: Contest, first: Scores, second: Scores) -> Chart:
    """Scores of both methods on each set and in the mean, with intervals."""
    names = [each.set for each in contest.sets]
    heads = [short_name(name) for name in names]
    bars = [[side.sets[name][0] for name in names] for side in (first, second)]
    if len(names) > 1:
        heads = ["mean", *heads]
        bars = [[side.mean[0], *row] for side, row in zip((first, second), bars, strict=True)]
    with _looks():
        figure, axes = _panel(11, 4)
        for row, name, colour, shift in zip(bars, contest.names, (FIRST, SECOND), (-0.2, 0.2), strict=True):
            places = np.arange(len(row)) + shift
            axes.bar(places, [100 * each.value for each in row], 0.38, color=colour, label=name)
            axes.errorbar(places, [100 * each.value for each in row], _reach(row), **_whiskers())
        long = max(map(len, heads)) > 9
        axes.set_xticks(
            range(len(heads)), heads, rotation=30 if long else 0, ha="right" if long else "center"
        )
        axes.grid(visible=False, axis="x")
        axes.set_ylabel(f"{_score_name(contest.measure)}, %")
        middle, span = (len(heads) - 1) / 2, max(len(heads), FEWEST_PLACES)
        axes.set_xlim(middle - span / 2, middle + span / 2)
        figure.legend(loc="outside upper left", ncols=2)
    caption = "Whiskers: 95 % interval by bootstrap over the pairs that both methods have."
    return Chart("sets", "Score on each set", caption, figure)


def _score_name(measure: Measure) -> str:
    return f"AUC@{measure.thresholds[0]:g}{unit(measure)}"


def _reach(row: Sequence[Estimate]) -> Float64[np.ndarray, "2 n"]:
    return 100 * np.array(
        [[each.value - each.low for each in row], [each.high - each.value for each in row]]
    ).clip(min=0)


def _whiskers() -> dict[str, Any]:
    return {"fmt": "none", "ecolor": INK, "elinewidth": 1.1, "capsize": 2.5}


def draw_curve(contest: Contest, curve: Curve, name: str, title: str) -> Chart:
    """Scores over bins of difficulty, with bands."""
    with _looks():
        figure, axes = _panel(7, 4.6)
        sides = zip((curve.first, curve.second), contest.names, (FIRST, SECOND), "os", strict=True)
        for row, label, colour, marker in sides:
            places = np.arange(len(row))
            low, high = (100 * np.array([getattr(each, end) for each in row]) for end in ("low", "high"))
            axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
            values = [100 * each.value for each in row]
            axes.plot(places, values, color=colour, marker=marker, markersize=5, label=label)
        ticks = [f"{label}\n{count}" for label, count in zip(curve.labels, curve.pairs, strict=True)]
        axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
        axes.set_xlabel(f"{curve.axis}; below: number of pairs")
        axes.set_ylabel(f"{_score_name(contest.measure)}, %")
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside upper left", ncols=2)
    left_out = (
        f" Left out, since theirs is not known: {write_count(curve.unknown, 'pair')}."
        if curve.unknown
        else ""
    )
    return Chart(name, title, f"All sets pooled. Bands: 95 % interval by bootstrap.{left_out}", figure)


def draw_recall(contest: Contest) -> Chart:
    """Share of pairs with an error below each value, all sets pooled."""
    end = contest.measure.thresholds[-1]
    with _looks():
        figure, axes = _panel(7, 4.6)
        sides = zip(
            (contest.pooled.first, contest.pooled.second),
            contest.names,
            (FIRST, SECOND),
            ("-", "--"),
            strict=True,
        )
        for errors, label, colour, dashes in sides:
            axes.plot(*_recall(errors, end), color=colour, label=label, linestyle=dashes)
        for threshold in contest.measure.thresholds[:-1]:
            axes.axvline(threshold, color="#9aa0a8", linewidth=0.9, linestyle=":")
        axes.set_xlim(0, end)
        axes.set_ylim(0, 100)
        axes.set_xlabel(f"error, {_spelled(contest.measure)}")
        axes.set_ylabel("pairs with a smaller error, %")
        figure.legend(loc="outside upper left", ncols=2)
    return Chart("recall", "Recall over error", "All sets pooled. Higher is better.", figure)


def _spelled(measure: Measure) -> str:
    return "degrees" if measure.unit == "°" else measure.unit


def _recall(
    errors: Float64[np.ndarray, " n"], end: float
) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """The curve at 400 values: as fine as it can be seen."""
    values = np.linspace(0, end, 401)
    return values, 100 * np.searchsorted(np.sort(errors), values, side="right") / len(errors)


def draw_scatter(contest: Contest) -> Chart:
    """Error against error, pair by pair, both axes logarithmic; failures on a line of their own."""
    low, high = LIMITS[contest.measure.unit]
    lost = 1.7 * high
    sides = contest.pooled.first, contest.pooled.second
    x, y = (np.where(np.isfinite(each), np.clip(each, low, high), lost) for each in sides)
    with _looks():
        figure, axes = _panel(7, 4.6)
        axes.plot([low, lost], [low, lost], color="#9aa0a8", linewidth=1, zorder=3)
        if len(x) > DRAWN_POINTS:
            cells = _draw_cells(axes, x, y)
            figure.colorbar(cells, ax=axes, label="pairs in a cell", shrink=0.8, format="%g")
        else:
            axes.scatter(x, y, s=12, color=FIRST, alpha=0.45, linewidths=0)
        _set_log_axes(axes, low, high, lost)
        axes.set_xlabel(f"error of {contest.names[0]}, {_spelled(contest.measure)}")
        axes.set_ylabel(f"error of {contest.names[1]}, {_spelled(contest.measure)}")
    caption = (
        f"Above the line {contest.names[0]} is better, below it {contest.names[1]}. "
        '"none": the method gave no estimate.'
    )
    return Chart("scatter", "Error against error", caption, figure)


def _draw_cells(axes: "Axes", x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"]) -> "PolyCollection":
    from matplotlib.colors import LogNorm

    return axes.hexbin(
        x, y, gridsize=44, xscale="log", yscale="log", norm=LogNorm(vmin=0.3), mincnt=1, cmap="Blues"
    )


def _set_log_axes(axes: "Axes", low: float, high: float, lost: float) -> None:
    ticks = [tick for tick in (0.1, 1, 5, 20, 100) if tick <= high]
    labels = [f"{tick:g}" for tick in ticks]
    axes.set(xscale="log", yscale="log", xlim=(low * 0.9, lost * 1.2), ylim=(low * 0.9, lost * 1.2))
    axes.set_xticks([*ticks, lost], [*labels, "none"])
    axes.set_yticks([*ticks, lost], [*labels, "none"])
    axes.minorticks_off()
    axes.set_aspect("equal")
