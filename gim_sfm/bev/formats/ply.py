"""PLY files: ASCII, little and big endian. Read here, since the faces of a mesh then cost nothing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gim_sfm.bev.formats.records import Field, Layout, read_binary, read_text
from gim_sfm.bev.formats.refusals import broken
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import InputError
from gim_sfm.files import replacing

_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_KINDS = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_LONGEST_HEADER = 10_000


@dataclass(slots=True)
class _Element:
    name: str
    rows: int
    fields: list[Field] = field(default_factory=list)
    has_list: bool = False


def read_ply(path: Path) -> PointCloud:
    """Reads the vertices of a PLY file: x, y, z, and intensity where there is one. Faces are passed over.

    Raises:
        InputError: It is no PLY file, has no vertices with coordinates, or is cut short.
    """
    with path.open("rb") as file:
        order, elements = _read_header(path, file)
        start = file.tell()
    names = [element.name for element in elements]
    if "vertex" not in names:
        raise InputError(f"{path} has no vertices", remedy="export the points as the element 'vertex'")
    before, vertex = elements[: names.index("vertex")], elements[names.index("vertex")]
    if vertex.has_list or (order != "=" and any(element.has_list for element in before)):
        raise InputError(f"{path} has lists among or before its vertices", remedy="export points only")
    fields = tuple(vertex.fields)
    if order == "=":
        return read_text(path, Layout(fields, vertex.rows, start), skipped=sum(e.rows for e in before))
    passed = sum(element.rows * Layout(tuple(element.fields), 0, 0).record_size for element in before)
    return read_binary(path, Layout(fields, vertex.rows, start + passed))


def write_ply(path: Path, cloud: PointCloud) -> None:
    """Writes a binary little-endian PLY file, with coordinates in double where the origin is not zero."""
    kind, name = ("<f8", "double") if cloud.origin.any() else ("<f4", "float")
    values = cloud.coordinates if cloud.origin.any() else cloud.points
    extra = [("intensity", "<f4")] if cloud.intensity.size else []
    records = np.empty(len(cloud), [(axis, kind) for axis in "xyz"] + extra)
    for axis, column in zip("xyz", values.T, strict=True):
        records[axis] = column
    if extra:
        records["intensity"] = cloud.intensity
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(cloud)}",
        *(f"property {name} {axis}" for axis in "xyz"),
        *("property float intensity" for _ in extra),
        "end_header\n",
    ]
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join(lines).encode("ascii"))
        records.tofile(file)


def _read_header(path: Path, file: BinaryIO) -> tuple[str, list[_Element]]:
    if file.readline(16).strip() != b"ply":
        raise broken(path, "it does not begin with the line 'ply'")
    order, elements = "", list[_Element]()
    for line in iter(lambda: file.readline(_LONGEST_HEADER), b""):
        match line.decode("latin-1").split():
            case ["format", name, *_] if name in _ORDERS:
                order = _ORDERS[name]
            case ["element", name, rows] if rows.isdecimal():
                elements.append(_Element(name, int(rows)))
            case ["property", "list", *_] if elements:
                elements[-1].has_list = True
            case ["property", kind, name] if elements and kind in _KINDS:
                elements[-1].fields.append(Field(name.lower(), np.dtype((order or "=") + _KINDS[kind])))
            case ["end_header"] if order:
                return order, elements
            case ["comment" | "obj_info", *_] | []:
                pass
            case _:
                raise broken(path, f"its header has the line {line.decode('latin-1').strip()[:60]!r}")
    raise broken(path, "its header does not end")
