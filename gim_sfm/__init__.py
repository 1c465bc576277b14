"""Learned image matching as the back-end of structure from motion: photos in, a COLMAP model out.

The verbs are loaded on first use, so that importing the package stays cheap.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gim_sfm.bev.alignment.aligning import align_model as align_model
    from gim_sfm.bev.drives.drive_projection import project_drive as project_drive
    from gim_sfm.bev.loops.closing import close_loops as close_loops
    from gim_sfm.bev.projection import project_cloud as project_cloud
    from gim_sfm.bev.registering import register_clouds as register_clouds
    from gim_sfm.demo import run_demo as run_demo
    from gim_sfm.errors import GimSfmError as GimSfmError
    from gim_sfm.evaluation.benchmarks import evaluate_homography as evaluate_homography
    from gim_sfm.evaluation.benchmarks import evaluate_pairs as evaluate_pairs
    from gim_sfm.evaluation.benchmarks import evaluate_zeb as evaluate_zeb
    from gim_sfm.evaluation.comparison import compare as compare
    from gim_sfm.evaluation.scoring import score as score
    from gim_sfm.evaluation.sfm_scores import evaluate_sfm as evaluate_sfm
    from gim_sfm.sfm.extension.extending import extend as extend
    from gim_sfm.sfm.localization.localizer import Localizer as Localizer
    from gim_sfm.sfm.localization.localizing import localize as localize
    from gim_sfm.sfm.reconstruction import plan as plan
    from gim_sfm.sfm.reconstruction import reconstruct as reconstruct

_VERBS = {
    "reconstruct": "gim_sfm.sfm.reconstruction",
    "plan": "gim_sfm.sfm.reconstruction",
    "extend": "gim_sfm.sfm.extension.extending",
    "run_demo": "gim_sfm.demo",
    "evaluate_zeb": "gim_sfm.evaluation.benchmarks",
    "evaluate_pairs": "gim_sfm.evaluation.benchmarks",
    "evaluate_homography": "gim_sfm.evaluation.benchmarks",
    "evaluate_sfm": "gim_sfm.evaluation.sfm_scores",
    "score": "gim_sfm.evaluation.scoring",
    "project_cloud": "gim_sfm.bev.projection",
    "project_drive": "gim_sfm.bev.drives.drive_projection",
    "close_loops": "gim_sfm.bev.loops.closing",
    "register_clouds": "gim_sfm.bev.registering",
    "align_model": "gim_sfm.bev.alignment.aligning",
    "localize": "gim_sfm.sfm.localization.localizing",
    "Localizer": "gim_sfm.sfm.localization.localizer",
    "compare": "gim_sfm.evaluation.comparison",
    "GimSfmError": "gim_sfm.errors",
}

__version__ = version("gim_sfm")
__all__ = [
    "GimSfmError",
    "Localizer",
    "__version__",
    "align_model",
    "close_loops",
    "compare",
    "evaluate_homography",
    "evaluate_pairs",
    "evaluate_sfm",
    "evaluate_zeb",
    "extend",
    "localize",
    "plan",
    "project_cloud",
    "project_drive",
    "reconstruct",
    "register_clouds",
    "run_demo",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in _VERBS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_VERBS[name]), name)
