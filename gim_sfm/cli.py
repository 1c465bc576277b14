"""The command line: every verb of the package under the same names and defaults as in Python."""

import os
import sys
import textwrap
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter

from gim_sfm.cli_bev import bev_app
from gim_sfm.cli_evaluate import evaluate_app
from gim_sfm.cli_settings import Device, Flat, Verbose, given, start_log
from gim_sfm.errors import GimSfmError, SettingsError, WeightsError
from gim_sfm.recipe import (
    CalibrationSettings,
    CameraSettings,
    ExtensionSettings,
    GivenSettings,
    LocalizationSettings,
    MappingSettings,
    MatchingSettings,
    PairingSettings,
    Recipe,
)

if TYPE_CHECKING:
    from gim_sfm.matchers.weights import Copy, WeightFile

app = App(
    name="gim-sfm",
    help="Photos in, a COLMAP model out, with learned matching.",
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)

weights_app = App(
    name="weights",
    help="List the weights of the networks; fetch them, check them, or add files got by other means.",
)
app.command(weights_app)
app.command(evaluate_app)
app.command(bev_app)

COLUMNS = 100


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
    given_files: Annotated[GivenSettings, Flat] = GivenSettings(),
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

    start_log(verbose)
    base = Recipe.load(recipe) if recipe else Recipe()
    chosen = base.with_settings(given(matching, given_files, pairing, camera, mapping, calibration))
    if dry_run:
        print(gim_sfm.plan(photos, out, recipe=chosen, device=device, strict=strict))
        return
    print(gim_sfm.reconstruct(photos, out, recipe=chosen, device=device, strict=strict))


@app.command
def localize(
    queries: Path,
    *,
    model: Path,
    output: Path,
    model_photos: Path | None = None,
    device: Device = "auto",
    strict: Annotated[bool, Parameter(negative="")] = False,
    verbose: Verbose = False,
    localization: Annotated[LocalizationSettings, Flat] = LocalizationSettings(),
) -> None:
    """Find where photos were taken, in the frame of a model.

    Killed or interrupted, the same command goes on where it stopped. New queries join in.

    Args:
        queries: Folder of photos, or one photo.
        model: OUT of reconstruct, or a COLMAP model.
        output: Name of the results: OUTPUT.txt in hloc's format, OUTPUT.json, and OUTPUT.html to look at.
        model_photos: Folder of the model's photos, for a model made elsewhere or where they have moved.
        device: Where the networks run.
        strict: Refuse broken photos instead of telling them in the results.
        verbose: Tell more on the way.
    """
    import gim_sfm

    start_log(verbose)
    settings = given(localization)
    print(
        gim_sfm.localize(
            queries, model, output, model_photos=model_photos, device=device, strict=strict, **settings
        )
    )


@app.command
def extend(
    photos: Path,
    *,
    model: Path,
    output: Path | None = None,
    model_photos: Path | None = None,
    recipe: Path | None = None,
    device: Device = "auto",
    strict: Annotated[bool, Parameter(negative="")] = False,
    verbose: Verbose = False,
    extension: Annotated[ExtensionSettings, Flat] = ExtensionSettings(),
    matching: Annotated[MatchingSettings, Flat] = MatchingSettings(),
) -> None:
    """Add new photos to a model that `reconstruct` made, or to a COLMAP model made elsewhere.

    Killed or interrupted, the same command goes on where it stopped. The former model is kept in former/.

    Args:
        photos: Folder with the new photos: that of the old ones, one within it, or another.
        model: OUT of `reconstruct`, which grows in place; or a COLMAP model, which stays as it is.
        output: Folder for the larger map, instead of in place.
        model_photos: Folder of the old photos, for a COLMAP model or if they have moved.
        recipe: TOML file of settings, for a COLMAP model; a map has its own. The same goes for the matcher.
        device: Where the networks run.
        strict: Refuse broken photos instead of leaving them out.
        verbose: Tell more on the way.
    """
    import gim_sfm

    start_log(verbose)
    base = Recipe.load(recipe) if recipe else None
    asked = given(matching)
    chosen = (base or Recipe()).with_settings(asked) if asked else base
    result = gim_sfm.extend(
        photos,
        model,
        output=output,
        model_photos=model_photos,
        recipe=chosen,
        device=device,
        strict=strict,
        **given(extension),
    )
    print(result)


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

    start_log(verbose)
    print(gim_sfm.run_demo(out, photos=photos, device=device, **given(matching)))


@app.command
def matchers(*, weights: Path | None = None) -> None:
    """List the matchers: kind, licence, and where their weights are or how to get them.

    Args:
        weights: Folder in which to look for weight files first.
    """
    from gim_sfm.matchers import MATCHERS, describe

    for row in MATCHERS.values():
        print(f"{row.name}  ({row.kind})")
        _print_indented(row.summary)
        _print_indented(f"licence: {row.licence}")
        for status in describe(row.name, weights):
            _print_indented(f"{status.id}: {status.told}")


@weights_app.default
def list_weights() -> None:
    """List the weight files: size, licence, and where each is or how to get it."""
    from gim_sfm.matchers.weights import WEIGHTS, search

    for row in WEIGHTS.values():
        found = search(row)
        _print_weights(row)
        if found:
            _print_indented(f"here: {found.path} ({found.origin})")
        else:
            _print_indented(f"not here; to get it: gim-sfm weights fetch {row.id}")


@weights_app.command(name="fetch")
def fetch_weights(names: list[str], /, *, verbose: Verbose = False) -> None:
    """Fetch weight files that are not on this machine yet.

    Args:
        names: Ids of weight files, or matchers, of which all files are fetched.
        verbose: Tell more on the way.
    """
    from gim_sfm.matchers.weights import obtain, told_evidence

    start_log(verbose)
    for row in _weight_files(names):
        _print_weights(row)  # the terms come first, and the bytes after them
        path = obtain(row)
        _print_indented(f"here: {path} ({told_evidence(row)})")


@weights_app.command(name="verify")
def verify_weights(names: list[str] | None = None, /) -> None:
    """Check weight files on this machine against what is known of them.

    Args:
        names: Ids of weight files, or matchers; none for all that are here.
    """
    from gim_sfm.matchers.weights import WEIGHTS, inspect, remedy

    faults = []
    for row in _weight_files(names or list(WEIGHTS)):
        copies = inspect(row)
        for copy in copies:
            _print_copy(copy)
        faults += [f"{copy.path} {copy.flaw}. {copy.remedy}" for copy in copies if copy.flaw]
        if names and not copies:
            faults.append(f"{row.id} ({row.name}) is not on this machine. {remedy(row)}")
        elif not copies:
            print(f"{row.id}: not here")
    if faults:
        raise WeightsError(f"{len(faults)} of the weight files will not do.", remedy="\n  ".join(faults))


@weights_app.command(name="add")
def add_weights(file: Path, /, *, as_: Annotated[str | None, Parameter(name="--as")] = None) -> None:
    """Copy a weight file got by other means to where it is looked for; nothing in it is run.

    Args:
        file: The file; it is recognised by its checksum, or by its parameters and its name.
        as_: Id of what it is, where its name does not tell.
    """
    from gim_sfm.matchers.weights import adopt

    adopted = adopt(file, _weight_file(as_) if as_ else None)
    _print_weights(adopted.row)
    _print_indented(f"here: {adopted.path} ({adopted.told})")


def main() -> None:
    """Runs the command line. Exit code 0: done; 1: something the person can mend; 2: wrong usage."""
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(str(error).split("\n    For further information")[0], 2)
    except GimSfmError as error:
        _fail(str(error), 2 if isinstance(error, SettingsError) else 1)
    except BrokenPipeError:  # whoever reads what we print has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _fail(
            f"{error.filename or 'A file'}: {error.strerror or error}. Free space or name another folder.", 1
        )
    except KeyboardInterrupt:
        _fail("Interrupted; the same command goes on from here.", 130)


def _weight_files(names: Sequence[str]) -> list["WeightFile"]:
    """The files of these ids and matchers, each once."""
    from gim_sfm.matchers import MATCHERS
    from gim_sfm.matchers.weights import WEIGHTS

    rows: dict[str, WeightFile] = {}
    for name in names:
        ids = MATCHERS[name].weights if name in MATCHERS else (_weight_file(name).id,)
        if not ids:
            print(f"{name} needs no weights.")
        rows |= {id: WEIGHTS[id] for id in ids}
    return list(rows.values())


def _weight_file(id: str) -> "WeightFile":
    from gim_sfm.matchers.weights import WEIGHTS

    if id in WEIGHTS:
        return WEIGHTS[id]
    near = get_close_matches(id.lower().replace("_", "-"), WEIGHTS, n=1, cutoff=0.4)
    asked = f"Did you mean {near[0]}? " if near else ""
    raise SettingsError(f"There are no weights {id!r}.", remedy=f"{asked}There are: {', '.join(WEIGHTS)}.")


def _print_weights(row: "WeightFile") -> None:
    print(f"{row.id}\n    {row.name}, {row.told_size}")
    _print_indented(f"licence: {row.licence}")


def _print_copy(copy: "Copy") -> None:
    print(f"{copy.row.id}: {'DAMAGED' if copy.flaw else 'right'}")
    _print_indented(f"{copy.path} ({copy.origin}): {copy.flaw or copy.told}")


def _print_indented(text: str) -> None:
    """A paragraph under a heading; paths and addresses stay whole."""
    told = textwrap.TextWrapper(COLUMNS, "    ", "      ", break_long_words=False, break_on_hyphens=False)
    print(told.fill(text), flush=True)


def _fail(message: str, code: int) -> None:
    print(f"gim-sfm: {message}", file=sys.stderr)
    sys.exit(code)
