"""Every way to choose pairs: canonical lists, bounded numbers, and the pairs that a person would expect."""

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from gim_sfm import cascade, pair_file, pairs
from gim_sfm.cascade import count_matches, promising
from gim_sfm.errors import InputError, OutputError
from gim_sfm.geodesy import earth_centred
from gim_sfm.pair_choice import choose
from gim_sfm.types import Features, Pair

some_names = st.lists(
    st.text(alphabet="ab01 /-", min_size=1, max_size=6), min_size=1, max_size=25, unique=True
).map(sorted)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=25, deadline=None)


def unit_rows(count: int, seed: int, dimensions: int = 8) -> np.ndarray:
    rows: np.ndarray = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def poses(count: int, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    rotations = np.linalg.qr(random.normal(size=(count, 3, 3)))[0]
    rotations *= np.linalg.det(rotations)[:, None, None]
    return [*np.concatenate([rotations, random.normal(size=(count, 3, 1))], axis=2)]


def by_exhaustion(names: list[str], seed: int) -> list[Pair]:
    return pairs.exhaustive(names)


def by_sequence(names: list[str], seed: int) -> list[Pair]:
    return pairs.sequential(names, window=2, descriptors=unit_rows(len(names), seed), loop_neighbours=3)


def by_retrieval(names: list[str], seed: int) -> list[Pair]:
    return pairs.retrieval(names, unit_rows(len(names), seed), neighbours=3)


def by_position(names: list[str], seed: int) -> list[Pair]:
    places = np.random.default_rng(seed).normal(size=(len(names), 3)) * 1e-3
    positions = {name: tuple(place) for name, place in zip(names, places, strict=True)}
    return pairs.spatial(names, positions, neighbours=3, max_distance=1e4)


def by_pose(names: list[str], seed: int) -> list[Pair]:
    return pairs.from_poses(
        names, dict(zip(names, poses(len(names), seed), strict=True)), neighbours=3, max_angle=180
    )


def by_covisibility(names: list[str], seed: int) -> list[Pair]:
    random = np.random.default_rng(seed)
    return pairs.covisible(names, {name: random.integers(30, size=8) for name in names}, neighbours=3)


strategies = [by_exhaustion, by_sequence, by_retrieval, by_position, by_pose, by_covisibility]
choosing = [by_retrieval, by_position, by_pose, by_covisibility]


def is_canonical(found: list[Pair], names: list[str]) -> bool:
    place = {name: index for index, name in enumerate(names)}
    rows = [(place[first], place[second]) for first, second in found]
    return all(first < second for first, second in rows) and rows == sorted(set(rows))


@pytest.mark.parametrize("strategy", strategies)
@few
@given(names=some_names, seed=seeds)
def test_pairs_are_canonical(strategy: Callable[..., list[Pair]], names: list[str], seed: int) -> None:
    assert is_canonical(strategy(names, seed), names)


@pytest.mark.parametrize("strategy", choosing)
@few
@given(names=some_names, seed=seeds)
def test_each_photo_chooses_no_more_than_asked(
    strategy: Callable[..., list[Pair]], names: list[str], seed: int
) -> None:
    found = strategy(names, seed)
    assert len(found) <= 3 * len(names)
    if strategy in (by_retrieval, by_pose):
        assert all(sum(name in pair for pair in found) >= min(3, len(names) - 1) for name in names)


@few
@given(names=some_names, seed=seeds)
def test_the_order_of_names_does_not_change_the_set_of_pairs(names: list[str], seed: int) -> None:
    shuffled = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    rows = dict(zip(names, unit_rows(len(names), seed), strict=True))
    known = dict(zip(names, poses(len(names), seed), strict=True))
    places = {name: (*known[name][:2, 3] * 1e-3, 0.0) for name in names}
    for strategy in (
        pairs.exhaustive,
        lambda order: pairs.sequential(order, window=3),
        lambda order: pairs.retrieval(order, np.stack([rows[name] for name in order]), neighbours=2),
        lambda order: pairs.spatial(order, places, neighbours=2, max_distance=1e5),
        lambda order: pairs.from_poses(order, known, neighbours=2),
        lambda order: pairs.covisible(
            order, {name: range(index + 1) for index, name in enumerate(names)}, neighbours=25
        ),
    ):
        assert {frozenset(pair) for pair in strategy(names)} == {
            frozenset(pair) for pair in strategy(shuffled)
        }


def test_exhaustive_pairs_are_all_pairs() -> None:
    assert pairs.exhaustive(["c", "a", "b"]) == [("c", "a"), ("c", "b"), ("a", "b")]
    assert pairs.exhaustive(["a"]) == []


def test_frames_are_put_in_natural_order_within_their_folder() -> None:
    names = ["x/f1.jpg", "x/f10.jpg", "x/f2.jpg", "y/f1.jpg"]
    assert pairs.sequential(names, window=1, quadratic=False) == [
        ("x/f1.jpg", "x/f2.jpg"),
        ("x/f10.jpg", "x/f2.jpg"),
    ]


@few
@given(numbers=st.lists(st.integers(0, 10**6), min_size=2, unique=True))
def test_natural_order_is_the_order_of_the_numbers(numbers: list[int]) -> None:
    ordered = sorted((f"a{number}_b.png" for number in numbers), key=pairs.natural_key)
    assert ordered == [f"a{number}_b.png" for number in sorted(numbers)]


def test_a_window_reaches_its_width_and_then_doubles() -> None:
    names = [f"{number:03}" for number in range(100)]
    partners = {second for first, second in pairs.sequential(names, window=5) if first == "000"}
    assert partners == {names[step] for step in (1, 2, 3, 4, 5, 8, 16)}


def test_loops_join_places_seen_again_and_not_the_window() -> None:
    names = [f"{number:03}" for number in range(40)]
    angle = np.arange(40) / 20 * 2 * np.pi
    descriptors = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    plain = set(pairs.sequential(names, window=2, quadratic=False))
    loops = set(
        pairs.sequential(
            names, window=2, quadratic=False, descriptors=descriptors, loop_period=10, loop_neighbours=1
        )
    )
    assert loops - plain == {("000", "020"), ("010", "030")}


def test_retrieval_finds_the_most_similar_and_respects_the_threshold() -> None:
    names = ["a", "b", "c", "d"]
    descriptors = np.array([[1, 0], [0.9, 0.1], [0, 1], [-1, 0]], np.float32)
    assert pairs.retrieval(names, descriptors, neighbours=1, min_similarity=0.5) == [("a", "b")]
    assert pairs.retrieval(names, descriptors, neighbours=1, queries=["d"]) == [("c", "d")]
    assert len(pairs.retrieval(names, descriptors, neighbours=99)) == 6


def test_retrieval_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [str(number) for number in range(50)]
    whole = pairs.retrieval(names, unit_rows(50, 0), neighbours=4)
    monkeypatch.setattr(pairs, "_BLOCK", 7)
    assert pairs.retrieval(names, unit_rows(50, 0), neighbours=4) == whole


def test_descriptors_of_other_photos_are_refused() -> None:
    with pytest.raises(ValueError, match="3 global descriptors for 2 names"):
        pairs.retrieval(["a", "b"], unit_rows(3, 0), neighbours=1)


def test_a_degree_of_latitude_is_111_kilometres() -> None:
    metres = earth_centred(np.array([[50.0, 8.0], [51.0, 8.0], [50.0, 9.0]]), np.array([0.0, 0.0, 0.0]))
    assert np.linalg.norm(metres[1] - metres[0]) == pytest.approx(111_238, abs=30)
    assert np.linalg.norm(metres[2] - metres[0]) == pytest.approx(71_696, abs=30)


def test_photos_are_paired_by_distance_on_the_ground(caplog: pytest.LogCaptureFixture) -> None:
    north = 1e-3  # about 111 m
    positions = {
        "a": (10.0, 179.9999, 0.0),
        "b": (10.0, -179.9999, 500.0),
        "c": (10.0 + north, 180.0, 0.0),
        "lost": None,
    }
    names = ["a", "b", "c", "lost", "unknown"]
    with caplog.at_level(logging.WARNING):
        assert pairs.spatial(names, positions, max_distance=50) == [("a", "b")]
    assert "2 of 5 photos have no GPS position" in caplog.text and "lost" in caplog.text
    assert pairs.spatial(names, positions, max_distance=150) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs.spatial(names, positions, max_distance=150, use_altitude=True) == [("a", "c")]
    assert pairs.without(names, [("a", "b")]) == ["c", "lost", "unknown"]


def test_nobody_has_a_position() -> None:
    with pytest.raises(InputError, match="None of the 2 photos has a GPS position"):
        pairs.spatial(["a", "b"], {"a": None})


def test_cameras_back_to_back_are_not_paired() -> None:
    def looking(direction: float, x: float) -> np.ndarray:
        turn = np.radians(direction)
        rotation = np.array([[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]])
        return np.column_stack([rotation, -rotation @ [x, 0, 0]])

    known = {"a": looking(0, 0), "back": looking(180, 0.1), "b": looking(30, 1), "far": looking(0, 9)}
    names = [*known, "unknown"]
    assert pairs.from_poses(names, known, max_angle=60) == [("a", "b"), ("a", "far"), ("b", "far")]
    assert pairs.from_poses(names, known, max_angle=60, max_distance=5) == [("a", "b")]
    assert pairs.from_poses(names, known, neighbours=1, max_angle=180, max_distance=5) == [
        ("a", "back"),
        ("back", "b"),
    ]


def test_photos_that_share_points_are_paired() -> None:
    tracks: dict[str, ArrayLike] = {
        "a": [1, 2, 3, 3, 3],
        "b": np.array([2, 3, 4]),
        "c": [3],
        "d": [],
        "e": [9],
    }
    names = ["a", "b", "c", "d", "e"]
    assert pairs.covisible(names, tracks) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs.covisible(names, tracks | {"c": [4, 9, 10]}, neighbours=1) == [
        ("a", "b"),
        ("b", "c"),
        ("c", "e"),
    ]
    with pytest.raises(InputError, match="point in the model"):
        pairs.covisible(["x"], tracks)


def test_union_of_lists_is_canonical() -> None:
    assert pairs.union("abc", [("b", "a")], [("a", "b"), ("c", "b")]) == [("a", "b"), ("b", "c")]
    assert pairs.union("abc") == []


# --- pair lists in files ---


names_of_files = st.text(alphabet='ab ."#é\u00a0\udcff', max_size=5).map("{}.jpg".format)


@few
@given(names=st.lists(names_of_files, min_size=2, max_size=8, unique=True))
def test_pair_lists_round_trip(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.txt"
    pair_file.write_pairs(path, pairs.exhaustive(names))
    assert pair_file.from_file(path, names) == pairs.exhaustive(names)


def test_names_without_blanks_are_written_as_hloc_does(tmp_path: Path) -> None:
    pair_file.write_pairs(tmp_path / "pairs.txt", [("db/1.jpg", "q.jpg"), ("a", "b")])
    assert (tmp_path / "pairs.txt").read_text() == "db/1.jpg q.jpg\na b\n"
    pair_file.write_pairs(tmp_path / "pairs.txt", [("my photo.jpg", "q.jpg"), ("a", "b")])
    assert (tmp_path / "pairs.txt").read_text() == "my photo.jpg\tq.jpg\na\tb\n"


def read(tmp_path: Path, text: str, names: list[str]) -> list[Pair]:
    path = tmp_path / "list.txt"
    path.write_bytes(text.encode())
    return pair_file.from_file(path, names)


def test_what_people_write_is_understood(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "my photo.jpg", "#c.jpg"]
    text = (
        "\ufeff# pairs\r\n\r\na.jpg b.jpg\r\nb.jpg a.jpg\n  my photo.jpg   b.jpg \n"
        '"my photo.jpg" "a.jpg"\n#c.jpg a.jpg\na.jpg a.jpg'
    )
    assert read(tmp_path, text, names) == [
        ("a.jpg", "b.jpg"),
        ("a.jpg", "my photo.jpg"),
        ("a.jpg", "#c.jpg"),
        ("b.jpg", "my photo.jpg"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a.jpg b.jpg\na.jpg photo1.jpg",
            r"list.txt, line 2: there is no photo 'photo1.jpg'. Is 'photo_1.jpg'",
        ),
        ("a.jpg", r"line 1: 'a.jpg' does not name two"),
        ("a.jpg b.jpg photo_1.jpg", "line 1: .* does not name two"),
        ("# nothing", "names no pair"),
    ],
)
def test_lines_that_name_no_pair_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, text, ["a.jpg", "b.jpg", "photo_1.jpg"])


def test_a_line_with_two_readings_is_refused_unless_a_tab_decides(tmp_path: Path) -> None:
    names = ["a", "a b", "b c", "c"]
    with pytest.raises(InputError, match="can be read in 2 ways"):
        read(tmp_path, "a b c", names)
    assert read(tmp_path, "a b\tc", names) == [("a b", "c")]


def test_a_missing_list_and_a_missing_place_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        pair_file.from_file(tmp_path / "none.txt", ["a", "b"])
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        pair_file.write_pairs(tmp_path / "file" / "pairs.txt", [("a", "b")])
    with pytest.raises(InputError, match="line break"):
        pair_file.write_pairs(tmp_path / "pairs.txt", [("a\n", "b")])


# --- the cascade ---


@st.composite
def scored(draw: st.DrawFn) -> tuple[list[str], dict[Pair, int]]:
    names = [f"{index:02}" for index in range(draw(st.integers(2, 12)))]
    chosen = draw(st.lists(st.sampled_from(pairs.exhaustive(names)), unique=True))
    return names, {pair: draw(st.integers(0, 40)) for pair in chosen}


def groups(names: list[str], found: list[Pair]) -> set[frozenset[str]]:
    belongs = {name: frozenset([name]) for name in names}
    for first, second in found:
        merged = belongs[first] | belongs[second]
        belongs |= dict.fromkeys(merged, merged)
    return set(belongs.values())


@few
@given(scored(), st.integers(1, 4), st.integers(1, 20))
def test_promising_pairs_keep_what_can_be_joined_together(
    collection: tuple[list[str], dict[Pair, int]], best: int, minimum: int
) -> None:
    names, counts = collection
    kept = promising(counts, names, best=best, minimum=minimum)
    assert is_canonical(kept, names)
    assert groups(names, kept) == groups(names, [pair for pair, count in counts.items() if count])
    assert len(kept) <= best * len(names) + len(names) - 1
    for name in names:
        own = sorted((count for pair, count in counts.items() if name in pair), reverse=True)[:best]
        chosen = sorted((counts[pair] for pair in kept if name in pair), reverse=True)
        assert chosen[: len(own)] >= [count for count in own if count >= minimum]


@few
@given(scored(), st.integers(1, 20))
def test_joining_pairs_are_the_strongest(collection: tuple[list[str], dict[Pair, int]], minimum: int) -> None:
    names, counts = collection
    kept = promising(counts, names, best=len(names), minimum=minimum)
    strong = [pair for pair, count in counts.items() if count >= minimum]
    assert set(strong) <= set(kept)
    heaviest, total = list(strong), 0
    for pair in sorted(counts, key=lambda pair: -counts[pair]):
        if counts[pair] and groups(names, [*heaviest, pair]) != groups(names, heaviest):
            heaviest.append(pair)
            total += counts[pair]
    assert sum(counts[pair] for pair in set(kept) - set(strong)) == total


def photo_features(descriptors: np.ndarray) -> Features:
    count = len(descriptors)
    return Features(
        np.zeros((count, 2), np.float32),
        np.ones(count, np.float32),
        descriptors.astype(np.float16),
        np.ones(count, np.float32),
        (640, 480),
    )


def ring(photos: int, seed: int = 0) -> dict[str, Features]:
    """Photos round an object: each shares 60 of its 100 points with either neighbour, none with others."""
    random = np.random.default_rng(seed)
    points = random.normal(size=(40 * photos + 60, 32))
    seen = [[(40 * photo + offset) % (40 * photos) for offset in range(100)] for photo in range(photos)]
    return {
        f"{photo:03}": photo_features(points[rows] + 0.1 * random.normal(size=(100, 32)))
        for photo, rows in enumerate(seen)
    }


def neighbours_in_ring(photos: int) -> set[frozenset[str]]:
    return {frozenset((f"{photo:03}", f"{(photo + 1) % photos:03}")) for photo in range(photos)}


def test_cheap_matches_are_mutual_and_unambiguous() -> None:
    random = np.random.default_rng(0)
    points = random.normal(size=(80, 64))
    twins = np.tile(points[:20], (2, 1)) + 0.1 * random.normal(size=(40, 64))
    known = {
        "first": photo_features(points[:50]),
        "second": photo_features(points[20:]),
        "other": photo_features(random.normal(size=(60, 64))),
        "twins": photo_features(twins),
        "few": photo_features(points[:1]),
        "none": photo_features(points[:0]),
    }
    told: list[int] = []
    counts = count_matches(pairs.exhaustive(list(known)), known.__getitem__, advance=told.append)
    assert 30 <= counts["first", "second"] <= 33
    assert counts["first", "other"] <= 5
    assert counts["first", "twins"] <= 8, "a point that is there twice matches neither"
    assert counts["first", "few"] == counts["few", "none"] == counts["first", "none"] == 0
    assert sum(told) == len(counts) == 15


@few
@given(seed=seeds)
def test_cheap_matches_do_not_depend_on_the_order(seed: int) -> None:
    random = np.random.default_rng(seed)
    known = {name: photo_features(random.normal(size=(random.integers(40), 4)).round(1)) for name in "ab"}
    there, back = ("a", "b"), ("b", "a")
    counts = count_matches([there, back], known.__getitem__)
    assert counts[there] == counts[back] <= min(map(len, known.values()))


def test_the_cascade_finds_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ring(12)
    found = cascade.cascade(list(known), known.__getitem__, neighbours=2)
    assert {frozenset(pair) for pair in found} == neighbours_in_ring(12)
    monkeypatch.setattr(cascade, "ALL_PAIRS_UP_TO", 10)
    monkeypatch.setattr(cascade, "CANDIDATES", 4)
    few_candidates = cascade.candidates(list(known), known.__getitem__)
    assert len(few_candidates) <= 4 * 12
    found = cascade.cascade(list(known), known.__getitem__, neighbours=2)
    assert {frozenset(pair) for pair in found} >= neighbours_in_ring(12)


@pytest.mark.data
def test_real_photos_of_one_scene_have_more_cheap_matches(shared_data: Path) -> None:
    folder = shared_data / "photos"
    photos = [folder / "fountain-P11" / "images" / f"000{number}.jpg" for number in (3, 4, 5)]
    photos += [folder / "kitti06" / "images" / f"00000{number}.jpg" for number in (1, 2, 3)]
    known = {str(photo): root_sift(photo) for photo in photos}
    counts = count_matches(pairs.exhaustive(list(known)), known.__getitem__)
    one_scene = {pair: Path(pair[0]).parent == Path(pair[1]).parent for pair in counts}
    assert min(counts[pair] for pair in counts if one_scene[pair]) > 2 * max(
        counts[pair] for pair in counts if not one_scene[pair]
    )


def root_sift(photo: Path) -> Features:
    pixels = cv2.imread(str(photo), cv2.IMREAD_REDUCED_GRAYSCALE_2)
    assert pixels is not None
    keypoints, described = cv2.SIFT.create(600).detectAndCompute(pixels, None)
    order = np.argsort([-keypoint.response for keypoint in keypoints])
    return photo_features(np.sqrt(described[order] / described[order].sum(axis=1, keepdims=True)))


# --- leaving it to us ---


def chosen(names: list[str], size: tuple[int, int] = (640, 480), **others: tuple[int, int]) -> str:
    return choose(names, dict.fromkeys(names, size) | others).method


def test_small_collections_are_matched_completely() -> None:
    assert chosen(["a", "b"]) == "exhaustive"
    assert chosen([f"{number}.jpg" for number in range(31)]) == "cascade"


@pytest.mark.parametrize("pattern", ["{:05}.png", "left/frame_{:04}.jpg", "out{}.jpg", "x/y/Frame{:03}.png"])
def test_many_numbered_frames_are_a_video(pattern: str) -> None:
    names = [pattern.format(number) for number in range(0, 1200, 2)]
    assert chosen(names) == "sequential"
    assert chosen(names[:200]) == "cascade"
    assert chosen(names[:100] + names[101:]) == "cascade", "a gap"
    assert chosen(names, **{names[7]: (480, 640)}) == "cascade", "one upright photo"


@pytest.mark.parametrize("pattern", ["IMG_{:04}.JPG", "DSC{:05}.jpg", "{:04}_large.jpg", "album/{}-{}.jpg"])
def test_photos_of_cameras_are_no_video(pattern: str) -> None:
    choice = choose(
        names := [pattern.format(number, number) for number in range(600)], dict.fromkeys(names, (640, 480))
    )
    assert choice.method == "cascade"
    assert "600 photos" in choice.reason
