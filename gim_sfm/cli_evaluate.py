"""The commands under `gim-sfm evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from gim_sfm.cli_settings import Device, Flat, Verbose, given, start_log
from gim_sfm.recipe import (
    CalibrationSettings,
    CameraSettings,
    MappingSettings,
    MatchingSettings,
    PairingSettings,
    Recipe,
    TrialSettings,
)

evaluate_app = App(
    name="evaluate",
    help="Tell how good a matcher is: on benchmarks with known poses, on your photos, against another one.",
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
)

Strict = Annotated[bool, Parameter(negative="")]
PoseEstimator = Literal["official", "poselib", "magsac", "usac"]


@evaluate_app.command
def zeb(
    root: Path,
    *,
    out: Path = Path("zeb-results"),
    sets: list[str] | None = None,
    estimator: PoseEstimator = "official",
    device: Device = "auto",
    strict: Strict = False,
    verbose: Verbose = False,
    trial: Annotated[TrialSettings, Flat] = TrialSettings(),
) -> None:
    """Score a matcher on ZEB, or on sets in its layout, beside the published methods.

    Killed or interrupted, the same command goes on where it stopped; another estimator matches nothing again.

    Args:
        root: Folder of the sets' folders (gl3d, kitti, ...), or one of them.
        out: Folder of results, one for all matchers that shall stand in one table; result files in the
            official format lie in OUT/MATCHER/ESTIMATOR.
        sets: Sets to use, e.g. KIT ETO; all that are there by default.
        estimator: The official protocol, or a modern estimator that tries several thresholds and seeds.
        device: Where the networks run.
        strict: Refuse pairs that cannot be used instead of skipping and counting them.
        verbose: Tell more on the way.
    """
    from gim_sfm.evaluation.benchmarks import evaluate_zeb

    start_log(verbose)
    done = evaluate_zeb(
        root,
        out=out,
        sets=sets or (),
        estimator=estimator,
        device=device,
        strict=strict,
        **given(trial),
    )
    print(done)


@evaluate_app.command
def pairs(
    pair_list: Path,
    images: Path,
    *,
    out: Path = Path("pairs-results"),
    estimator: PoseEstimator = "official",
    device: Device = "auto",
    strict: Strict = False,
    verbose: Verbose = False,
    trial: Annotated[TrialSettings, Flat] = TrialSettings(),
) -> None:
    """Score a matcher on a list of pairs with known poses (ScanNet-1500, MegaDepth-1500, ...).

    Args:
        pair_list: Text file of SuperGlue's kind: name0 name1 rot0 rot1 K0(9) K1(9) T_0to1(16) in each line.
        images: Folder that the names are relative to.
        out: Folder of results.
        estimator: ZEB's protocol, or a modern estimator that tries several thresholds and seeds.
        device: Where the networks run.
        strict: Refuse pairs that cannot be used instead of skipping and counting them.
        verbose: Tell more on the way.
    """
    from gim_sfm.evaluation.benchmarks import evaluate_pairs

    start_log(verbose)
    done = evaluate_pairs(
        pair_list,
        images,
        out=out,
        estimator=estimator,
        device=device,
        strict=strict,
        **given(trial),
    )
    print(done)


@evaluate_app.command
def homography(
    root: Path,
    *,
    out: Path = Path("homography-results"),
    estimator: Literal["opencv", "magsac", "poselib"] = "opencv",
    device: Device = "auto",
    strict: Strict = False,
    verbose: Verbose = False,
    trial: Annotated[TrialSettings, Flat] = TrialSettings(),
) -> None:
    """Score a matcher on homographies in the layout of HPatches, by the error of the corners.

    Args:
        root: Folder of sequences, each with images 1 to 6 and homographies H_1_2 to H_1_6.
        out: Folder of results.
        estimator: OpenCV's RANSAC, or a modern estimator that tries several thresholds and seeds.
        device: Where the networks run.
        strict: Refuse pairs that cannot be used instead of skipping and counting them.
        verbose: Tell more on the way.
    """
    from gim_sfm.evaluation.benchmarks import evaluate_homography

    start_log(verbose)
    done = evaluate_homography(
        root,
        out=out,
        estimator=estimator,
        device=device,
        strict=strict,
        **given(trial),
    )
    print(done)


@evaluate_app.command
def sfm(
    photos: Path,
    *,
    truth: Path,
    out: Path = Path("sfm-results"),
    seeds: int = 3,
    recipe: Path | None = None,
    device: Device = "auto",
    strict: Strict = False,
    verbose: Verbose = False,
    matching: Annotated[MatchingSettings, Flat] = MatchingSettings(),
    pairing: Annotated[PairingSettings, Flat] = PairingSettings(),
    camera: Annotated[CameraSettings, Flat] = CameraSettings(),
    mapping: Annotated[MappingSettings, Flat] = MappingSettings(),
    calibration: Annotated[CalibrationSettings, Flat] = CalibrationSettings(),
) -> None:
    """Reconstruct photos whose poses are known, with several seeds, and tell how far off the cameras are.

    Args:
        photos: Folder of photos.
        truth: JSON file of true cameras (images.<name>: width, height, K, cam_from_world), or a COLMAP model.
        out: Folder of the reconstruction and of the scores.
        seeds: How many seeds to map with.
        recipe: TOML file of settings; flags win over it.
        device: Where the networks run.
        strict: Refuse broken photos instead of leaving them out.
        verbose: Tell more on the way.
    """
    from gim_sfm.evaluation.sfm_scores import evaluate_sfm

    start_log(verbose)
    chosen = given(matching, pairing, camera, mapping, calibration)
    base = Recipe.load(recipe) if recipe else None
    print(evaluate_sfm(photos, truth, out, seeds=seeds, recipe=base, device=device, strict=strict, **chosen))


@evaluate_app.command
def score(files: list[Path], /, *, json: Path | None = None) -> None:
    """Score result files in the official format; nothing is matched.

    Args:
        files: Result files, or folders of them.
        json: File for all figures at full precision.
    """
    from gim_sfm.evaluation.scoring import score as score_files

    print(score_files(files, json=json))


@evaluate_app.command
def compare(a: Path, b: Path, /, *, out: Path = Path("comparison")) -> None:
    """Tell which of two matchers or checkpoints is better, on what, and how certain that is.

    Args:
        a: Result file, or folder of result files of one method.
        b: The other one.
        out: Folder for the page and its plots.
    """
    from gim_sfm.evaluation.comparison import compare as compare_results

    print(compare_results(a, b, out=out))
