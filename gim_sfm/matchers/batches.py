"""How many items a network takes at once: as many as asked for, fewer where memory runs out."""

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from gim_sfm.errors import ResourceError

Item = TypeVar("Item")
Result = TypeVar("Result")

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says, in lower case, when a device is full; only CUDA has an exception of its own for it."""

log = logging.getLogger(__name__)


class InBatches(Generic[Item, Result]):
    """Runs a network over items in batches; a full memory halves the batch, for good, and nothing is lost.

    Args:
        compute: Gives one result an item.
        size: Items a call, to begin with.
    """

    def __init__(self, compute: Callable[[Sequence[Item]], Sequence[Result]], size: int) -> None:
        self._compute = compute
        self.size = size

    def __call__(self, items: Sequence[Item]) -> list[Result]:
        """A result of each item, in order.

        Raises:
            ResourceError: Not even one item fits into memory.
        """
        results: list[Result] = []
        while len(results) < len(items):
            batch = items[len(results) : len(results) + self.size]
            try:
                results.extend(self._compute(batch))
            except (RuntimeError, MemoryError) as error:
                if not means_full(error):
                    raise
                self._shrink(len(batch), error)
        return results

    def _shrink(self, tried: int, error: Exception) -> None:
        if tried == 1:
            raise ResourceError(
                f"The network does not fit into memory: {str(error).partition(chr(10))[0]}",
                remedy="Let it see smaller photos (--image-size), or run it elsewhere (--device cpu).",
            ) from error
        self.size = (tried + 1) // 2
        log.warning("Memory is full with %d at once; going on with %d.", tried, self.size)
        _release()


def means_full(error: Exception) -> bool:
    """Whether an error says that a device has no room left."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _SIGNS)


def _release() -> None:
    """Gives back what torch keeps for later, which may be in pieces too small."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
