"""hloc's command lines, with the matchers of this package among the choices."""

import argparse
import ast
import inspect
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from gim_sfm.errors import GimSfmError
from gim_sfm.hloc_plugin import import_hloc, register
from gim_sfm.hloc_plugin.amendments import AMENDMENTS, PROGRAMS
from gim_sfm.hloc_plugin.inputs import require_inputs

PROGRAM = "python -m gim_sfm.hloc_plugin"

STAGES = (
    "extract_features",
    "match_features",
    "match_dense",
    "reconstruction",
    "triangulation",
    "localize_sfm",
    "pairs_from_exhaustive",
    "pairs_from_retrieval",
    "pairs_from_covisibility",
    "pairs_from_poses",
)


def main() -> None:
    """Runs the command line. Exit code 0: done; 1: something the person can mend; 2: wrong usage."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="hloc's command line of a stage, with the matchers of gim_sfm among the choices. "
        "STAGE --help tells the flags.",
    )
    parser.add_argument("stage", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    stage = parser.parse_args(sys.argv[1:2]).stage
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("gim_sfm").setLevel(logging.INFO)
    try:
        run_stage(stage, sys.argv[2:])
    except GimSfmError as error:
        sys.exit(f"{PROGRAM} {stage}: {error}")


def run_stage(stage: str, arguments: Sequence[str]) -> None:
    """Runs hloc's command line of a stage.

    Args:
        stage: One of `STAGES`.
        arguments: As for `python -m hloc.STAGE`.

    Raises:
        SettingsError: hloc is not installed, or a matcher cannot be used.
        InputError: Photos, names or files that hloc would fail on.
    """
    register()
    module = import_hloc(stage)
    given = [*arguments]
    if not {"-h", "--help"} & set(given):
        require_inputs(stage, given)
        given += AMENDMENTS[stage](module, given) if stage in AMENDMENTS else []
    with _command_line(stage, given):
        PROGRAMS.get(stage, _run_main_block)(module)


def _run_main_block(module: ModuleType) -> None:
    """Runs what a module does as a program, in the module as it was imported, where our confs are.

    `runpy` would run a second copy of it, which has hloc's own confs only.
    """
    tree = ast.parse(inspect.getsource(module))
    tree.body = [node for node in tree.body if isinstance(node, ast.If) and "__main__" in ast.dump(node.test)]
    code = compile(tree, inspect.getfile(module), "exec")
    exec(code, {**vars(module), "__name__": "__main__"})


@contextmanager
def _command_line(stage: str, arguments: Sequence[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, [f"{PROGRAM} {stage}", *arguments]
    try:
        yield
    finally:
        sys.argv = before
