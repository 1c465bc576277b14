"""Matchers of this package inside an unmodified hloc, on its own command lines and in its Python.

    from gim_sfm import hloc_plugin
    hloc_plugin.register()
    from hloc import extract_features, match_features
    features = extract_features.main(extract_features.confs["aliked-lightglue"], photos, out)

`python -m gim_sfm.hloc_plugin STAGE ...` is hloc's command line of a stage with our names among the choices.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from gim_sfm.errors import SettingsError
from gim_sfm.hloc_plugin.presets import add_presets

__all__ = ["register"]


def register() -> None:
    """Makes every matcher of `gim_sfm.matchers.MATCHERS` known to hloc; again does nothing.

    Sparse matchers get a conf in `extract_features.confs` and one in `match_features.confs`, the others one
    in `match_dense.confs`, each under the matcher's name; where hloc has a conf of that name itself, ours
    is `gim-sfm:NAME`. The model conf takes `matcher`, `weights`, `precision`, `max_keypoints` and
    `image_size` as `gim_sfm.matchers.load` does; change `output` with it, since hloc tells files apart by
    that alone.

    Photos are handed over as they are and shrunk by the matcher itself. Keypoints are handed back in double
    precision, which hloc's `as_half` leaves alone, so that they come to disk to the last digit either way
    (in float16 they would be off by half a pixel on photos of 4000 pixels).

    Raises:
        SettingsError: hloc, or a package that it needs, is not installed.
    """
    for kind in ("extractors", "matchers"):
        folder = str(Path(__file__).parent / kind)
        package = import_hloc(kind)
        if folder not in package.__path__:
            package.__path__.append(folder)
    for stage in ("extract_features", "match_features", "match_dense"):
        add_presets(stage, import_hloc(stage).confs)


def import_hloc(module: str) -> ModuleType:
    """A module of hloc.

    Raises:
        SettingsError: hloc, or a package that it needs, is not installed.
    """
    try:
        return import_module(f"hloc.{module}")
    except ModuleNotFoundError as error:
        name = error.name or "hloc"
        if name.partition(".")[0] == "hloc":
            raise SettingsError(
                "hloc is not installed.",
                remedy="pip install git+https://github.com/cvg/Hierarchical-Localization, "
                "or put a checkout of it on PYTHONPATH.",
            ) from error
        raise SettingsError(
            f"hloc.{module} needs {name}, which is not installed.", remedy=f"pip install {name}"
        ) from error
