"""Moves of a plane, fitted to matches of which many are wrong.

Two matches fix a move. All of them that keep distances are tried, or an even sample where there are too many,
and each is judged by how many matches it brings together.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Complex128, Float64, Int64

Points = Float64[np.ndarray, "n 2"]
Moves = Complex128[np.ndarray, "k 2"]
"""Moves of the complex plane, u = turn x + shift: (turn, shift), the turn scaled where scales differ."""

MOST_TRIES = 8_000
AT_ONCE = 1 << 22
"""Distances held in memory at a time."""

SAME_MOVE = 4.0
"""Moves that differ by less than this many tolerances over the scene are one and the same."""

LANDMARKS = 24
"""Matched places by which moves are told apart."""

REFINEMENTS = 5


@dataclass(frozen=True, slots=True, eq=False)
class PlanarFit:
    """A move of the plane: scale, turn and shift.

    Attributes:
        target_from_source: 3x3, similar: scale R in the upper left, shift in the last column.
        inliers: The matches it brings together.
    """

    target_from_source: Float64[np.ndarray, "3 3"]
    inliers: Bool[np.ndarray, " n"]

    @property
    def scale(self) -> float:
        """Lengths of the target in one of the source."""
        return float(np.hypot(*self.target_from_source[:2, 0]))

    @property
    def complex(self) -> "Moves":
        """The one move as (1, 2) complex numbers: turn and scale, and shift."""
        matrix = self.target_from_source
        return np.array([[complex(matrix[0, 0], matrix[1, 0]), complex(matrix[0, 2], matrix[1, 2])]])

    def apply(self, points: Points) -> Points:
        """Points of the source in the target's plane."""
        return np.asarray(points @ self.target_from_source[:2, :2].T + self.target_from_source[:2, 2])


def fit_moves(
    source: Points,
    target: Points,
    *,
    within: float,
    scaled: bool = False,
    most: int = 2,
    seed: int = 0,
) -> list[PlanarFit]:
    """The moves that bring most matches together, best first, each really different from those before.

    Args:
        source: Places in the source, (n, 2).
        target: Their partners, (n, 2), in the same unit unless `scaled`.
        within: How far apart, in the target's unit, partners may be afterwards.
        scaled: Whether the two differ in scale.
        most: How many moves.
        seed: Of the sample, where there are too many pairs of matches.

    Returns:
        At most that many; none where no two matches agree with a move.
    """
    first, second = _pairs(len(source), np.random.default_rng(seed))
    kept = _keeping_distance(source, target, first, second, within, scaled)
    moves = _moves_of_pairs(source, target, first[kept], second[kept], scaled)
    votes = _count_votes(moves, source, target, within)
    found: list[PlanarFit] = []
    landmarks = _complex(source[:: len(source) // LANDMARKS + 1])
    while len(found) < most and votes.max(initial=0) >= 2:
        row = int(votes.argmax())
        fit = _refine(moves[row], source, target, within, scaled)
        alike = _apart(moves, fit, landmarks) < SAME_MOVE * within
        alike[row] = True
        votes[alike] = 0
        if all(_apart(fit.complex, other, landmarks)[0] >= SAME_MOVE * within for other in found):
            found.append(fit)
    return sorted(found, key=lambda fit: -int(fit.inliers.sum()))


def _pairs(
    count: int, random: np.random.Generator
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    if count * (count - 1) // 2 <= MOST_TRIES:
        first, second = np.triu_indices(count, 1)
        return first.astype(np.int64), second.astype(np.int64)
    first = random.integers(0, count, MOST_TRIES)
    return first, (first + random.integers(1, count, MOST_TRIES)) % count


def _keeping_distance(
    source: Points,
    target: Points,
    first: Int64[np.ndarray, " k"],
    second: Int64[np.ndarray, " k"],
    within: float,
    scaled: bool,
) -> Bool[np.ndarray, " k"]:
    """Pairs of matches far enough apart to tell a turn, and as far apart on either side."""
    there = np.linalg.norm(target[second] - target[first], axis=1)
    here = np.linalg.norm(source[second] - source[first], axis=1)
    apart = (there > 4 * within) & (here > 0)
    return np.asarray(apart if scaled else apart & (np.abs(there - here) < 2 * within))


def _moves_of_pairs(
    source: Points,
    target: Points,
    first: Int64[np.ndarray, " k"],
    second: Int64[np.ndarray, " k"],
    scaled: bool,
) -> Moves:
    """The moves that two matches fix each."""
    here, there = _complex(source), _complex(target)
    turn = (there[second] - there[first]) / (here[second] - here[first])
    turn = turn if scaled else turn / np.abs(turn)
    middle_here, middle_there = (here[first] + here[second]) / 2, (there[first] + there[second]) / 2
    return np.column_stack([turn, middle_there - turn * middle_here])


def _complex(points: Points) -> Complex128[np.ndarray, " n"]:
    return np.asarray(points[:, 0] + 1j * points[:, 1])


def _count_votes(moves: Moves, source: Points, target: Points, within: float) -> Int64[np.ndarray, " k"]:
    """How many matches each move brings together; single precision about the middles, for speed."""
    votes = np.zeros(len(moves), np.int64)
    if not len(moves):
        return votes
    here, there = _complex(source), _complex(target)
    shift = moves[:, 1] + moves[:, 0] * here.mean() - there.mean()
    here, there = here - here.mean(), (there - there.mean()).astype(np.complex64)
    places = np.stack([here.real, here.imag, np.ones(len(here))]).astype(np.float32)
    turn = moves[:, 0]
    to_x = np.column_stack([turn.real, -turn.imag, shift.real]).astype(np.float32)
    to_y = np.column_stack([turn.imag, turn.real, shift.imag]).astype(np.float32)
    rows = max(1, AT_ONCE // len(source))
    for start in range(0, len(moves), rows):
        part = slice(start, start + rows)
        squares = (to_x[part] @ places - there.real) ** 2
        squares += (to_y[part] @ places - there.imag) ** 2
        votes[part] = (squares < within**2).sum(axis=1)
    return votes


def _refine(
    move: Complex128[np.ndarray, "2"], source: Points, target: Points, within: float, scaled: bool
) -> PlanarFit:
    """The least squares move of the matches it brings together, until these stay the same."""
    here, there = _complex(source), _complex(target)
    turn, shift = move
    inliers = np.abs(turn * here + shift - there) < within
    for _ in range(REFINEMENTS):
        middle_here, middle_there = here[inliers].mean(), there[inliers].mean()
        offset_here, offset_there = here[inliers] - middle_here, there[inliers] - middle_there
        product = np.vdot(offset_here, offset_there)
        spread = float(np.vdot(offset_here, offset_here).real)
        if product == 0 or spread == 0:
            break
        turn = product / spread if scaled else product / abs(product)
        shift = middle_there - turn * middle_here
        again = np.abs(turn * here + shift - there) < within
        if again.sum() < 2 or (again == inliers).all():
            break
        inliers = again
    matrix = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag], [0, 0, 1]])
    return PlanarFit(matrix, np.abs(turn * here + shift - there) < within)


def _apart(moves: Moves, fit: PlanarFit, places: Complex128[np.ndarray, " n"]) -> Float64[np.ndarray, " k"]:
    """How far apart each of the moves puts these places from where the fit does, at the median."""
    there = places[None] * fit.complex[0, 0] + fit.complex[0, 1]
    return np.asarray(np.median(np.abs(moves[:, :1] * places + moves[:, 1:] - there), axis=1))
