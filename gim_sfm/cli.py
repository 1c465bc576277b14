"""The command line: every verb of the package under the same names and defaults as in Python."""

import logging
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from gim_sfm.errors import GimSfmError, SettingsError
from gim_sfm.recipe import (
    CalibrationSettings,
    CameraSettings,
    MappingSettings,
    MatchingSettings,
    PairingSettings,
    Recipe,
    Section,
)

app = App(
    name="gim-sfm",
    help="Photos in, a COLMAP model out, with learned matching.",
    help_format="plaintext",
)

Flat = Parameter(name="*")
Device = Literal["auto", "cpu", "cuda", "mps"]
Verbose = Annotated[bool, Parameter(name=["--verbose", "-v"], negative="")]


@app.command
def reconstruct(
    photos: Path,
    out: Path,
    *,
    recipe: Path | None = None,
    device: Device = "auto",
    strict: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    verbose: Verbose = False,
    matching: Annotated[MatchingSettings, Flat] = MatchingSettings(),
    pairing: Annotated[PairingSettings, Flat] = PairingSettings(),
    camera: Annotated[CameraSettings, Flat] = CameraSettings(),
    mapping: Annotated[MappingSettings, Flat] = MappingSettings(),
    calibration: Annotated[CalibrationSettings, Flat] = CalibrationSettings(),
) -> None:
    """Reconstruct cameras and points from a folder of photos.

    Killed or interrupted, the same command goes on where it stopped. New photos in the folder join in.

    Args:
        photos: Folder of photos; subfolders are read too.
        out: Folder for features, matches, database, model (sparse/0) and report.
        recipe: TOML file of settings; flags win over it.
        device: Where the networks run.
        strict: Refuse broken photos instead of leaving them out.
        dry_run: Print the plan and an estimate of the time, and stop.
        verbose: Tell more on the way.
    """
    import gim_sfm

    _log(verbose)
    base = Recipe.load(recipe) if recipe else Recipe()
    chosen = base.with_settings(_given(matching, pairing, camera, mapping, calibration))
    if dry_run:
        print(gim_sfm.plan(photos, out, recipe=chosen, device=device, strict=strict))
        return
    print(gim_sfm.reconstruct(photos, out, recipe=chosen, device=device, strict=strict))


@app.command
def demo(
    out: Path = Path("gim-sfm-demo"),
    *,
    photos: str | None = None,
    device: Device = "auto",
    verbose: Verbose = False,
    matching: Annotated[MatchingSettings, Flat] = MatchingSettings(),
) -> None:
    """Draw a scene with known cameras, reconstruct it, and tell how far off the cameras are.

    Args:
        out: Folder for the photos and everything made from them.
        photos: Name of a public photo set to fetch and reconstruct instead of the drawn scene.
        device: Where the networks run.
        verbose: Tell more on the way.
    """
    import gim_sfm

    _log(verbose)
    print(gim_sfm.run_demo(out, photos=photos, device=device, **_given(matching)))


@app.command
def matchers(*, weights: Path | None = None) -> None:
    """List the matchers: kind, licence, and where their weights are or how to get them.

    Args:
        weights: Folder in which to look for weight files first.
    """
    from gim_sfm.matchers import MATCHERS, describe

    for row in MATCHERS.values():
        print(f"{row.name}  ({row.kind})\n    {row.summary}\n    licence: {row.licence}")
        for status in describe(row.name, weights):
            print(f"    {status.id}: {status.told}")


def main() -> None:
    """Runs the command line. Exit code 0: done; 1: something the person can mend; 2: wrong usage."""
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(str(error).split("\n    For further information")[0], 2)
    except GimSfmError as error:
        _fail(str(error), 2 if isinstance(error, SettingsError) else 1)
    except OSError as error:
        _fail(
            f"{error.filename or 'A file'}: {error.strerror or error}. Free space or name another folder.", 1
        )
    except KeyboardInterrupt:
        _fail("Interrupted; the same command goes on from here.", 130)


def _given(*sections: Section) -> dict[str, Any]:
    """The settings that stood on the command line, so that they win over a recipe's."""
    return {name: getattr(section, name) for section in sections for name in sorted(section.model_fields_set)}


def _log(verbose: bool) -> None:
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    logging.getLogger("gim_sfm").setLevel(logging.DEBUG if verbose else logging.INFO)


def _fail(message: str, code: int) -> None:
    print(f"gim-sfm: {message}", file=sys.stderr)
    sys.exit(code)
