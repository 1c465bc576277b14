"""Progress bars on stderr: one per stage, with rate and time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Advance = Callable[[int], object]
"""Call with the number of items just finished."""


@contextmanager
def stage(title: str, total: int, unit: str, *, done: int = 0) -> Iterator[Advance]:
    """Shows one stage's bar while the block runs.

    Args:
        title: What is being done, e.g. "Extracting features".
        total: Items in the whole stage.
        unit: What is counted, e.g. "photo".
        done: Items that an earlier run finished already; they do not count into the rate.
    """
    with tqdm(total=total, initial=done, desc=title, unit=unit, smoothing=0.05, disable=None) as bar:
        yield bar.update
