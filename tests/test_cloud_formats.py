import logging
import re
import struct
import subprocess
import sys
from pathlib import Path

import laspy
import numpy as np
import plyfile
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gim_sfm.bev.cloud_formats import READERS, WRITERS, load_cloud, read_cloud, write_cloud
from gim_sfm.bev.formats.lzf import decompress
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import InputError, OutputError

POINTS = 300
SURVEY = np.array([431_234.0, 5_412_345.0, 287.0])


def make_coordinates(shift: np.ndarray | float = 0.0) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 20, (POINTS, 3)) + shift


def make_intensity() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 4000, POINTS).astype(np.float32)


def make_cloud(shift: np.ndarray | float = 0.0, *, shining: bool = True) -> PointCloud:
    return PointCloud.of(make_coordinates(shift), make_intensity() if shining else None)


def literal_runs(data: bytes) -> bytes:
    """LZF that saves nothing: runs of up to 32 bytes as they are."""
    runs = (data[at : at + 32] for at in range(0, len(data), 32))
    return b"".join(bytes([len(run) - 1]) + run for run in runs)


def compress(data: bytes) -> bytes:
    """LZF with back references, greedy, as liblzf lays them out."""
    out, waiting, seen, at = bytearray(), bytearray(), dict[bytes, int](), 0
    while at < len(data):
        before = seen.get(data[at : at + 3], -1)
        seen[data[at : at + 3]] = at
        length = 0
        while (
            before >= 0
            and at + length < len(data)
            and length < 264
            and data[before + length] == data[at + length]
        ):
            length += 1
        if length < 3 or at - before > 8192:
            waiting.append(data[at])
            at += 1
            continue
        out += literal_runs(bytes(waiting))
        waiting.clear()
        away = at - before - 1
        short = min(length - 2, 7)
        out += bytes([(short << 5) | (away >> 8), *([length - 9] if short == 7 else []), away & 255])
        at += length
    return bytes(out + literal_runs(bytes(waiting)))


def pcd_header(
    data: str, *, fields: str = "x y z intensity", count: str = "1 1 1 1", **words: object
) -> bytes:
    names = fields.split()
    lines = {
        "VERSION": "0.7",
        "FIELDS": fields,
        "SIZE": " ".join("4" for _ in names),
        "TYPE": " ".join("F" for _ in names),
        "COUNT": count,
        "WIDTH": POINTS,
        "HEIGHT": 1,
        "VIEWPOINT": "0 0 0 1 0 0 0",
        "POINTS": POINTS,
        "DATA": data,
    } | words
    return "".join(["# .PCD v0.7\n", *(f"{key} {value}\n" for key, value in lines.items())]).encode()


def pcd_compressed(columns: list[np.ndarray], **words: object) -> bytes:
    body = b"".join(column.tobytes() for column in columns)
    packed = compress(body)
    return pcd_header("binary_compressed", **words) + struct.pack("<II", len(packed), len(body)) + packed


def records(cloud: PointCloud) -> np.ndarray:
    return np.c_[cloud.points, cloud.intensity].astype("<f4")


def as_text(table: np.ndarray) -> bytes:
    return b"\n".join(b" ".join(repr(float(value)).encode() for value in row) for row in table) + b"\n"


def write_las(path: Path, coordinates: np.ndarray, *, intensity: np.ndarray | None = None) -> None:
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = np.full(3, 0.001), np.floor(coordinates.mean(axis=0))
    file = laspy.LasData(header)
    file.xyz = coordinates
    if intensity is not None:
        file.intensity = intensity.astype(np.uint16)
    file.write(path)


def write_model(folder: Path, *, text: bool = False) -> np.ndarray:
    options = pycolmap.SyntheticDatasetOptions()
    options.num_points3D = POINTS
    model = pycolmap.synthesize_dataset(options)
    folder.mkdir()
    (model.write_text if text else model.write_binary)(folder)
    return np.array([point.xyz for _, point in sorted(model.points3D.items())])


def write_any(path: Path) -> None:
    """Some cloud in the format of the suffix."""
    cloud = make_cloud()
    text = as_text(records(cloud))
    other = {
        ".npy": lambda: np.save(path, records(cloud)),
        ".las": lambda: write_las(path, cloud.coordinates, intensity=cloud.intensity),
        ".laz": lambda: write_las(path, cloud.coordinates, intensity=cloud.intensity),
        ".pts": lambda: path.write_bytes(b"%d\n" % POINTS + text),
    }
    if path.suffix in WRITERS:
        write_cloud(path, cloud)
    else:
        other.get(path.suffix, lambda: path.write_bytes(text))()


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("shining", [True, False])
def test_clouds_come_back_as_they_were_written(tmp_path: Path, suffix: str, shining: bool) -> None:
    cloud = make_cloud(shining=shining)
    write_cloud(tmp_path / f"cloud{suffix}", cloud)
    back = read_cloud(tmp_path / f"cloud{suffix}")
    assert np.array_equal(back.points, cloud.points)
    assert not back.origin.any()
    assert np.array_equal(
        back.intensity, np.zeros(POINTS) if suffix == ".bin" and not shining else cloud.intensity
    )


@pytest.mark.parametrize("suffix", [".ply", ".pcd", ".npz"])
def test_survey_coordinates_come_back_to_the_micrometre(tmp_path: Path, suffix: str) -> None:
    cloud = make_cloud(SURVEY)
    write_cloud(tmp_path / f"cloud{suffix}", cloud)
    back = read_cloud(tmp_path / f"cloud{suffix}")
    assert np.abs(back.coordinates - cloud.coordinates).max() < 1e-6
    assert np.array_equal(back.intensity, cloud.intensity)


def test_a_format_too_coarse_for_the_coordinates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="too large"):
        write_cloud(tmp_path / "cloud.bin", make_cloud(SURVEY))
    write_cloud(tmp_path / "near.bin", make_cloud(np.array([1500.0, 0, 0])))
    assert not (tmp_path / "cloud.bin").exists()


@pytest.mark.parametrize("name", ["cloud.obj", "cloud", "file/cloud.ply"])
def test_what_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as caught:
        write_cloud(tmp_path / name, make_cloud())
    assert name in caught.value.message


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_float_survives(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.floats(width=32, min_value=-400, max_value=400), min_size=4, max_size=80))
    table = np.array(values[: len(values) // 4 * 4], np.float32).reshape(-1, 4)
    cloud = PointCloud.of(np.ascontiguousarray(table[:, :3]), table[:, 3])
    folder = tmp_path_factory.mktemp("floats")
    for suffix in WRITERS:
        write_cloud(folder / f"cloud{suffix}", cloud)
        back = read_cloud(folder / f"cloud{suffix}")
        assert np.array_equal(back.coordinates, cloud.coordinates)
        assert np.array_equal(back.intensity, cloud.intensity)


@pytest.mark.parametrize("suffix", READERS)
def test_suffixes_count_in_capital_letters(tmp_path: Path, suffix: str) -> None:
    write_any(tmp_path / f"cloud{suffix}")
    (tmp_path / f"cloud{suffix}").rename(tmp_path / f"OTHER{suffix.upper()}")
    cloud = load_cloud(tmp_path / f"OTHER{suffix.upper()}")
    assert np.abs(cloud.coordinates - make_coordinates()).max() < 1e-3
    assert len(cloud.intensity) == POINTS


def test_arrays_are_read_in_every_shape(tmp_path: Path) -> None:
    coordinates, intensity = make_coordinates(), make_intensity()
    kinds = [("X", "f8"), ("y", "f8"), ("Z", "f8"), ("ring", "u1"), ("Intensity", "f4")]
    fields = np.zeros((3, POINTS // 3), kinds)
    for axis, name in enumerate("XyZ"):
        fields[name] = coordinates[:, axis].reshape(3, -1)
    fields["Intensity"] = intensity.reshape(3, -1)
    arrays = {
        "bare": (coordinates, 0),
        "float16": (coordinates.astype(np.float16), 0),
        "fortran": (np.asfortranarray(coordinates), 0),
        "four": (np.c_[coordinates, intensity], POINTS),
        "six": (np.c_[coordinates, intensity, coordinates[:, :2]].astype(">f4"), POINTS),
        "fields": (fields, POINTS),
        "integers": (np.rint(coordinates).astype(np.int32), 0),
    }
    for name, (array, shining) in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
        cloud = read_cloud(tmp_path / f"{name}.npy")
        assert np.abs(cloud.coordinates - coordinates).max() < (0.6 if name == "integers" else 0.05), name
        assert cloud.points.dtype == np.float32
        assert cloud.intensity.shape == (shining,), name
        assert np.array_equal(cloud.intensity, intensity[:shining])


@pytest.mark.parametrize("key", ["points", "xyz", "arr_0"])
def test_archives_are_read_under_each_name(tmp_path: Path, key: str) -> None:
    np.savez_compressed(tmp_path / "a.npz", **{key: make_coordinates(SURVEY), "other": np.zeros(3)})  # type: ignore[arg-type]
    cloud = read_cloud(tmp_path / "a.npz")
    assert np.abs(cloud.coordinates - make_coordinates(SURVEY)).max() < 1e-4
    assert cloud.intensity.shape == (0,)


@pytest.mark.parametrize("order", ["<", ">", "="])
@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("name", ["intensity", "scalar_Intensity", "reflectance"])
def test_ply_of_a_library_is_read(tmp_path: Path, order: str, kind: str, name: str) -> None:
    coordinates = make_coordinates()
    columns = [("z", kind), ("red", "u1"), ("x", kind), (name, "f4"), ("y", kind), ("label", "i2")]
    vertices = np.zeros(POINTS, columns)
    for axis, letter in enumerate("xyz"):
        vertices[letter] = coordinates[:, axis]
    vertices[name] = make_intensity()
    faces = np.zeros(50, [("vertex_indices", "i4", (3,))])
    cameras = np.zeros(3, [("view", "f8"), ("id", "u2")])
    described = plyfile.PlyElement.describe
    elements = [described(cameras, "camera"), described(vertices, "vertex"), described(faces, "face")]
    text = order == "="
    plyfile.PlyData(elements, text=text, byte_order=order, comments=["made by a test"]).write(
        tmp_path / "a.ply"
    )
    cloud = read_cloud(tmp_path / "a.ply")
    assert np.abs(cloud.coordinates - coordinates).max() < 1e-4
    assert np.array_equal(cloud.intensity, make_intensity())


def test_a_library_reads_our_ply(tmp_path: Path) -> None:
    for shift in (0.0, SURVEY):
        write_cloud(tmp_path / "a.ply", make_cloud(shift))
        vertices = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]
        assert np.abs(vertices["y"] - make_cloud(shift).coordinates[:, 1]).max() < 1e-6


def test_ply_with_lines_ended_as_on_windows(tmp_path: Path) -> None:
    write_cloud(tmp_path / "a.ply", make_cloud())
    head, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)
    (tmp_path / "a.ply").write_bytes((head + b"end_header\n").replace(b"\n", b"\r\n") + body)
    assert np.array_equal(read_cloud(tmp_path / "a.ply").points, make_cloud().points)


def test_pcd_is_read_in_each_of_its_three_kinds(tmp_path: Path) -> None:
    cloud = make_cloud()
    bodies = {
        "ascii": pcd_header("ascii") + as_text(records(cloud)),
        "binary": pcd_header("binary") + records(cloud).tobytes(),
        "compressed": pcd_compressed([*records(cloud).T]),
    }
    for name, content in bodies.items():
        (tmp_path / f"{name}.pcd").write_bytes(content)
        back = read_cloud(tmp_path / f"{name}.pcd")
        assert np.array_equal(back.points, cloud.points), name
        assert np.array_equal(back.intensity, cloud.intensity), name


@pytest.mark.parametrize("kind", ["ascii", "binary", "binary_compressed"])
def test_pcd_with_fields_of_any_order_size_and_type(tmp_path: Path, kind: str) -> None:
    cloud = make_cloud(SURVEY)
    table = np.zeros(
        POINTS,
        [
            ("pad", "u1", 3),
            ("z", "<f8"),
            ("normal", "<f4", 3),
            ("y", "<f8"),
            ("intensity", "<u2"),
            ("x", "<f8"),
        ],
    )
    for axis, name in enumerate("xyz"):
        table[name] = cloud.coordinates[:, axis]
    table["intensity"] = cloud.intensity
    words = {
        "fields": "_ z normal y intensity x",
        "count": "3 1 3 1 1 1",
        "SIZE": "1 8 4 8 2 8",
        "TYPE": "U F F F U F",
    }
    names = table.dtype.names or ()
    flat = np.concatenate([table[name].reshape(POINTS, -1).astype(float) for name in names], axis=1)
    content = {
        "ascii": lambda: pcd_header("ascii", **words) + as_text(flat),
        "binary": lambda: pcd_header("binary", **words) + table.tobytes(),
        "binary_compressed": lambda: pcd_compressed([table[name] for name in names], **words),
    }
    (tmp_path / "a.pcd").write_bytes(content[kind]())
    back = read_cloud(tmp_path / "a.pcd")
    assert np.abs(back.coordinates - cloud.coordinates).max() < 1e-4
    assert np.array_equal(back.intensity, cloud.intensity)


def test_organised_pcd_keeps_its_blanks_until_it_is_cleaned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = records(make_cloud())
    table[5::10, :3] = np.nan
    header = pcd_header("ascii", WIDTH=30, HEIGHT=10, VIEWPOINT="1 2 3 1 0 0 0").replace(b"POINTS 300\n", b"")
    (tmp_path / "a.pcd").write_bytes(header + as_text(table))
    assert len(read_cloud(tmp_path / "a.pcd")) == 300
    assert "viewpoint 1 2 3 1 0 0 0" in caplog.text
    with caplog.at_level(logging.INFO):
        assert len(load_cloud(tmp_path / "a.pcd")) == 270
    assert "270 of 300 points kept; dropped 30 not finite" in caplog.text


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=600), st.integers(1, 30))
def test_lzf_gives_back_what_was_compressed(data: bytes, times: int) -> None:
    data = data * times
    assert decompress(compress(data), len(data)).tobytes() == data
    assert decompress(literal_runs(data), len(data)).tobytes() == data


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=40, max_size=300), st.data())
def test_lzf_of_another_length_is_refused(data: bytes, draw: st.DataObject) -> None:
    packed = compress(data * 3)
    with pytest.raises(ValueError, match="compressed part"):
        decompress(packed, len(data) * 3 + draw.draw(st.integers(-100, 100).filter(bool)))
    with pytest.raises(ValueError, match="compressed part"):
        decompress(packed[: draw.draw(st.integers(0, len(packed) - 1))], len(data) * 3)


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_las_scale_and_offset_are_applied_exactly(tmp_path: Path, suffix: str) -> None:
    written = np.round(make_coordinates(SURVEY) * 50, 3) / 50
    write_las(tmp_path / f"a{suffix}", written, intensity=make_intensity())
    cloud = read_cloud(tmp_path / f"a{suffix}")
    assert np.abs(cloud.coordinates - written).max() < 0.00052  # half a unit of the file, and float32
    assert np.array_equal(cloud.intensity, make_intensity())
    write_las(tmp_path / f"b{suffix}", written)
    assert read_cloud(tmp_path / f"b{suffix}").intensity.shape == (0,)


def test_las_of_the_latest_version(tmp_path: Path) -> None:
    header = laspy.LasHeader(point_format=6, version="1.4")
    header.scales = np.full(3, 0.001)
    file = laspy.LasData(header)
    file.xyz = make_coordinates()
    for name in ("a.las", "a.laz"):
        file.write(tmp_path / name)
        assert np.abs(read_cloud(tmp_path / name).coordinates - make_coordinates()).max() < 0.00052


@pytest.mark.parametrize("text", [True, False])
def test_the_points_of_a_model(tmp_path: Path, text: bool) -> None:
    expected = write_model(tmp_path / "model", text=text)
    cloud = load_cloud(tmp_path / "model")
    assert cloud.intensity.shape == (0,)
    order, there = np.lexsort(cloud.coordinates.T), np.lexsort(expected.T)
    assert np.abs(cloud.coordinates[order] - expected[there]).max() < 1e-5


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "bin odd": ("a.bin", bytes(17), "no KITTI scan"),
    "bin of doubles": ("a.bin", make_coordinates().repeat(2, axis=1).tobytes(), "no float32"),
    "bin of a model": ("points3D.bin", bytes(16), "COLMAP model"),
    "npy text": ("a.npy", b"hello, world", "no complete"),
    "npz text": ("a.npz", b"hello, world", "no complete"),
    "ply magic": ("a.ply", b"PLYmouth\n", "'ply'"),
    "ply endless": ("a.ply", b"ply\nformat ascii 1.0\n", "does not end"),
    "ply format": ("a.ply", b"ply\nformat binary_middle_endian 1.0\nend_header\n", "binary_middle_endian"),
    "ply faces only": ("a.ply", b"ply\nformat ascii 1.0\nelement face 0\nend_header\n", "no vertices"),
    "ply without z": (
        "a.ply",
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nend_header\n1 2\n",
        "no coordinates x, y and z, but x, y",
    ),
    "ply no point": (
        "a.ply",
        b"ply\nformat ascii 1.0\nelement vertex 0\n"
        b"property float x\nproperty float y\nproperty float z\nend_header\n",
        "no point",
    ),
    "ply list": (
        "a.ply",
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty list uchar int x\nend_header\n1 2\n",
        "lists",
    ),
    "pcd magic": ("a.pcd", b"hello\n", "'hello'"),
    "pcd endless": ("a.pcd", b"VERSION 0.7\nFIELDS x y z\n", "no line DATA"),
    "pcd uneven": ("a.pcd", pcd_header("ascii", SIZE="4 4"), "contradicts"),
    "pcd kind": ("a.pcd", pcd_header("binary", TYPE="F F F Q"), "contradicts"),
    "pcd data": ("a.pcd", pcd_header("zipped"), "zipped"),
    "pcd without z": ("a.pcd", pcd_header("ascii", fields="x y q intensity"), "no coordinates"),
    "pcd words": ("a.pcd", pcd_header("ascii") + b"1 2 three 4\n" * POINTS, "three"),
    "pcd ragged": ("a.pcd", pcd_header("ascii") + b"1 2\n" * POINTS, "2 columns"),
    "pcd no point": ("a.pcd", pcd_header("ascii", POINTS=0, WIDTH=0), "no point"),
    "pcd none compressed": (
        "a.pcd",
        pcd_header("binary_compressed", POINTS=0, WIDTH=0) + bytes(8),
        "no point",
    ),
    "pcd lzf": (
        "a.pcd",
        pcd_header("binary_compressed") + struct.pack("<II", 50, 16 * POINTS) + b"\xff" * 50,
        "compressed part",
    ),
    "pcd sizes": ("a.pcd", pcd_header("binary_compressed") + struct.pack("<II", 50, 77) + bytes(50), "77"),
    "las magic": ("a.las", b"LASS" + bytes(400), "LAS"),
    "laz magic": ("a.laz", b"LASF", "LAS"),
    "xyz words": ("a.xyz", b"x y z\n1 2 3\n", "'x'"),
    "xyz flat": ("a.xyz", b"1 2\n3 4\n", "2 values"),
    "xyz blank": ("a.xyz", b"# nothing\n\n", "0 values"),
    "pts short": ("a.pts", b"5\n1 2 3\n4 5 6\n", "promises 5 points, it holds 2"),
    "pts headless": ("a.pts", b"1 2 3\n4 5 6\n", "number of points"),
    "pts none": ("a.pts", b"0\n", "no point"),
    "unknown": ("a.e57", b"ASTM-E57", "no known"),
    "no suffix": ("cloud", b"1 2 3", "no known"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_by_name_and_reason(tmp_path: Path, case: str) -> None:
    name, content, reason = BROKEN[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(reason)) as caught:
        read_cloud(tmp_path / name)
    assert str(tmp_path / name) in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_files_cut_short_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cloud{suffix}"
    write_any(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share) // 16 * 16 - 3])
    if suffix.startswith(".xyz"):  # says nowhere how long it is; at least its last line shows
        path.write_bytes(content[: content.index(b" ", int(len(content) * share * 0.9))])
    with pytest.raises(InputError) as caught:
        read_cloud(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("suffix", READERS)
def test_empty_and_absent_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cloud{suffix}"
    with pytest.raises(InputError, match="there is no file"):
        read_cloud(path)
    path.touch()
    with pytest.raises(InputError, match=r"empty \(0 bytes\)"):
        read_cloud(path)


def test_scans_of_five_values_are_told_by_size_and_by_their_rings(tmp_path: Path) -> None:
    rows = np.c_[make_coordinates(), make_intensity(), np.arange(POINTS) % 32].astype("<f4")
    for count in (299, 300):  # of which the second also has the size of a KITTI scan
        rows[:count].tofile(tmp_path / "a.bin")
        with pytest.raises(InputError) as caught:
            read_cloud(tmp_path / "a.bin")
        assert "nuScenes" in caught.value.remedy


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((300, 2)), "shape"),
        (np.zeros(300), "shape"),
        (np.zeros((3, 300)), "shape"),
        (np.zeros((300, 3), complex), "complex"),
        (np.full((300, 3), "a"), "type"),
        (np.zeros(300, [("x", "f4"), ("y", "f4")]), "no coordinates"),
        (np.zeros((0, 3)), "no point"),
        (np.full((300, 3), None), "no complete"),
    ],
)
def test_arrays_that_are_no_clouds_are_refused(tmp_path: Path, array: np.ndarray, reason: str) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", points=array)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match=reason) as caught:
            read_cloud(tmp_path / name)
        assert name in caught.value.message


def test_archives_without_points_or_with_too_few_intensities_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", scan=make_coordinates())
    with pytest.raises(InputError, match=r"holds scan, but none of points, xyz, arr_0"):
        read_cloud(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", points=make_coordinates(), intensity=np.zeros(7))
    with pytest.raises(InputError, match="7 intensities"):
        read_cloud(tmp_path / "b.npz")


def test_folders_that_are_no_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no COLMAP model") as caught:
        read_cloud(tmp_path)
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("share", [0.0005, 0.2, 0.7, 0.999])
def test_models_cut_short_are_refused(tmp_path: Path, text: bool, share: float) -> None:
    write_model(tmp_path / "model", text=text)
    path = tmp_path / "model" / ("points3D.txt" if text else "points3D.bin")
    content = path.read_bytes()
    cut = content[: int(len(content) * share)]
    path.write_bytes(cut[: cut.rfind(b"\n") + 1] if text and share > 0.1 else cut)
    with pytest.raises(InputError) as caught:
        read_cloud(tmp_path / "model")
    assert str(tmp_path / "model") in caught.value.message


def test_clouds_of_nothing_but_blanks_are_refused(tmp_path: Path) -> None:
    for suffix in WRITERS:
        path = tmp_path / f"cloud{suffix}"
        write_cloud(path, PointCloud.of(np.full((POINTS, 3), np.nan, np.float32)))
        with pytest.raises(InputError, match="300 not finite"):
            load_cloud(path)


def test_unreadable_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cloud(tmp_path / "a.ply", make_cloud())

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"a.ply cannot be read: Permission denied"):
        read_cloud(tmp_path / "a.ply")


@pytest.mark.parametrize("module", ["laspy", "lazrs"])
def test_a_missing_package_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    write_any(tmp_path / "a.laz")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"{module} is not installed") as caught:
        read_cloud(tmp_path / "a.laz")
    assert "gim_sfm[bev]" in caught.value.remedy


def test_every_format_is_read_without_open3d_and_other_large_packages(tmp_path: Path) -> None:
    for suffix in READERS:
        write_any(tmp_path / f"cloud{suffix}")
    write_model(tmp_path / "model")
    program = """
import sys
for name in ("open3d", "plyfile", "torch", "pycolmap", "cv2"):
    sys.modules[name] = None
from pathlib import Path
from gim_sfm.bev.cloud_formats import load_cloud
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, len(load_cloud(path)))
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count(f" {POINTS}\n") == len(READERS) + 1


@pytest.mark.data
def test_a_real_scan_goes_through_every_format(shared_data: Path, tmp_path: Path) -> None:
    cloud = load_cloud(shared_data / "lidar" / "kitti08_loop" / "000720.bin")
    assert len(cloud) > 100_000
    assert 0 <= cloud.intensity.min() < cloud.intensity.max() <= 1
    for suffix in WRITERS:
        write_cloud(tmp_path / f"scan{suffix}", cloud)
        assert np.array_equal(load_cloud(tmp_path / f"scan{suffix}").points, cloud.points)
