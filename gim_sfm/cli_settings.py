"""What the commands have in common: flags, settings and the log."""

import logging
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from gim_sfm.recipe import Section

Flat = Parameter(name="*")
Device = Literal["auto", "cpu", "cuda", "mps"]
Verbose = Annotated[bool, Parameter(name=["--verbose", "-v"], negative="")]


def given(*sections: Section) -> dict[str, Any]:
    """The settings that stood on the command line, so that they win over a recipe's."""
    return {name: getattr(section, name) for section in sections for name in sorted(section.model_fields_set)}


def start_log(verbose: bool) -> None:
    """Has this package tell on stderr what it does."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    logging.getLogger("gim_sfm").setLevel(logging.DEBUG if verbose else logging.INFO)
