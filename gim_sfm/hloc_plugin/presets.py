"""hloc's tables of configurations, filled from the registry of matchers."""

from collections.abc import Callable, Mapping
from typing import Any

from gim_sfm.matchers import MATCHERS, MatcherRow

Conf = dict[str, Any]

DETECTOR, MATCHER, CORRESPONDER = "gim_sfm_detector", "gim_sfm_matcher", "gim_sfm_corresponder"
"""The modules that hloc loads."""

PREFIX = "gim-sfm:"
"""Before the name of a matcher where hloc has a conf of that name itself."""

HEADROOM = 1.5
"""Longest side of the photos that hloc hands to a dense matcher, in sides of what the network sees: enough
for it to do the shrinking itself. Not more, since hloc loads 64 photos ahead, in 32 bits a channel."""

CELL, BIN = 8, 2
"""Pixels to a side of the cells and bins by which hloc makes keypoints of dense matches. With its finest, 1
and 1, points of matchers that place them freely hardly ever meet."""


def add_presets(stage: str, table: dict[str, Conf]) -> None:
    """Adds a conf for every matcher that takes part in a stage to hloc's table of it, unless it is there."""
    kinds, conf_of = _STAGES[stage]
    for row in MATCHERS.values():
        if row.kind in kinds and not any(is_ours(conf, row.name) for conf in table.values()):
            table[PREFIX + row.name if row.name in table else row.name] = conf_of(row)


def is_ours(conf: Mapping[str, Any], matcher: str | None = None) -> bool:
    """Whether a conf of hloc's tables is one of this package, for this matcher or for any."""
    model = conf["model"]
    ours = model.get("name") in (DETECTOR, MATCHER, CORRESPONDER)
    return ours and matcher in (None, model["matcher"])


def detector_output(matcher: str) -> str:
    """Stem of the features file of a matcher."""
    return f"feats-gim-sfm-{matcher}"


def _detector_conf(row: MatcherRow) -> Conf:
    return {
        "output": detector_output(row.name),
        "model": _model(DETECTOR, row),
        "preprocessing": {"grayscale": False, "resize_max": None},
    }


def _matcher_conf(row: MatcherRow) -> Conf:
    return {"output": f"matches-gim-sfm-{row.name}", "model": _model(MATCHER, row)}


def _corresponder_conf(row: MatcherRow) -> Conf:
    return {
        "output": f"matches-gim-sfm-{row.name}",
        "model": _model(CORRESPONDER, row),
        "preprocessing": {
            "grayscale": False,
            "resize_max": round(row.image_size * max(row.finest, HEADROOM)),
            "dfactor": 1,
        },
        "max_error": BIN,
        "cell_size": CELL,
    }


def _model(module: str, row: MatcherRow) -> Conf:
    return {
        "name": module,
        "matcher": row.name,
        "weights": None,
        "precision": "auto",
        "max_keypoints": row.max_keypoints,
        "image_size": row.image_size,
    }


_STAGES: Mapping[str, tuple[tuple[str, ...], Callable[[MatcherRow], Conf]]] = {
    "extract_features": (("sparse",), _detector_conf),
    "match_features": (("sparse",), _matcher_conf),
    "match_dense": (("semi-dense", "dense"), _corresponder_conf),
}
