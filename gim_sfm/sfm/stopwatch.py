"""Where the time of a run went."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stopwatch:
    """Wall seconds by stage, and how many of them were spent inside networks and pycolmap.

    Attributes:
        stages: Seconds of each stage, in the order they ran.
        inside: Seconds of each stage that no code of this package could save.
    """

    stages: dict[str, float] = field(default_factory=dict)
    inside: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, *, inside: bool = False) -> Iterator[None]:
        """Times the block; several blocks of one name add up.

        Args:
            name: Of the stage.
            inside: Whether the block is one call into pycolmap.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.stages[name] = self.stages.get(name, 0.0) + seconds
            if inside:
                self.note_inside(name, seconds)

    def note_inside(self, name: str, seconds: float) -> None:
        """Adds time that a stage spent inside a network or pycolmap."""
        self.inside[name] = self.inside.get(name, 0.0) + seconds

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.stages.values())
