"""What a method got on a set, pair by pair: in memory, and as the text files of GIM's authors."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float64

from gim_sfm.errors import InputError
from gim_sfm.files import replacing

log = logging.getLogger(__name__)

IDENTIFIERS = ("identifiers", "covisible0", "covisible1")
"""What every line of a result file begins with."""

WHOLE_NUMBERS = frozenset({"Bef.Num", "Aft.Num"})
"""Columns that count matches."""

NAME_PATTERN = re.compile(r"\[(?P<mark>\w)\] (?P<method>\S+) +(?P<set>\S+) (?P<version>\S+)\.txt")
NAME_REMEDY = (
    "Name it as `[T] <method> <set> <version>.txt` for errors of poses, or with [H] for those of corners."
)


@dataclass(frozen=True, slots=True)
class Measure:
    """What is counted as a pair's error.

    Attributes:
        mark: Letter in front of the name of a result file.
        error_columns: Columns of the file whose largest value is the error.
        unit: Of the error.
        thresholds: Where the recall curve is cut, the one that ranks first.
    """

    mark: str
    error_columns: tuple[str, ...]
    unit: str
    thresholds: tuple[float, ...]


POSE = Measure(mark="T", error_columns=("R_errs", "t_errs"), unit="°", thresholds=(5.0, 10.0, 20.0))
"""Angles of rotation and of baseline direction, by the protocol of ZEB."""

CORNERS = Measure(mark="H", error_columns=("corner_errs",), unit="px", thresholds=(3.0, 5.0, 10.0))
"""Mean distance of the four corners of an image, moved by the found and by the true homography."""


MEASURES: Mapping[str, Measure] = MappingProxyType({each.mark: each for each in (POSE, CORNERS)})
"""By the mark of their files."""

COUNTS = ("Bef.Prec", "Bef.Num", "Aft.Prec", "Aft.Num")
"""Share and number of correct matches: before, and among the inliers of, the robust estimation."""

COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"T": ("R_errs", "t_errs", "t_errs2", *COUNTS), "H": ("corner_errs", *COUNTS)}
)
"""Numbers of a pair in result files, by mark, in their order."""


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """Errors of one method on one set.

    Attributes:
        measure: What they are errors of.
        method: Name of the method, without blanks.
        set: Name of the set, as in result files.
        version: Of the method, e.g. its weights; without blanks.
        identifiers: Of the pairs, sorted, each once.
        overlaps: (n, 2); not a number where unknown.
        columns: The numbers of each pair by column, (n,) each.
    """

    measure: Measure
    method: str
    set: str
    version: str
    identifiers: tuple[str, ...]
    overlaps: Float64[np.ndarray, "n 2"]
    columns: Mapping[str, Float64[np.ndarray, " n"]]

    def __len__(self) -> int:
        return len(self.identifiers)

    @property
    def errors(self) -> Float64[np.ndarray, " n"]:
        """The error of each pair; infinite where the method gave nothing."""
        worst = np.max([self.columns[name] for name in self.measure.error_columns], axis=0)
        return np.where(np.isfinite(worst), worst, np.inf)


def write_results(folder: Path, results: Results) -> Path:
    """Writes results as GIM's authors do: `[T] <method> <set> <version>.txt`, the set right-aligned to 15.

    Numbers keep all their digits, so that reading gives back what was written.

    Args:
        folder: Where the file goes; made if need be. A file of the same name is replaced in one step.
        results: Of one method on one set.

    Returns:
        The file.

    Raises:
        InputError: A name or identifier is empty or holds a blank, or a name holds a slash.
    """
    _check_names(results)
    path = folder / f"[{results.measure.mark}] {results.method} {results.set:>15} {results.version}.txt"
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in _lines(results))
    return path


def _check_names(results: Results) -> None:
    names = (results.method, results.set, results.version)
    wrong = [name for name in names if "/" in name or "\\" in name]
    wrong += [name for name in (*names, *results.identifiers) if not name or name.split() != [name]]
    if wrong:
        raise InputError(
            f"A result file cannot carry the name {wrong[0]!r}.",
            remedy="Rename it: blanks part the names and columns of result files, slashes part folders.",
        )


def _lines(results: Results) -> Iterator[str]:
    names = COLUMNS[results.measure.mark]
    yield " ".join((*IDENTIFIERS, *names))
    numbers = np.column_stack([results.overlaps, *(results.columns[name] for name in names)]).tolist()
    whole = [name in WHOLE_NUMBERS for name in (*IDENTIFIERS[1:], *names)]
    for identifier, row in sorted(zip(results.identifiers, numbers, strict=True)):
        yield " ".join((identifier, *map(_written, row, whole)))


def _written(number: float, whole: bool) -> str:
    return str(int(number)) if whole and number.is_integer() else repr(number)


def read_results(path: Path) -> Results:
    """Reads a result file, ours or one of GIM's authors.

    Of a pair that comes twice the first line counts, as in the authors' analysis; a warning tells how many.

    Args:
        path: File named `[T] <method> <set> <version>.txt`, or with `[H]`.

    Returns:
        Its content, sorted by identifier.

    Raises:
        InputError: The file is missing, empty, misnamed, or a line of it does not follow the format.
    """
    name = NAME_PATTERN.fullmatch(path.name)
    if name is None or name["mark"] not in MEASURES:
        raise InputError(f"{path} is not named as a result file.", remedy=NAME_REMEDY)
    header, *rows = [line.split() for line in _read_lines(path)]
    columns = (*IDENTIFIERS, *COLUMNS[name["mark"]])
    if tuple(header) != columns:
        raise _broken(path, 1, f"the header is not `{' '.join(columns)}`")
    numbers = _parse(path, rows, len(columns))
    errors = [columns.index(each) - 1 for each in MEASURES[name["mark"]].error_columns]
    for line in np.flatnonzero((numbers[:, errors] < 0).any(axis=1)):
        raise _broken(path, int(line) + 2, "an error is negative")
    first = {row[0]: index for index, row in reversed(list(enumerate(rows)))}
    if repeated := len(rows) - len(first):
        log.warning("%s: %d lines repeat an earlier pair and are not counted.", path, repeated)
    order = [first[identifier] for identifier in sorted(first)]
    return Results(
        measure=MEASURES[name["mark"]],
        method=name["method"],
        set=name["set"],
        version=name["version"],
        identifiers=tuple(sorted(first)),
        overlaps=numbers[order, :2],
        columns=dict(zip(columns[3:], numbers[order, 2:].T.copy(), strict=True)),
    )


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read: {error}", remedy="Give a result file that exists and is text."
        ) from error
    if len(lines) < 2:
        raise InputError(
            f"{path} holds no pair.",
            remedy="Run the evaluation again; a result file has a header and a line a pair.",
        )
    return lines


def _parse(path: Path, rows: Sequence[Sequence[str]], width: int) -> Float64[np.ndarray, "n columns"]:
    """The numbers behind the identifiers; looks for the line only when something is wrong."""
    for line, row in enumerate(rows, start=2):
        if len(row) != width:
            raise _broken(path, line, f"{width} columns are needed, it has {len(row)}")
    try:
        return np.array([row[1:] for row in rows], dtype=np.float64)
    except ValueError:
        line, word = next(
            (line, word) for line, row in enumerate(rows, 2) for word in row[1:] if not _is_number(word)
        )
        raise _broken(path, line, f"{word!r} is not a number") from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _broken(path: Path, line: int, what: str) -> InputError:
    return InputError(
        f"{path}, line {line}: {what}.",
        remedy="Run the evaluation of this set again, or fetch the file again; do not edit it by hand.",
    )


def find_results(paths: Sequence[Path]) -> list[Results]:
    """Reads result files and all those in folders and their subfolders.

    Args:
        paths: Files or folders; a file reached twice counts once.

    Returns:
        Results in the order of the paths, those of a folder in the order of its file names.

    Raises:
        InputError: A path is missing, a folder holds no result file, a file cannot be used, or two files hold
            the same method, set and version.
    """
    files = {file.resolve(): file for path in paths for file in _result_files(path)}
    found: dict[tuple[str, ...], Path] = {}
    results = []
    for file in files.values():
        result = read_results(file)
        key = (result.measure.mark, result.method, result.set, result.version)
        if (other := found.setdefault(key, file)) is not file:
            raise InputError(
                f"{other} and {file} both hold {result.method} {result.version} on {result.set}.",
                remedy="Give one of the two, or rename the version of one (last in the file's name).",
            )
        results.append(result)
    return results


def _result_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("[[]?[]] *.txt") if NAME_PATTERN.fullmatch(file.name))
    if not files:
        raise InputError(f"No result file in {path} or below.", remedy=NAME_REMEDY)
    return files
