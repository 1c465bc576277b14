"""What the command lines check and mend before hloc's own code runs, stage by stage."""

import argparse
import ast
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import h5py

from gim_sfm.errors import InputError, SettingsError
from gim_sfm.hloc_plugin.dense import DenseMatching
from gim_sfm.hloc_plugin.inputs import FEATURES, require_groups
from gim_sfm.hloc_plugin.names import read_pair_names, require_usable_names
from gim_sfm.hloc_plugin.presets import detector_output, is_ours
from gim_sfm.hloc_plugin.unfinished import needed_of, take_out_unextracted, take_out_unwritten

Amendment = Callable[[ModuleType, Sequence[str]], list[str]]
"""Given a module of hloc and the arguments of its command line, what arguments are to be added."""


def before_extraction(module: ModuleType, arguments: Sequence[str]) -> list[str]:
    """Refuses names that later stages would fail on, and takes out what a killed run left half written."""
    given = _known(module, arguments)
    if given.image_dir is None:
        return []
    names = _photo_names(module, given)
    require_usable_names(given.image_dir, names)
    conf = module.confs.get(given.conf)
    path = given.feature_path or (conf and given.export_dir and given.export_dir / f"{conf['output']}.h5")
    if path:
        take_out_unextracted(path, names, needed_of(conf))
    return []


def _photo_names(module: ModuleType, given: argparse.Namespace) -> list[str]:
    try:
        names: list[str] = module.ImageDataset(given.image_dir, {}, given.image_list).names
    except ValueError as error:
        raise InputError(str(error), remedy="Check --image_dir, and the names in --image_list.") from error
    return names


def before_matching(module: ModuleType, arguments: Sequence[str]) -> list[str]:
    """Takes the features that a matcher's own detector made, where none are named."""
    given = _known(module, arguments)
    # Whatever fails between them, hloc's writers would wait for ever, and the process with them.
    vars(module)["Thread"] = partial(Thread, daemon=True)
    conf = module.confs.get(given.conf)
    if conf is None or given.pairs is None:
        return []
    names = read_pair_names(given.pairs)
    require_usable_names(Path(), names)
    own = detector_output(conf["model"]["matcher"]) if is_ours(conf) and given.features is None else None
    features = own or given.features or _default(module, "--features")
    _require_own_features(conf, features)
    if given.export_dir is None:
        raise SettingsError("--export_dir is missing.", remedy="Name the folder of the features with it.")
    if features:
        _require_features(given.export_dir, features, names)
        take_out_unwritten(given.export_dir / f"{features}_{conf['output']}_{given.pairs.stem}.h5")
    return ["--features", own] if own else []


def before_dense(module: ModuleType, arguments: Sequence[str]) -> list[str]:
    """Names the files as hloc does in Python; its command line writes any matches to ./matches-loftr."""
    given = _known(module, arguments)
    vars(module)["match_and_assign"] = DenseMatching(module)
    if given.pairs:
        require_usable_names(given.image_dir or Path(), read_pair_names(given.pairs))
    conf = module.confs.get(given.conf)
    if conf is None or given.pairs is None or given.export_dir is None:
        return []
    given.export_dir.mkdir(parents=True, exist_ok=True)
    matches = given.export_dir / f"{conf['output']}_{given.pairs.stem}.h5"
    return [
        *([] if given.matches else ["--matches", str(matches)]),
        *([] if given.features else ["--features", "feats_"]),
    ]


def before_reconstruction(module: ModuleType, _arguments: Sequence[str]) -> list[str]:
    """Makes COLMAP see matches that are not verified (`--skip_geometric_verification`)."""
    vars(module)["run_reconstruction"] = _with_known_geometries(module, module.run_reconstruction)
    return []


def triangulate(module: ModuleType) -> None:
    """Reads hloc's flags of this stage and runs it; its own parser ends in a KeyError whatever it is given.

    Raises:
        InputError: A pair names a photo that is not in the reference model.
    """
    parser = argparse.ArgumentParser()
    for flag in ("sfm_dir", "reference_sfm_model", "image_dir", "pairs", "features", "matches"):
        parser.add_argument(f"--{flag}", type=Path, required=True)
    parser.add_argument("--min_match_score", type=float)
    for flag in ("skip_geometric_verification", "estimate_two_view_geometries", "verbose"):
        parser.add_argument(f"--{flag}", action="store_true")
    given = vars(parser.parse_args())
    reference = given.pop("reference_sfm_model")
    _require_in_model(reference, given["pairs"])
    vars(module)["run_triangulation"] = _with_known_geometries(module, module.run_triangulation)
    module.main(reference_model=reference, **given)


def _with_known_geometries(module: ModuleType, run: Callable[..., Any]) -> Callable[..., Any]:
    """A function of hloc whose second argument is a database, given one whose matches COLMAP takes.

    hloc leaves the kind of geometry of matches that it accepts itself undefined, and the COLMAP of pycolmap
    4.2 passes over such pairs: the model would be empty.
    """
    kinds = module.pycolmap.TwoViewGeometryConfiguration

    def amended(folder: Path, database_path: Path, *rest: Any, **more: Any) -> Any:
        with module.pycolmap.Database.open(database_path) as database:
            for pair_id, geometry in zip(*database.read_two_view_geometries(), strict=True):
                if geometry.config == kinds.UNDEFINED and len(geometry.inlier_matches):
                    geometry.config = kinds.CALIBRATED
                    database.update_two_view_geometry(
                        *module.pycolmap.pair_id_to_image_pair(pair_id), geometry
                    )
        return run(folder, database_path, *rest, **more)

    return amended


def _require_in_model(reference: Path, pairs: Path) -> None:
    from gim_sfm.sfm.known import read_model

    known = {image.name for image in read_model(reference).images.values()}
    strange = sorted(read_pair_names(pairs) - known)
    if strange:
        raise InputError(
            f"{pairs} names {len(strange)} photos that are not in {reference}, first of them {strange[0]}.",
            remedy="Leave their pairs out: hloc triangulates photos of the reference model only.",
        )


def _require_features(folder: Path, name: str, photos: Iterable[str]) -> None:
    if Path(name).exists():
        raise SettingsError(
            f"--features {name} is a path, which hloc takes in Python only.",
            remedy="Name the file without folder and .h5, and its folder with --export_dir.",
        )
    path = folder / f"{name}.h5"
    require_groups(path, str(path), FEATURES)
    with h5py.File(path, "r") as file:
        missing = sorted(photo for photo in photos if photo not in file)
    if missing:
        raise InputError(
            f"{path} has no features of {len(missing)} photos of the pair list, first of them {missing[0]}.",
            remedy="Run extract_features on them first, or leave their pairs out.",
        )


def _require_own_features(conf: Mapping[str, Any], features: str | None) -> None:
    """Features of another detector of ours; those made elsewhere may be of the right one."""
    ours = is_ours(conf) and features is not None and features.startswith(detector_output(""))
    if ours and features != detector_output(conf["model"]["matcher"]):
        raise SettingsError(
            f"{features} are not features of {conf['model']['matcher']}.",
            remedy="Extract and match with the same name, or leave --features out.",
        )


def _known(module: ModuleType, arguments: Sequence[str]) -> argparse.Namespace:
    """The flags that an amendment goes by, as far as they are given; hloc's parser judges them all.

    Left out, the conf is that of hloc.
    """
    parser = argparse.ArgumentParser(add_help=False)
    for flag in ("image_dir", "image_list", "export_dir", "feature_path", "pairs", "matches"):
        parser.add_argument(f"--{flag}", type=Path)
    for flag in ("conf", "features"):
        parser.add_argument(f"--{flag}")
    parser.set_defaults(conf=_default(module, "--conf"))
    return parser.parse_known_args(arguments)[0]


def _default(module: ModuleType, flag: str) -> str | None:
    """What hloc's command line takes where a flag is left out; only its source tells."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Call) and node.args and getattr(node.args[0], "value", None) == flag:
            for word in node.keywords:
                if word.arg == "default" and isinstance(word.value, ast.Constant):
                    return str(word.value.value)
    return None


AMENDMENTS: Mapping[str, Amendment] = {
    "extract_features": before_extraction,
    "match_features": before_matching,
    "match_dense": before_dense,
    "reconstruction": before_reconstruction,
}

PROGRAMS: Mapping[str, Callable[[ModuleType], None]] = {"triangulation": triangulate}
"""Stages that are run in another way than by hloc's own command line."""
