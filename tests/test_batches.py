from collections.abc import Sequence

import pytest

from gim_sfm.errors import ResourceError
from gim_sfm.matchers.batches import InBatches


class Network:
    """Doubles numbers, at most `room` at once."""

    def __init__(self, room: int, error: Exception) -> None:
        self.room, self.error = room, error
        self.calls: list[int] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.calls.append(len(items))
        if len(items) > self.room:
            raise self.error
        return [2 * item for item in items]


FULL = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_items_come_back_in_order() -> None:
    network = Network(8, FULL)
    assert InBatches(network, 4)(range(10)) == [2 * item for item in range(10)]
    assert network.calls == [4, 4, 2]


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        RuntimeError("MPS backend out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ],
)
def test_a_full_memory_halves_the_batch_for_good(error: Exception) -> None:
    network = Network(2, error)
    batches = InBatches(network, 8)
    assert batches(range(6)) == [2 * item for item in range(6)]
    assert batches(range(4)) == [0, 2, 4, 6]
    assert network.calls == [6, 3, 2, 2, 2, 2, 2]


def test_one_item_that_does_not_fit_is_told() -> None:
    with pytest.raises(ResourceError, match="does not fit into memory") as told:
        InBatches(Network(0, FULL), 4)(range(3))
    assert "--image-size" in told.value.remedy


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"):
        InBatches(Network(0, RuntimeError("shapes differ")), 4)(range(3))
