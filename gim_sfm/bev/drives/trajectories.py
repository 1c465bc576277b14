"""Poses of scans on disk: KITTI's and TUM's text files, and JSON by name.

KITTI: a line a scan, the 12 numbers of the upper three rows of world_from_scan. TUM: `timestamp tx ty tz qx
qy qz qw` a line, `#` before remarks. Poses are those of the scans: the odometry benchmark of KITTI gives the
left camera's instead, which times Tr of its calib.txt are the scanner's.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

from gim_sfm.errors import InputError
from gim_sfm.files import write_text

Poses = Float64[np.ndarray, "n 4 4"]

NOT_RIGID = 1e-3
"""Largest entry of R R' - 1, or of the length of a quaternion less 1, that rounding explains."""


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """Where scans were taken.

    Attributes:
        world_from_scan: 4x4 each, rigid.
        timestamps: Seconds; 0, 1, 2 ... where the file tells none.
    """

    world_from_scan: Poses
    timestamps: Float64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.timestamps)


def read_trajectory(path: Path | str, names: Sequence[str]) -> Trajectory:
    """Reads the poses of scans, in the order of the scans.

    Args:
        path: KITTI's or TUM's text, told apart by the numbers in a line; or JSON with `world_from_scan`, a
            4x4 matrix by file name.
        names: File names of the scans.

    Raises:
        InputError: The file cannot be read, a line or pose is not what it should be, or it does not have a
            pose for each scan.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as text: {error}", remedy="give a text file of poses, KITTI's or TUM's"
        ) from error
    if path.suffix.lower() == ".json":
        return _by_name(path, text, names)
    trajectory = _by_line(path, text)
    if len(trajectory) != len(names):
        raise InputError(
            f"{path} has {len(trajectory)} poses for {len(names)} scans.",
            remedy="Give a pose for each scan, in the natural order of the file names.",
        )
    return trajectory


def write_kitti(path: Path, world_from_scan: Poses) -> None:
    """Writes poses as KITTI does, in one step."""
    rows = world_from_scan[:, :3].reshape(-1, 12)
    write_text(path, "".join(tell_numbers(row) + "\n" for row in rows))


def write_tum(path: Path, trajectory: Trajectory) -> None:
    """Writes timestamps, places and quaternions as TUM does, in one step."""
    turns = Rotation.from_matrix(trajectory.world_from_scan[:, :3, :3]).as_quat()
    places = trajectory.world_from_scan[:, :3, 3]
    lines = (
        tell_numbers((time, *place, *turn)) + "\n"
        for time, place, turn in zip(trajectory.timestamps, places, turns, strict=True)
    )
    write_text(path, "".join(lines))


def tell_numbers(values: Iterable[float]) -> str:
    """Numbers with blanks between them, with all digits that are needed to read back the same."""
    return " ".join(repr(float(value)) for value in values)


def measure_travel(world_from_scan: Poses) -> Float64[np.ndarray, " n"]:
    """Length of the way from the first scan to each, in the unit of the poses."""
    steps = np.linalg.norm(np.diff(world_from_scan[:, :3, 3], axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def _by_line(path: Path, text: str) -> Trajectory:
    numbered = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    lines = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    if not lines:
        raise InputError(f"{path} holds no pose", remedy="check what wrote the file")
    rows = [_numbers(line, f"{path}, line {number}") for number, line in lines]
    columns = len(rows[0])
    for row, (number, _) in zip(rows, lines, strict=True):
        if len(row) != columns or columns not in FORMATS:
            raise InputError(
                f"{path}, line {number}: {len(row)} numbers; KITTI has 12, TUM 8, in each line of a file.",
                remedy="check what wrote the file",
            )
    return FORMATS[columns](np.array(rows), [f"{path}, line {number}" for number, _ in lines])


def _numbers(line: str, where: str) -> list[float]:
    try:
        row = [float(word) for word in line.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(f"{where}: {error}", remedy="write numbers with blanks between them") from error
    if not np.isfinite(row).all():
        raise InputError(f"{where}: a number that is not finite", remedy="leave out scans without a pose")
    return row


def _of_kitti(rows: Float64[np.ndarray, "n 12"], wheres: Sequence[str]) -> Trajectory:
    matrices = np.tile(np.eye(4), (len(rows), 1, 1))
    matrices[:, :3] = rows.reshape(-1, 3, 4)
    return Trajectory(_rigid(matrices, wheres), np.arange(len(rows), dtype=np.float64))


def _of_tum(rows: Float64[np.ndarray, "n 8"], wheres: Sequence[str]) -> Trajectory:
    off = np.abs(np.linalg.norm(rows[:, 4:], axis=1) - 1)
    _require(off, wheres, "the quaternion has not length 1")
    matrices = np.tile(np.eye(4), (len(rows), 1, 1))
    matrices[:, :3, :3] = Rotation.from_quat(rows[:, 4:]).as_matrix()
    matrices[:, :3, 3] = rows[:, 1:4]
    return Trajectory(matrices, rows[:, 0])


FORMATS: dict[int, Callable[[np.ndarray, Sequence[str]], Trajectory]] = {12: _of_kitti, 8: _of_tum}
"""What makes poses of the lines of a file, by the numbers in a line."""


def _by_name(path: Path, text: str, names: Sequence[str]) -> Trajectory:
    try:
        poses = json.loads(text)["world_from_scan"]
        missing = [name for name in names if name not in poses]
        matrices = np.array([poses[name] for name in names if name in poses], np.float64)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} does not hold 4x4 matrices by file name under world_from_scan: {error}",
            remedy="give KITTI's or TUM's text, or mend the file",
        ) from error
    if missing:
        raise InputError(
            f"{path} has poses of {len(matrices)} of {len(names)} scans; {missing[0]} is missing.",
            remedy="Give a pose for each scan.",
        )
    wheres = [f"{path}, {name}" for name in names]
    if matrices.shape != (len(names), 4, 4) or not np.isfinite(matrices).all():
        raise InputError(f"{path}: a pose is not a 4x4 matrix of finite numbers", remedy="mend the file")
    _require(np.abs(matrices[:, 3] - (0, 0, 0, 1)).max(axis=1), wheres, "the last row is not 0 0 0 1")
    return Trajectory(_rigid(matrices, wheres), np.arange(len(names), dtype=np.float64))


def _rigid(matrices: Poses, wheres: Sequence[str]) -> Poses:
    """The same with rotations that are exactly that."""
    turns = matrices[:, :3, :3]
    off = np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    _require(np.where(np.linalg.det(turns) > 0, off, np.inf), wheres, "the rotation is not rigid")
    left, _, right = np.linalg.svd(turns)
    exact = matrices.copy()
    exact[:, :3, :3] = left @ right
    return exact


def _require(off: Float64[np.ndarray, " n"], wheres: Sequence[str], what: str) -> None:
    wrong = np.flatnonzero(off > NOT_RIGID)
    if len(wrong):
        raise InputError(f"{wheres[wrong[0]]}: {what}", remedy="check what wrote the file")
