"""ZEB's protocol on folders in ZEB's layout: plain loops round the same networks, and gim_sfm, side by side.

By hand, each method is the loop that its documentation shows, float32, images as they are stored:
  root-sift          OpenCV's SIFT with 8192 keypoints, square roots of the histograms, mutual nearest
                     neighbours, ratio 0.8 from the first image to the second.
  aliked-lightglue   kornia's ALIKED n16, 2048 keypoints, and LightGlue with its own stopping rules.
  disk-lightglue     kornia's DISK, 2048 keypoints, and LightGlue.
  xfeat-lighterglue  kornia's XFeat, 2048 keypoints, and LightGlue in LighterGlue's shape.
  xfeat-star         kornia's XFeat.match_xfeat_star with the 4096 cells that are its default.
  xfeat-mnn          kornia's XFeat with its own defaults: 4096 keypoints, mutual nearest neighbours of cosine
                     0.82 or more; by hand only.
Keypoints of an image are computed once. The pose is estimated as ZEB's authors do it: in single precision,
OpenCV's essential matrix by RANSAC, 0.5 pixels, then the candidate with most points in front. Their call
hands recoverPose 1e9 by position, where OpenCV reads something else, so that points further away than 50
baselines are not counted; `--distance 1e9` does what was meant. AUC is by plain trapezoids.

Ours is `gim_sfm.evaluate_zeb` with every setting at its default. The difference is told with its paired 95 %
bootstrap interval; "worse" is said where the loop by hand scores higher by more than that.

    python benchmarks/zeb.py SETS --out OUT                       # both, and the table
    python benchmarks/zeb.py SETS --out OUT --contenders hand     # by hand only
    python benchmarks/zeb.py SETS --out OUT --speed               # our matching against what it waits for

OUT/hand and OUT/ours get one result file per method and set, in the layout of ZEB's authors, and what is in
OUT already is not matched again. `--speed` matches everything anew.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

THRESHOLD = 5.0
"""Degrees at which the area under the recall curve is taken."""
COLUMNS = "identifiers covisible0 covisible1 R_errs t_errs t_errs2 Bef.Prec Bef.Num Aft.Prec Aft.Num"
CORRECT_BELOW = 5e-4
"""Squared symmetric epipolar distance of a correct match, in focal lengths."""


@dataclass(frozen=True)
class Asked:
    """One line of a pair file."""

    identifier: str
    images: tuple[Path, ...]
    overlaps: tuple[str, str]
    intrinsics: tuple[np.ndarray, np.ndarray]
    second_from_first: np.ndarray


def read_pairs(folder: Path) -> list[Asked]:
    """All pairs of a set, in the order of their identifiers."""
    return sorted((read_pair(path) for path in folder.glob("*.txt")), key=lambda pair: pair.identifier)


def read_pair(path: Path) -> Asked:
    """Names, overlaps, both intrinsics (3x3), and the pose (4x4, second from first)."""
    first, second, overlap0, overlap1, *values = path.read_text().split()
    numbers = np.array(values, np.float32)
    stems = [Path(name).stem for name in (first, second)]
    mark = next(mark for mark in "-_" if path.stem.endswith(mark + mark.join(stems)))
    scene = path.stem.removesuffix(mark + mark.join(stems))
    return Asked(
        identifier=f"{scene}#{first}#{second}",
        images=tuple(path.parent / f"{scene}{mark}{stem}.png" for stem in stems),
        overlaps=(overlap0, overlap1),
        intrinsics=(numbers[:9].reshape(3, 3), numbers[9:18].reshape(3, 3)),
        second_from_first=numbers[18:].reshape(4, 4),
    )


# By hand: the networks


@dataclass
class Loop:
    """A plain loop round one method, and the seconds inside its network or OpenCV."""

    describe: Callable[[np.ndarray], Any]
    match: Callable[[Any, Any], tuple[np.ndarray, np.ndarray]]
    seconds: dict[str, float] = field(default_factory=lambda: {"describing": 0.0, "matching": 0.0})
    described: dict[Path, Any] = field(default_factory=dict)

    def __call__(self, pair: Asked) -> tuple[np.ndarray, np.ndarray]:
        """Matched positions in both images, (n, 2) each, pixels."""
        for path in pair.images:
            if path not in self.described:
                image = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
                with self.clock("describing"):
                    self.described[path] = self.describe(image)
        with self.clock("matching"):
            return self.match(*(self.described[path] for path in pair.images))

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Adds the time the block takes."""
        began = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - began


def weights(id: str) -> dict[str, Any]:
    """Parameters of a weight file."""
    from gim_sfm.matchers.weights import WEIGHTS, load_state_dict, obtain

    return load_state_dict(obtain(WEIGHTS[id]))


def as_tensor(image: np.ndarray) -> Any:
    """1 x 3 x height x width, in [0, 1]."""
    import torch

    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def root_sift() -> Loop:
    """OpenCV and NumPy."""
    sift = cv2.SIFT.create(nfeatures=8192, contrastThreshold=1e-5)

    def describe(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        keypoints, histograms = sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
        points = np.array([keypoint.pt for keypoint in keypoints], np.float32)
        return points, np.sqrt(histograms / (histograms.sum(axis=1, keepdims=True) + 1e-7))

    def match(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
        similarities = first[1] @ second[1].T
        forth, back = similarities.argmax(axis=1), similarities.argmax(axis=0)
        rows = np.arange(len(forth))
        best = similarities[rows, forth]
        similarities[rows, forth] = -1
        next_best = similarities.max(axis=1)
        nearer = np.sqrt(np.maximum(2 - 2 * best, 0)) < 0.8 * np.sqrt(np.maximum(2 - 2 * next_best, 0))
        kept = (back[forth] == rows) & nearer
        return first[0][kept], second[0][forth[kept]]

    return Loop(describe, match)


def lightglue(id: str, **shape: Any) -> Callable[[Any, Any], tuple[np.ndarray, np.ndarray]]:
    """Kornia's LightGlue; the shape is that of its own table."""
    from kornia.feature import LightGlue

    from gim_sfm.matchers.lightglue import rename

    network = LightGlue(None, **shape)  # type: ignore[arg-type]
    network.load_state_dict({"confidence_thresholds": network.confidence_thresholds, **rename(weights(id))})
    network.eval()

    def match(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
        joined = network({"image0": first, "image1": second})["matches"][0].numpy()
        points = [each["keypoints"][0].numpy() for each in (first, second)]
        return points[0][joined[:, 0]], points[1][joined[:, 1]]

    return match


def as_lightglue_takes_it(keypoints: Any, descriptors: Any, image: np.ndarray) -> dict[str, Any]:
    """A batch of one."""
    import torch

    size = torch.tensor([[image.shape[1], image.shape[0]]])
    return {"keypoints": keypoints[None].float(), "descriptors": descriptors[None], "image_size": size}


def aliked_lightglue() -> Loop:
    """Kornia's classes."""
    from kornia.feature import ALIKED

    aliked = ALIKED("aliked-n16", max_num_keypoints=2048)
    # strict=False: the one key that kornia's class lacks is a constant
    aliked.load_state_dict(weights("aliked-n16"), strict=False)
    aliked.eval()

    def describe(image: np.ndarray) -> dict[str, Any]:
        found = aliked(as_tensor(image))[0]
        return as_lightglue_takes_it(found.keypoints, found.descriptors, image)

    return Loop(describe, lightglue("aliked-lightglue", input_dim=128))


def disk_lightglue() -> Loop:
    """Kornia's classes."""
    from kornia.feature import DISK

    disk = DISK()
    disk.load_state_dict(weights("disk"))
    disk.eval()

    def describe(image: np.ndarray) -> dict[str, Any]:
        found = disk(as_tensor(image), 2048, pad_if_not_divisible=True)[0]
        return as_lightglue_takes_it(found.keypoints, found.descriptors, image)

    return Loop(describe, lightglue("disk-lightglue", input_dim=128))


def xfeat(top_k: int) -> Any:
    """Kornia's class."""
    from kornia.feature import XFeat

    network = XFeat(top_k=top_k)
    network.net.load_state_dict(weights("xfeat"))
    return network.eval()


def xfeat_lighterglue() -> Loop:
    """Kornia's classes."""
    network = xfeat(2048)

    def describe(image: np.ndarray) -> dict[str, Any]:
        found = network.detectAndCompute(as_tensor(image))[0]
        return as_lightglue_takes_it(found["keypoints"], found["descriptors"], image)

    shape = {"input_dim": 64, "descriptor_dim": 96, "n_layers": 6, "num_heads": 1}
    return Loop(
        describe,
        lightglue("xfeat-lighterglue", **shape, depth_confidence=-1, width_confidence=0.95),
    )


def xfeat_star() -> Loop:
    """Kornia's class; its cells are computed once per image, its other two steps once per pair."""
    network = xfeat(4096)

    def describe(image: np.ndarray) -> Any:
        return network.detectAndComputeDense(as_tensor(image))

    def match(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
        mutual = network._batch_match(first["descriptors"], second["descriptors"])
        points = network._refine_matches(first, second, matches=mutual, batch_idx=0).numpy()
        return points[:, :2], points[:, 2:]

    return Loop(describe, match)


def xfeat_mnn() -> Loop:
    """Kornia's class and two products."""
    network = xfeat(4096)

    def describe(image: np.ndarray) -> Any:
        return network.detectAndCompute(as_tensor(image))[0]

    def match(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = network._match_mnn(first["descriptors"], second["descriptors"])
        return first["keypoints"][rows].numpy(), second["keypoints"][columns].numpy()

    return Loop(describe, match)


LOOPS: dict[str, Callable[[], Loop]] = {
    "root-sift": root_sift,
    "xfeat-mnn": xfeat_mnn,
    "xfeat-star": xfeat_star,
    "xfeat-lighterglue": xfeat_lighterglue,
    "aliked-lightglue": aliked_lightglue,
    "disk-lightglue": disk_lightglue,
}
OURS = [name for name in LOOPS if name != "xfeat-mnn"]


# By hand: the protocol


def estimate(
    points: tuple[np.ndarray, np.ndarray], pair: Asked, distance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Rotation, direction, and which matches are inliers; None where there is no pose."""
    if len(points[0]) < 5:
        return None
    first, second = pair.intrinsics
    x0, x1 = normalised(points, pair)
    threshold = 0.5 / np.mean([first[0, 0], second[1, 1], first[0, 0], second[1, 1]])
    found, mask = cv2.findEssentialMat(
        x0, x1, np.eye(3), threshold=threshold, prob=0.99999, method=cv2.RANSAC
    )
    if found is None:
        return None
    best, pose = 0, None
    for candidate in np.split(found, len(found) // 3):
        # Every call leaves in the mask what it found in front, as the authors' loop does.
        front, rotation, direction, *_ = cv2.recoverPose(
            candidate, x0, x1, np.eye(3), distanceThresh=distance, mask=mask
        )
        if front > best:
            best, pose = front, (rotation, direction[:, 0], mask.ravel() > 0)
    return pose


def normalised(points: tuple[np.ndarray, np.ndarray], pair: Asked) -> tuple[np.ndarray, np.ndarray]:
    """Positions in focal lengths from the principal point."""
    x0, x1 = ((each - k[:2, 2]) / k[[0, 1], [0, 1]] for each, k in zip(points, pair.intrinsics, strict=True))
    return x0, x1


def squared_epipolar_distances(points: tuple[np.ndarray, np.ndarray], pair: Asked) -> np.ndarray:
    """Of matches to the true epipolar lines, both images together, in squared focal lengths."""
    x0, x1 = (np.column_stack([each, np.ones(len(each))]) for each in normalised(points, pair))
    rotation, (x, y, z) = pair.second_from_first[:3, :3], pair.second_from_first[:3, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
    lines1, lines0 = x0 @ essential.T, x1 @ essential
    residuals = np.einsum("ni,ni->n", x1, lines1) ** 2
    squares: np.ndarray = residuals * (
        1 / (lines0[:, :2] ** 2).sum(axis=1) + 1 / (lines1[:, :2] ** 2).sum(axis=1)
    )
    return squares


def judge(points: tuple[np.ndarray, np.ndarray], pair: Asked, distance: float) -> list[float]:
    """The numbers of a pair in a result file, from R_errs on."""
    correct = squared_epipolar_distances(points, pair) < CORRECT_BELOW
    pose = estimate(points, pair, distance)
    if pose is None:
        return [np.inf, np.inf, np.inf, share(correct), correct.sum(), 0.0, 0]
    rotation, direction, inliers = pose
    true_rotation, true_shift = pair.second_from_first[:3, :3], pair.second_from_first[:3, 3]
    turn = np.degrees(np.arccos(np.clip((np.trace(rotation.T @ true_rotation) - 1) / 2, -1, 1)))
    length = np.linalg.norm(true_shift)
    apart = np.degrees(np.arccos(np.clip(direction @ true_shift / length, -1, 1)))
    off = np.linalg.norm(direction * length - true_shift)
    kept = correct[inliers]
    return [turn, min(apart, 180 - apart), off, share(correct), correct.sum(), share(kept), kept.sum()]


def share(flags: np.ndarray) -> float:
    """Of those that are true; 0 of none."""
    return float(flags.mean()) if len(flags) else 0.0


def write_results(path: Path, pairs: Sequence[Asked], rows: Sequence[Sequence[float]]) -> None:
    """The result file of a set."""
    lines = [COLUMNS]
    for pair, row in zip(pairs, rows, strict=True):
        numbers = " ".join(f"{float(number):.17g}" for number in row)
        lines.append(f"{pair.identifier} {' '.join(pair.overlaps)} {numbers}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def result_file(method: str, name: str, version: str) -> str:
    """What a result file is called."""
    return f"[T] {method} {name:>15} {version}.txt"


def read_errors(path: Path) -> np.ndarray:
    """Error of each pair in degrees; infinite where there is no pose."""
    columns, *lines = (line.split() for line in path.read_text().splitlines() if line.strip())
    turn, apart = columns.index("R_errs"), columns.index("t_errs")
    return np.array([max(float(line[turn]), float(line[apart])) for line in lines])


def area(errors: np.ndarray) -> float:
    """Percent under the recall curve up to the threshold, by trapezoids between the sorted errors."""
    below = np.sort(errors[errors < THRESHOLD])
    recall = np.arange(len(below) + 1) / len(errors)
    x, y = np.concatenate([[0.0], below, [THRESHOLD]]), np.append(recall, recall[-1])
    return float(100 * ((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum() / THRESHOLD)


def run_by_hand(method: str, options: argparse.Namespace) -> None:
    """All sets with one method; matches are kept, so that the estimation alone can be repeated."""
    for folder in set_folders(options.sets):
        pairs = read_pairs(folder)
        kept = options.out / "matches" / method / f"{folder.name}.npz"
        if not kept.is_file():
            match_by_hand(method, pairs, kept)
        with np.load(kept) as matches:
            rows = [
                judge((matches[f"{index}_0"], matches[f"{index}_1"]), pair, options.distance)
                for index, pair in enumerate(pairs)
            ]
        write_results(options.out / "hand" / method / result_file(method, folder.name, "hand"), pairs, rows)


def match_by_hand(method: str, pairs: Sequence[Asked], target: Path) -> None:
    """Matches of a set, and the seconds they took."""
    import torch

    with torch.inference_mode():
        loop = LOOPS[method]()
        began = time.perf_counter()
        matches = {}
        for index, pair in enumerate(pairs):
            matches[f"{index}_0"], matches[f"{index}_1"] = loop(pair)
    seconds = {**loop.seconds, "in all": time.perf_counter() - began}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".json").write_text(json.dumps(seconds, indent=1) + "\n")
    unfinished = target.with_name("unfinished.npz")
    np.savez(unfinished, **matches)
    unfinished.replace(target)


def set_folders(sets: Path) -> list[Path]:
    """Folders that hold pair files."""
    return sorted(folder for folder in sets.iterdir() if folder.is_dir() and any(folder.glob("*.txt")))


# Ours, and the comparison


def run_ours(method: str, sets: Path, out: Path, device: str) -> Any:
    """The verb with its defaults."""
    import gim_sfm

    return gim_sfm.evaluate_zeb(sets, out=out, matcher=method, device=device)


def files_of(contender: str, method: str, out: Path) -> dict[str, Path]:
    """Result files by set."""
    folder = out / "hand" / method if contender == "hand" else out / "ours" / method / "official"
    return {path.name.split()[-2]: path for path in sorted(folder.glob("[[]T[]] *.txt"))}


def scores_of(contender: str, method: str, out: Path) -> dict[str, float]:
    """AUC in percent by set, and the plain mean."""
    scores = {name: area(read_errors(path)) for name, path in files_of(contender, method, out).items()}
    return scores | {"mean": float(np.mean(list(scores.values())))} if scores else {}


def table(options: argparse.Namespace) -> str:
    """Markdown: a line for each method and contender, and one for the difference."""
    names = [*(folder.name for folder in set_folders(options.sets)), "mean"]
    lines = [f"| AUC@5 | | {' | '.join(names)} |", f"|---|---|{'--:|' * len(names)}"]
    for method in options.methods:
        for contender in options.contenders:
            scores = scores_of(contender, method, options.out)
            cells = [f"{scores[name]:.1f}" if name in scores else "" for name in names]
            if scores:
                lines.append(f"| `{method}` | {contender} | {' | '.join(cells)} |")
        told = differences(method, options.out)
        if told:
            lines.append(f"| | ours - hand | {' | '.join(told.get(name, '') for name in names)} |")
    return "\n".join(lines)


def differences(method: str, out: Path) -> dict[str, str]:
    """Ours less by hand with its interval, by set and for the mean; empty where one of the two is missing."""
    from gim_sfm.evaluation.results import read_results
    from gim_sfm.evaluation.statistics import compare_scores, share_pairs

    ours, hand = (files_of(contender, method, out) for contender in ("ours", "hand"))
    if not ours or ours.keys() != hand.keys():
        return {}
    shared = [share_pairs(read_results(ours[name]), read_results(hand[name])) for name in ours]
    compared = compare_scores(shared, THRESHOLD)
    told = {each.set: each.difference for each in compared.sets} | {"mean": compared.mean}
    return {name: told_difference(each) for name, each in told.items()}


def told_difference(difference: Any) -> str:
    """Value and interval in percent."""
    value, low, high = (100 * each for each in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]{' worse' if high < 0 else ''}"


def speed(method: str, options: argparse.Namespace) -> str:
    """One line: what matching all pairs anew takes, and how much of it is spent inside."""
    with tempfile.TemporaryDirectory() as temporary:
        began = time.perf_counter()
        sets = run_ours(method, options.sets, Path(temporary), options.device).sets
        wall = time.perf_counter() - began
    matching, inside, estimating = (
        sum(getattr(each, name) for each in sets)
        for name in ("seconds_matching", "seconds_in_network", "seconds_estimating")
    )
    pairs = sum(each.matched for each in sets)
    return (
        f"| `{method}` | {pairs} | {matching:.1f} | {inside:.1f} | {matching / inside:.3f} "
        f"| {estimating:.1f} | {wall:.1f} |"
    )


SPEED_HEAD = (
    "| | pairs | matching s | inside networks and OpenCV s | ratio | estimating s | all s |\n"
    "|---|--:|--:|--:|--:|--:|--:|"
)


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sets", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=LOOPS, default=list(LOOPS))
    parser.add_argument("--contenders", nargs="+", choices=("hand", "ours"), default=("hand", "ours"))
    parser.add_argument("--device", default="cpu", help="of ours; by hand everything is on the processor")
    parser.add_argument("--distance", type=float, default=50.0, help="baselines at which points still count")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    torch_and_kornia(options.threads)
    if options.speed:
        print(SPEED_HEAD)
        for method in filter(OURS.__contains__, options.methods):
            print(speed(method, options), flush=True)
        return
    for method in options.methods:
        if "hand" in options.contenders:
            run_by_hand(method, options)
        if "ours" in options.contenders and method in OURS:
            run_ours(method, options.sets, options.out / "ours", options.device)
    print(table(options))


def torch_and_kornia(threads: int) -> None:
    """Imports them, so that no clock measures it, and says how many threads they may use."""
    import kornia.feature  # noqa: F401
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


if __name__ == "__main__":
    main()
