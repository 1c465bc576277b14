"""Files that hold no cloud, refused by name with the reason."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gim_sfm.errors import InputError


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turns whatever a reader raises on a damaged file into an InputError naming the file."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(
            f"{path} does not fit into memory", remedy="thin the cloud or cut it into parts"
        ) from error
    except OSError as error:
        if error.strerror is None:
            raise broken(path, str(error)) from error
        raise InputError(
            f"{path} cannot be read: {error.strerror}", remedy="check the path and its permissions"
        ) from error
    except Exception as error:  # libraries raise ValueError, KeyError, struct.error, BadZipFile, ...
        raise broken(path, str(error) or type(error).__name__) from error


def broken(path: Path, reason: str) -> InputError:
    """The content is not what the suffix promises."""
    return InputError(
        f"{path} cannot be read as a point cloud: {reason}",
        remedy="check that its suffix names its format, copy it again, or export it anew",
    )


def cut_short(path: Path, promised: int, held: int) -> InputError:
    """The file ends before its header says."""
    return InputError(
        f"{path} is cut short: its header promises {promised} points, it holds {held}",
        remedy="copy the file again or export it anew",
    )
