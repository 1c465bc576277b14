"""Scores that the authors of GIM publish for ZEB: AUC@5° in percent, to one decimal, as in their README."""

from dataclasses import dataclass

from gim_sfm.evaluation.zeb_sets import ZEB_SETS


@dataclass(frozen=True, slots=True)
class PublishedScores:
    """One row of the table.

    Attributes:
        method: With the training data ("in"door, "out"door, hours of video) as printed.
        mean: Over the twelve sets, as printed, percent.
        scores: In the order of `ZEB_SETS`, percent.
    """

    method: str
    mean: float
    scores: tuple[float, ...]

    def of_set(self, name: str) -> float:
        """The score of a set by its name in result files, percent."""
        return dict(zip((each.name for each in ZEB_SETS), self.scores, strict=True))[name]


PUBLISHED_SCORES: tuple[PublishedScores, ...] = (
    PublishedScores(
        "RootSIFT", 31.8, (43.5, 33.6, 49.9, 48.7, 35.2, 21.4, 44.1, 14.7, 33.4, 7.6, 14.8, 35.1)
    ),
    PublishedScores(
        "SuperGlue in", 21.6, (19.2, 16.0, 38.2, 37.7, 22.0, 20.8, 40.8, 13.7, 21.4, 0.8, 9.6, 18.8)
    ),
    PublishedScores(
        "SuperGlue out", 31.2, (29.7, 24.2, 52.3, 59.3, 28.0, 28.4, 48.0, 20.9, 33.4, 4.5, 16.6, 29.3)
    ),
    PublishedScores(
        "GIM_SuperGlue 50h", 34.3, (43.2, 34.2, 58.7, 61.0, 29.0, 28.3, 48.4, 18.8, 34.8, 2.8, 15.4, 36.5)
    ),
    PublishedScores(
        "LightGlue", 31.7, (28.9, 23.9, 51.6, 56.3, 32.1, 29.5, 48.9, 22.2, 37.4, 3.0, 16.2, 30.4)
    ),
    PublishedScores(
        "GIM_LightGlue 100h", 38.3, (46.6, 38.1, 61.7, 62.9, 34.9, 31.2, 50.6, 22.6, 41.8, 6.9, 19.0, 43.4)
    ),
    PublishedScores("LoFTR in", 10.7, (5.6, 5.1, 11.8, 7.5, 17.2, 6.4, 9.7, 3.5, 22.4, 1.3, 14.9, 23.4)),
    PublishedScores(
        "LoFTR out", 33.1, (29.3, 22.5, 51.1, 60.1, 36.1, 29.7, 48.6, 19.4, 37.0, 13.1, 20.5, 30.3)
    ),
    PublishedScores(
        "GIM_LoFTR 50h", 39.1, (50.6, 43.9, 62.6, 61.6, 35.9, 26.8, 47.5, 17.6, 41.4, 10.2, 25.6, 45.0)
    ),
    PublishedScores("DKM in", 46.2, (44.4, 37.0, 65.7, 73.3, 40.2, 32.8, 51.0, 23.1, 54.7, 33.0, 43.6, 55.7)),
    PublishedScores(
        "DKM out", 45.8, (45.7, 37.0, 66.8, 75.8, 41.7, 33.5, 51.4, 22.9, 56.3, 27.3, 37.8, 52.9)
    ),
    PublishedScores(
        "GIM_DKM 50h", 49.4, (58.3, 47.8, 72.7, 74.5, 42.1, 34.6, 52.0, 25.1, 53.7, 32.3, 38.8, 60.6)
    ),
    PublishedScores(
        "GIM_DKM 100h", 51.2, (63.3, 53.0, 73.9, 76.7, 43.4, 34.6, 52.5, 24.5, 56.6, 32.2, 42.5, 61.6)
    ),
    PublishedScores(
        "RoMa in", 46.7, (46.0, 39.3, 68.8, 77.2, 36.5, 31.1, 50.4, 20.8, 57.8, 33.8, 41.7, 57.6)
    ),
    PublishedScores(
        "RoMa out", 48.8, (48.3, 40.6, 73.6, 79.8, 39.9, 34.4, 51.4, 24.2, 59.9, 33.7, 41.3, 59.2)
    ),
    PublishedScores(
        "GIM_RoMa", 53.3, (61.8, 53.8, 76.7, 82.7, 43.2, 36.7, 53.2, 26.6, 60.7, 33.8, 45.4, 64.3)
    ),
)
"""In the order of the README (github.com/xuelunshen/gim); GIM_RoMa is its newest row."""
