"""The verbs that put a matcher to a benchmark: ZEB, pair lists with known poses, and HPatches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from gim_sfm.evaluation.benchmark import Asked, PairSet
from gim_sfm.evaluation.contender import enter
from gim_sfm.evaluation.hpatches import read_hpatches
from gim_sfm.evaluation.judging import Judge, corner_judge, pose_judge
from gim_sfm.evaluation.pair_lists import read_pair_list
from gim_sfm.evaluation.trial import Trial, hold_trial
from gim_sfm.evaluation.zeb_layout import read_zeb
from gim_sfm.recipe import TrialKeywords, TrialSettings, section_of


def evaluate_zeb(
    root: Path | str,
    *,
    out: Path | str = "zeb-results",
    sets: Sequence[str] = (),
    estimator: str = "official",
    device: str = "auto",
    strict: bool = False,
    **settings: Unpack[TrialKeywords],
) -> Trial:
    """Scores a matcher on ZEB (Shen et al., ICLR 2024), or on any sets in its layout.

    Killed or run again, it goes on where it stopped; what is matched is not matched again for another
    estimator. Images of the twelve published sets are shown to a network as the official protocol does
    (KITTI at 1240 pixels, ETH3D at 1600, the others as stored), those of other sets at the matcher's own
    working size; `image_size` wins over both. Matches are always positions in the stored image.

    Args:
        root: Folder of the sets' folders.
        out: Folder of results, shared by all matchers that shall be compared.
        sets: Short names (KIT), names (KITTI) or folders (kitti); none for all that are there.
        estimator: `official`, or `poselib`, `magsac`, `usac`.
        device: auto, cpu, cuda or mps.
        strict: Refuse pairs that cannot be used instead of skipping them.
        **settings: See `gim_sfm.recipe.TrialSettings`; thresholds in pixels of the stored image.

    Raises:
        SettingsError: A setting, set, matcher or estimator that does not exist or does not fit.
        InputError: A folder is missing, or holds no pair that can be used.
        OutputError: `out` cannot be written, or another run uses it.
        WeightsError: The matcher's weights cannot be had.
    """
    chosen = section_of(TrialSettings, settings)
    judge = pose_judge(estimator, chosen.thresholds, chosen.seeds)
    found = read_zeb(Path(root), sets, strict=strict)
    return _try(found, judge, chosen, out, device, strict)


def evaluate_pairs(
    pair_list: Path | str,
    images: Path | str,
    *,
    out: Path | str = "pairs-results",
    estimator: str = "official",
    device: str = "auto",
    strict: bool = False,
    **settings: Unpack[TrialKeywords],
) -> Trial:
    """Scores a matcher on a list of pairs with known poses, such as ScanNet-1500 or MegaDepth-1500.

    Args:
        pair_list: Text file in the format of SuperGlue (Sarlin et al., CVPR 2020), a pair a line:
            name0 name1 rotation0 rotation1 K0(9) K1(9) T_0to1(16).
        images: Folder that the names are relative to.
        out: As for `evaluate_zeb`, as all that follow.
        estimator: `official`, or `poselib`, `magsac`, `usac`.
        device: auto, cpu, cuda or mps.
        strict: Refuse pairs that cannot be used instead of skipping them.
        **settings: See `gim_sfm.recipe.TrialSettings`.

    Raises:
        GimSfmError: As `evaluate_zeb`.
    """
    chosen = section_of(TrialSettings, settings)
    judge = pose_judge(estimator, chosen.thresholds, chosen.seeds)
    found = read_pair_list(Path(pair_list), Path(images), strict=strict)
    return _try([found], judge, chosen, out, device, strict)


def evaluate_homography(
    root: Path | str,
    *,
    out: Path | str = "homography-results",
    estimator: str = "opencv",
    device: str = "auto",
    strict: bool = False,
    **settings: Unpack[TrialKeywords],
) -> Trial:
    """Scores a matcher on homographies in the layout of HPatches (Balntas et al., CVPR 2017).

    Errors and thresholds are in pixels of the second image shrunk to a shorter side of 480 pixels.

    Args:
        root: Folder of sequences: images 1 to 6 and H_1_2 to H_1_6 in each.
        out: As for `evaluate_zeb`, as all that follow.
        estimator: `opencv`, `magsac` or `poselib`.
        device: auto, cpu, cuda or mps.
        strict: Refuse pairs that cannot be used instead of skipping them.
        **settings: See `gim_sfm.recipe.TrialSettings`.

    Raises:
        GimSfmError: As `evaluate_zeb`.
    """
    chosen = section_of(TrialSettings, settings)
    judge = corner_judge(estimator, chosen.thresholds, chosen.seeds)
    return _try(read_hpatches(Path(root), strict=strict), judge, chosen, out, device, strict)


def _try(
    sets: Sequence[PairSet[Asked]],
    judge: Judge[Asked],
    settings: TrialSettings,
    out: Path | str,
    device: str,
    strict: bool,
) -> Trial:
    contender = enter(settings, device, settings.label)
    return hold_trial(sets, contender, judge, Path(out), strict=strict)
