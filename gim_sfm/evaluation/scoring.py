"""The verb `score`: result files in, the league table out."""

import json as json_format
from collections.abc import Sequence
from pathlib import Path

from gim_sfm.evaluation.league import League, build_league
from gim_sfm.evaluation.results import find_results
from gim_sfm.files import write_text


def score(files: Sequence[Path | str], *, json: Path | None = None) -> League:
    """Scores result files, ours or those of GIM's authors, and sets them beside the published scores.

    Args:
        files: Result files, or folders that hold some, of one method or several.
        json: Where to write all figures at full precision.

    Returns:
        The league; printed, it is the table.

    Raises:
        InputError: A file is missing or broken, or there is none.
    """
    league = build_league(find_results([Path(each) for each in files]))
    if json is not None:
        write_text(json, json_format.dumps(league.to_json(), indent=2, allow_nan=False) + "\n")
    return league
