"""The features and matches files: contents, hloc's layout, kills, changed settings, full disks."""

import json
import logging
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gim_sfm import archive, journal
from gim_sfm.archive import Archive, digest_of, exclusive
from gim_sfm.errors import InputError, OutputError
from gim_sfm.groups import Origin, write_index
from gim_sfm.images import Signature, signature
from gim_sfm.journal import Journal, Record
from gim_sfm.store import (
    FeatureStore,
    MatchStore,
    as_stored,
    feature_names,
    pair_key,
    read_features,
    read_pair,
)
from gim_sfm.types import Correspondences, Features, Matches

SETTINGS = {"matcher": {"name": "numpy", "max_keypoints": 64}, "seed": 0}
DIGEST = digest_of(SETTINGS)
SIGNED = Signature(10, 20, "ab")


def some_features(seed: int, count: int = 30, width: int = 8) -> Features:
    generator = np.random.default_rng(seed)
    return Features(
        keypoints=generator.uniform(0, 4000, (count, 2)).astype(np.float32),
        scores=generator.uniform(0, 1, count).astype(np.float32),
        descriptors=generator.normal(size=(count, width)).astype(np.float16),
        scales=generator.uniform(1, 2, count).astype(np.float32),
        size=(4000 + seed, 3000),
    )


def some_matches(seed: int, keypoints: int = 30) -> Matches:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(0, keypoints))
    first, second = (generator.permutation(keypoints)[:count] for _ in range(2))
    scores = generator.uniform(0, 1, count).astype(np.float32)
    return Matches(np.stack([first, second], axis=1).astype(np.int32), scores)


def some_correspondences(seed: int, count: int = 12) -> Correspondences:
    generator = np.random.default_rng(seed)
    points = generator.uniform(0, 999, (2, count, 2)).astype(np.float32)
    return Correspondences(points[0], points[1], generator.uniform(0, 1, count).astype(np.float32))


def assert_same(found: object, expected: object) -> None:
    assert type(found) is type(expected)
    for name in expected.__slots__:
        left, right = getattr(found, name), getattr(expected, name)
        np.testing.assert_array_equal(left, right, err_msg=name)
        if isinstance(right, np.ndarray):
            assert left.dtype == right.dtype, name


def open_features(path: Path, digest: str = DIGEST, chosen: dict = SETTINGS) -> FeatureStore:
    return FeatureStore.open(path, digest, chosen)


# What comes back


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["a.jpg", "db/1.jpg", "db/deep er/ü ñ.PNG", "keypoints.jpg", "10.jpg"]),
    count=st.integers(0, 40),
    width=st.sampled_from([1, 64, 128]),
    published=st.booleans(),
    seed=st.integers(0, 99),
)
def test_features_come_back_as_written(tmp_path, name, count, width, published, seed):
    path = tmp_path / "features.h5"
    path.unlink(missing_ok=True)
    expected = some_features(seed, count, width)
    with open_features(path) as store:
        store.write("other/" + name, some_features(seed + 1), SIGNED)
        store.write(name, expected, SIGNED)
        if published:
            store.publish()
        assert_same(store.read(name), expected)
        assert set(store.names()) == {name, "other/" + name}
    with open_features(path) as store:
        assert_same(store.read(name), expected)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 999), dense=st.booleans(), published=st.booleans())
def test_results_of_pairs_come_back_as_stored(tmp_path, seed, dense, published):
    path = tmp_path / "matches.h5"
    path.unlink(missing_ok=True)
    expected = as_stored(some_correspondences(seed) if dense else some_matches(seed))
    with MatchStore.open(path, DIGEST, SETTINGS) as store:
        store.write(("a/1.jpg", "b.jpg"), expected, ("c0", "c1"), 30)
        if published:
            store.publish()
        assert_same(store.read(("a/1.jpg", "b.jpg")), expected)
    with MatchStore.open(path, DIGEST, SETTINGS) as store:
        assert_same(store.read(("a/1.jpg", "b.jpg")), expected)
        assert ("b.jpg", "a/1.jpg") not in store
        assert len(store) == 1


def test_as_stored_changes_nothing_the_second_time():
    once = as_stored(some_matches(5))
    assert_same(as_stored(once), once)


def test_rewriting_replaces(tmp_path):
    path = tmp_path / "features.h5"
    for seed in range(3):
        with open_features(path) as store:
            store.write("a.jpg", some_features(10 * seed), SIGNED)
            store.write("a.jpg", some_features(10 * seed + 1), SIGNED)
            assert_same(store.read("a.jpg"), some_features(10 * seed + 1))
    with h5py.File(path) as file:
        assert feature_names(file) == ["a.jpg"]
        assert_same(read_features(file, "a.jpg"), some_features(21))


def test_nothing_is_left_beside_the_file(tmp_path):
    with open_features(tmp_path / "out" / "features.h5") as store:
        store.write("a.jpg", some_features(1), SIGNED)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["features.h5"]
    with open_features(tmp_path / "empty" / "features.h5"):
        pass
    assert list((tmp_path / "empty").iterdir()) == []


def test_asking_for_what_is_not_there(tmp_path):
    with open_features(tmp_path / "features.h5") as store, pytest.raises(InputError, match=r"x\.jpg"):
        store.read("x.jpg")
    with MatchStore.open(tmp_path / "m.h5", DIGEST, {}) as store, pytest.raises(InputError, match=r"x\.jpg"):
        store.read(("x.jpg", "y.jpg"))


# hloc's layout, read the way hloc reads


def hloc_names(path: Path) -> list[str]:
    names = set()
    with h5py.File(path, "r", libver="latest") as file:
        file.visititems(
            lambda _, item: names.add(item.parent.name.strip("/")) if isinstance(item, h5py.Dataset) else None
        )
    return sorted(names)


def test_hloc_finds_our_features(tmp_path):
    path, expected = tmp_path / "features.h5", some_features(3)
    with FeatureStore.open(path, DIGEST, SETTINGS, uncertainty=0.5) as store:
        store.write("db/1.jpg", expected, SIGNED)
        store.write("query.jpg", some_features(4), SIGNED)
    assert hloc_names(path) == ["db/1.jpg", "query.jpg"]
    with h5py.File(path, "r", libver="latest") as file:
        group = file["db/1.jpg"]
        assert group["keypoints"].shape == (30, 2)
        assert group["keypoints"].dtype == np.float32
        assert group["keypoints"].attrs.get("uncertainty") == np.float32(0.5)
        assert group["descriptors"].shape == (8, 30)
        assert group["descriptors"].dtype == np.float16
        np.testing.assert_array_equal(group["descriptors"].__array__().T, expected.descriptors)
        assert group["image_size"].dtype == np.int64
        assert tuple(group["image_size"]) == expected.size
        assert all(np.isfinite(value.__array__().astype(np.float32)).all() for value in group.values())


def test_hloc_finds_our_matches(tmp_path):
    path, matches = tmp_path / "matches.h5", as_stored(some_matches(3))
    with MatchStore.open(path, DIGEST, SETTINGS) as store:
        store.write(("db/1.jpg", "q/2.jpg"), matches, ("c", "d"), 30)
    with h5py.File(path, "r", libver="latest") as file:
        assert "db-1.jpg/q-2.jpg" in file
        found = file["db-1.jpg/q-2.jpg"]["matches0"].__array__()
        scores = file["db-1.jpg/q-2.jpg"]["matching_scores0"].__array__()
    assert (found.dtype, scores.dtype, found.shape) == (np.int32, np.float16, (30,))
    matched = np.where(found != -1)[0]
    np.testing.assert_array_equal(np.stack([matched, found[matched]], -1), matches.indices)
    np.testing.assert_array_equal(scores[matched].astype(np.float32), matches.scores)


@pytest.mark.parametrize("key", ["db-1.jpg/q.jpg", "q.jpg/db-1.jpg", "db-1.jpg_q.jpg", "q.jpg_db-1.jpg"])
def test_pairs_of_hloc_are_read_in_every_order(tmp_path, key):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file[f"{key}/matches0"] = np.array([-1, 2, 0], np.int16)
        file[f"{key}/matching_scores0"] = np.array([0, 0.5, 0.25], np.float16)
    swapped = key.startswith("q")
    with h5py.File(tmp_path / "m.h5") as file:
        found = read_pair(file, ("db/1.jpg", "q.jpg"))
        with pytest.raises(InputError, match=r"other\.jpg"):
            read_pair(file, ("db/1.jpg", "other.jpg"))
    assert found.indices.tolist() == ([[0, 2], [2, 1]] if swapped else [[1, 2], [2, 0]])
    assert found.scores.tolist() == ([0.25, 0.5] if swapped else [0.5, 0.25])


def test_features_of_hloc_are_read(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
        file["db/1.jpg/keypoints"] = np.ones((4, 2), np.float16)
        file["db/1.jpg/descriptors"] = np.arange(12, dtype=np.float16).reshape(3, 4)
        file["db/1.jpg/image_size"] = np.array([640, 480])
        file["bare.jpg/keypoints"] = np.ones((4, 2), np.float32)
    with h5py.File(tmp_path / "f.h5") as file:
        assert feature_names(file) == ["bare.jpg", "db/1.jpg"]
        found = read_features(file, "db/1.jpg")
        with pytest.raises(InputError, match="descriptors, image_size"):
            read_features(file, "bare.jpg")
    assert found.descriptors[:, 0].tolist() == [0, 1, 2, 3]
    assert (found.scores.tolist(), found.scales.tolist(), found.size) == ([1] * 4, [1] * 4, (640, 480))


# Photos that change


def test_a_replaced_photo_is_not_current(tmp_path):
    photo, mask = tmp_path / "a.jpg", tmp_path / "a.jpg.png"
    photo.write_bytes(b"first")
    with open_features(tmp_path / "features.h5") as store:
        assert not store.is_current("a.jpg", photo)
        store.write("a.jpg", some_features(1), signature(photo))
        assert store.is_current("a.jpg", photo)
        assert store.is_current("a.jpg", photo, mask)
        os.utime(photo, ns=(1, 1))
        assert store.is_current("a.jpg", photo), "same content at another time"
        mask.write_bytes(b"mask")
        assert not store.is_current("a.jpg", photo, mask)
        store.write("a.jpg", some_features(1), signature(photo), signature(mask))
        assert store.is_current("a.jpg", photo, mask)
        assert not store.is_current("a.jpg", photo)
        mask.write_bytes(b"musk")
        os.utime(mask, ns=(2, 2))
        assert not store.is_current("a.jpg", photo, mask)
        photo.write_bytes(b"other")
        os.utime(photo, ns=(3, 3))
        assert not store.is_current("a.jpg", photo)


def test_content_follows_the_features(tmp_path):
    with open_features(tmp_path / "features.h5") as store:
        store.write("a.jpg", some_features(1), SIGNED)
        store.write("b.jpg", some_features(1), Signature(1, 2, "cd"))
        store.write("c.jpg", some_features(2), SIGNED)
        assert store.content("a.jpg") == store.content("b.jpg") != store.content("c.jpg")
        with pytest.raises(InputError):
            store.content("x.jpg")


def test_a_pair_of_changed_features_is_not_current(tmp_path):
    pair = ("a.jpg", "b.jpg")
    with MatchStore.open(tmp_path / "matches.h5", DIGEST, SETTINGS) as store:
        store.write(pair, some_matches(1), ("c0", "c1"), 30)
        assert store.is_current(pair, ("c0", "c1"))
        assert not store.is_current(pair, ("c0", "c2"))
        assert not store.is_current(("b.jpg", "a.jpg"), ("c1", "c0"))


# Settings that change


def test_other_settings_set_the_file_aside_and_bring_it_back(tmp_path, caplog):
    path = tmp_path / "features.h5"
    other = {"matcher": {"name": "numpy", "max_keypoints": 128}, "seed": 0}
    with open_features(path) as store:
        store.write("a.jpg", some_features(1), SIGNED)
    with caplog.at_level(logging.WARNING), open_features(path, digest_of(other), other) as store:
        assert store.names() == ()
        store.write("a.jpg", some_features(2), SIGNED)
    assert "matcher.max_keypoints: 64 -> 128" in caplog.text
    assert "seed" not in caplog.text
    with open_features(path) as store:
        assert_same(store.read("a.jpg"), some_features(1))
    with open_features(path, digest_of(other), other) as store:
        assert_same(store.read("a.jpg"), some_features(2))
    aside = [file.name for file in (tmp_path / "superseded").iterdir()]
    assert aside == [f"features-{DIGEST[:12]}.h5"]


def test_a_journal_of_other_settings_is_set_aside_with_the_file(tmp_path):
    path = tmp_path / "features.h5"
    left_by_a_kill(path, ["a.jpg", "b.jpg"])
    other = {"seed": 1}
    with open_features(path, digest_of(other), other) as store:
        assert store.names() == ()
    with open_features(path) as store:
        assert set(store.names()) == {"a.jpg", "b.jpg"}


def left_by_a_kill(path: Path, names: list[str]) -> None:
    """What lies there when a run dies after journaling these photos."""
    store = open_features(path)
    for number, name in enumerate(names):
        store.write(name, some_features(number), SIGNED)
    store.flush()
    kept = {file: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    store.close()
    path.unlink()
    for file, content in kept.items():
        file.write_bytes(content)
    assert path.with_name("features.h5.journal").exists()


@pytest.mark.parametrize("content", [b"", b"no HDF5", None])
def test_a_foreign_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "features.h5"
    if content is None:
        with h5py.File(path, "w") as file:
            file["a.jpg/keypoints"] = np.zeros((1, 2))
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"features\.h5"):
        open_features(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["features.h5"]


# One run at a time, and places that cannot be written


def test_a_second_run_is_refused(tmp_path):
    path = tmp_path / "features.h5"
    with open_features(path) as store:
        with pytest.raises(OutputError, match="another run"):
            open_features(path)
        store.write("a.jpg", some_features(1), SIGNED)
    with open_features(path) as store:
        assert "a.jpg" in store


def test_a_folder_is_held_by_one_run(tmp_path):
    with exclusive(tmp_path / "out"):
        with pytest.raises(OutputError, match="another run"), exclusive(tmp_path / "out"):
            pass
        with open_features(tmp_path / "out" / "features.h5"):
            pass
    with exclusive(tmp_path / "out"):
        pass


def test_an_output_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="out"):
        open_features(tmp_path / "out" / "features.h5")


def test_a_read_only_output_is_refused_at_once(tmp_path, monkeypatch):
    def refused(*_args, **_keywords):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(journal.os, "open", refused)
    with pytest.raises(OutputError, match="Read-only"):
        open_features(tmp_path / "features.h5")


# Full disks


def test_a_full_disk_keeps_what_was_written(tmp_path, monkeypatch):
    path = tmp_path / "features.h5"
    write, room = journal._write_all, [3 * 1600]

    def limited(descriptor, offset, parts):
        room[0] -= sum(map(len, parts))
        if room[0] < 0:
            os.pwrite(descriptor, parts[-1][: len(parts[-1]) // 2], offset)  # a part of it lands
            raise OSError(28, "No space left on device")
        return write(descriptor, offset, parts)

    monkeypatch.setattr(journal, "_write_all", limited)
    store, written = open_features(path), 0
    with pytest.raises(OutputError, match=r"features\.h5.*disk is full.*MiB free") as caught, store:
        for number in range(20):
            store.write(f"{number}.jpg", some_features(number), SIGNED)
            store.flush()
            written += 1
    assert "same command again" in caught.value.remedy
    assert 1 <= written < 20
    assert not path.with_name("features.h5.draft").exists()
    monkeypatch.undo()
    with open_features(path) as store:
        assert sorted(store.names()) == sorted(f"{number}.jpg" for number in range(written))
        assert_same(store.read("0.jpg"), some_features(0))


def test_too_little_room_is_seen_before_hdf5_meets_it(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    with open_features(tmp_path / "features.h5") as store:
        store.write("a.jpg", some_features(1), SIGNED)
        store.flush()
        with monkeypatch.context() as patch:
            patch.setattr(archive.shutil, "disk_usage", lambda _: usage._replace(free=2**20))
            store.write("b.jpg", some_features(2), SIGNED)
            with pytest.raises(OutputError, match="disk is full"):
                store.flush()
        with pytest.raises(OutputError, match="disk is full"):
            store.write("c.jpg", some_features(3), SIGNED)
        with pytest.raises(OutputError):
            store.close()
    with open_features(tmp_path / "features.h5") as store:
        assert store.names() == ("a.jpg",)


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full(small_disk, monkeypatch):
    monkeypatch.setattr(archive, "_RESERVE_BYTES", 0)  # meet the errors of the file system, not our own
    path, written = small_disk / "features.h5", 0
    with pytest.raises(OutputError, match="disk is full"), open_features(path) as store:
        for number in range(100):
            store.write(f"{number}.jpg", some_features(number, 4000, 256), SIGNED)
            store.flush()
            written += 1
    assert 5 < written < 100
    with open_features(path) as store:  # the draft made room as it was thrown away
        assert len(store.names()) >= written
        assert_same(store.read("3.jpg"), some_features(3, 4000, 256))


# Kills


CHILD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    import numpy as np
    from gim_sfm.images import Signature
    from gim_sfm.store import FeatureStore
    from gim_sfm.types import Features

    def features(number):
        one = np.full(400, number, np.float32)
        return Features(np.stack([one, one], 1), one, np.full((400, 64), number, np.float16), one, (9, 9))

    print("begun", flush=True)
    with FeatureStore.open(Path(sys.argv[1]), "abc", {}) as store:
        for number in range(int(sys.argv[2])):
            if f"{number}.jpg" not in store:
                store.write(f"{number}.jpg", features(number), Signature(1, 2, "x"))
            if number % 10 == 9:
                store.flush()
                print(number, flush=True)
            if number % 40 == 39:
                store.publish()
    print("done", flush=True)
    """
)


def run_child(path: Path, total: int) -> subprocess.Popen:
    command = [sys.executable, "-c", CHILD, str(path), str(total)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_at_any_moment_nothing_durable_is_lost(tmp_path):
    path, total, killed = tmp_path / "features.h5", 120, 0
    for patience in (0.02, 0.06, 0.11, 0.17):
        with run_child(path, total) as child:
            assert child.stdout.readline() == "begun\n"
            time.sleep(patience)
            child.send_signal(signal.SIGKILL)
            lines = child.stdout.read().split()
        killed += "done" not in lines
        durable = max((int(line) for line in lines if line != "done"), default=-1)
        with FeatureStore.open(copied(tmp_path), "abc", {}) as store:
            assert set(store.names()) >= {f"{number}.jpg" for number in range(durable + 1)}
    assert killed >= 1
    with run_child(path, total) as child:
        assert child.stdout.read().endswith("done\n")
    with FeatureStore.open(path, "abc", {}) as store:
        assert sorted(store.names()) == sorted(f"{number}.jpg" for number in range(total))
        for number in range(0, total, 7):
            found = store.read(f"{number}.jpg")
            assert found.descriptors.shape == (400, 64)
            assert (found.descriptors == np.float16(number)).all()
            assert (found.keypoints == number).all()
    assert [file.name for file in tmp_path.glob("features.h5*")] == ["features.h5"]


def copied(folder: Path) -> Path:
    """What a killed run left, copied so that looking at it changes nothing."""
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for file in folder.glob("features.h5*"):
        shutil.copy(file, copy)
    return copy / "features.h5"


class Killed(BaseException):
    pass


BOUNDARIES = [
    ("archive.write_index", 0),
    ("archive._sync", 0),
    ("archive.Path.replace", 0),
    ("archive._sync", 1),
    ("journal.Journal.clear", 0),
    ("journal.os.ftruncate", 0),
    ("archive.write_group", 1),
    ("archive.shutil.copyfile", 0),
]


@pytest.mark.parametrize(("place", "passes"), BOUNDARIES, ids=str)
def test_killed_between_the_steps_of_publishing(tmp_path, monkeypatch, place, passes):
    path = tmp_path / "features.h5"
    with open_features(path) as store:
        store.write("old.jpg", some_features(100), SIGNED)
        store.write("again.jpg", some_features(101), SIGNED)
    store = open_features(path)
    with monkeypatch.context() as patch:
        patch.setattr(f"gim_sfm.{place}", dying(pkgutil.resolve_name(f"gim_sfm.{place}"), passes))
        with pytest.raises(Killed):
            write_four(store)
            store.publish()
    abandon(store)
    with open_features(path) as store:
        assert set(store.names()) >= {"old.jpg", "again.jpg"}
        write_four(store)
    with h5py.File(path) as file:
        assert feature_names(file) == ["0.jpg", "1.jpg", "2.jpg", "again.jpg", "old.jpg"]
        for name, seed in {"0.jpg": 0, "2.jpg": 2, "old.jpg": 100, "again.jpg": 102}.items():
            assert_same(read_features(file, name), some_features(seed))
    assert [file.name for file in tmp_path.iterdir()] == ["features.h5"]


def write_four(store: FeatureStore) -> None:
    for number in range(3):
        store.write(f"{number}.jpg", some_features(number), SIGNED)
    store.write("again.jpg", some_features(102), SIGNED)


def dying(step, passes: int):
    left = [passes]

    def step_or_death(*arguments, **keywords):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return step(*arguments, **keywords)

    return step_or_death


def abandon(store: FeatureStore) -> None:
    """Lets go of the files as the end of a process does, without finishing anything."""
    inner = store._archive
    inner._writer.shutdown(cancel_futures=True)
    if inner._draft is not None:
        inner._draft.close()
    inner._close_published()
    os.close(inner._journal._descriptor)


# The journal by itself


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=5), cut=st.floats(0, 1), flip=st.booleans())
def test_a_torn_journal_is_read_to_its_last_whole_record(tmp_path, sizes, cut, flip):
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    log, ends = Journal(path), []
    for number, size in enumerate(sizes):
        arrays = {"x": np.arange(size, dtype=np.float32), "y": np.zeros((0, 2), np.float16)}
        log.append(Record(f"{number}.jpg", "ü", arrays))
        ends.append(path.stat().st_size)
    log.close()
    content = bytearray(path.read_bytes())
    at = int(cut * (len(content) - 1))
    if flip:
        content[at] ^= 0x10
    path.write_bytes(content if flip else content[:at])
    again = Journal(path)
    whole = sum(end <= at for end in ends)
    assert [entry.key for entry in again.entries] == [f"{number}.jpg" for number in range(whole)]
    for entry, size in zip(again.entries, sizes, strict=False):
        record = again.read(entry.offset)
        np.testing.assert_array_equal(record.arrays["x"], np.arange(size))
        assert (record.facts, record.arrays["y"].shape, record.arrays["y"].dtype) == ("ü", (0, 2), np.float16)
    again.append(Record("next", "", {}))
    again.close()
    final = Journal(path)
    assert len(final.entries) == whole + 1
    final.close()


# Many groups


def test_a_hundred_thousand_pairs_are_listed_in_seconds(tmp_path):
    pairs = [(f"{first}.jpg", f"{second}.jpg") for first in range(450) for second in range(first)][:100_000]
    with h5py.File(tmp_path / "matches.h5", "w", libver=archive._LIBRARY_BOUNDS) as file:
        origin = Origin(DIGEST, SETTINGS)
        write_index(file, origin, {pair_key(pair): "0123456789abcdef fedcba9876543210" for pair in pairs})
    began = time.process_time()
    with MatchStore.open(tmp_path / "matches.h5", DIGEST, SETTINGS) as store:
        assert len(store) == len(pairs)
        assert all(store.is_current(pair, ("0123456789abcdef", "fedcba9876543210")) for pair in pairs)
    assert time.process_time() - began < 10


def test_settings_that_cannot_be_kept_are_refused_at_once(tmp_path):
    with pytest.raises(TypeError):
        open_features(tmp_path / "features.h5", DIGEST, {"path": tmp_path})


def test_digest_of_settings_ignores_order():
    assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    json.dumps(SETTINGS)


def test_an_archive_tells_what_it_lacks(tmp_path):
    with Archive(tmp_path / "x.h5", DIGEST, {}) as store:
        assert store.facts("nothing") is None
