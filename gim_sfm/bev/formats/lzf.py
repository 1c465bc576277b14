"""LZF, the compression of PCD files.

No kept-up wheel of liblzf is on the package index, but HDF5, which h5py brings along, has it among its
filters: the compressed bytes are laid into a file in memory as a chunk that HDF5 then decompresses.
"""

import os

import h5py
import numpy as np
from jaxtyping import UInt8

_LARGEST = 2**32 - 64
_LITERAL_16 = b"\x0f"
"""LZF for: the next 16 bytes are to be copied as they are."""


def decompress(data: bytes, size: int) -> UInt8[np.ndarray, " size"]:
    """Decompresses LZF.

    HDF5 does not tell when data end early. So 16 random bytes are appended to them in a way that they must
    come out exactly behind the last byte that is expected.

    Args:
        data: One LZF stream.
        size: Bytes that it must come to.

    Raises:
        ValueError: It is damaged or comes to another size.
    """
    if not 0 < size < _LARGEST:
        raise ValueError(f"{size} bytes cannot be decompressed in one piece")
    mark = os.urandom(16)
    with h5py.File("lzf", "w", driver="core", backing_store=False) as file:
        room = file.create_dataset("room", (size + 16,), "u1", chunks=(size + 16,), compression="lzf")
        room.id.write_direct_chunk((0,), data + _LITERAL_16 + mark)
        try:
            bytes_out: UInt8[np.ndarray, " size"] = room[:]
        except OSError as error:
            raise ValueError("its compressed part is damaged") from error
    if bytes_out[size:].tobytes() != mark:
        raise ValueError(f"its compressed part does not come to {size} bytes")
    return bytes_out[:size]
