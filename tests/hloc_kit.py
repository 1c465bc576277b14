"""hloc's file formats and the part of it that plug-ins meet, transcribed in our own words.

`write_stand_in` makes a package named hloc with its rules for finding models, its tables and command lines,
so that the plug-in is tested where hloc is not installed.
"""

import importlib
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest


def require_hloc() -> None:
    """Skips a test that needs hloc itself."""
    if find_spec("hloc") is None:
        pytest.skip("hloc is not installed (it is not on the package index) and not on PYTHONPATH")


# Files as hloc writes them


def write_features(
    path: Path,
    photos: Mapping[str, np.ndarray],
    *,
    size: tuple[int, int] = (640, 480),
    half: bool = True,
    width: int = 8,
) -> None:
    """A features file of its extractors: nested groups, half precision, descriptors one column a keypoint."""
    kind = np.float16 if half else np.float32
    with h5py.File(path, "a", libver="latest") as file:
        for name, keypoints in photos.items():
            group = file.create_group(name)
            group.create_dataset("keypoints", data=keypoints.astype(kind))
            group["keypoints"].attrs["uncertainty"] = np.float32(1.5)
            group.create_dataset("scores", data=np.linspace(1, 0.5, len(keypoints)).astype(kind))
            descriptors = np.random.default_rng(len(keypoints)).normal(size=(width, len(keypoints)))
            group.create_dataset("descriptors", data=descriptors.astype(kind))
            group.create_dataset("image_size", data=np.array(size))


def write_dense_features(path: Path, photos: Mapping[str, np.ndarray]) -> None:
    """A features file of its dense matching: keypoints in single precision and `score`, nothing else."""
    with h5py.File(path, "a") as file:
        for name, keypoints in photos.items():
            group = file.create_group(name)
            # As there, the array of no keypoints has one axis.
            group.create_dataset(
                "keypoints", data=keypoints.astype(np.float32) if len(keypoints) else np.zeros(0, np.float32)
            )
            group.create_dataset("score", data=np.ones(len(keypoints)))


def write_matches(
    path: Path,
    pairs: Mapping[tuple[str, str], np.ndarray],
    counts: Mapping[str, int],
    *,
    separator: str = "/",
    kind: type = np.int16,
    scores: bool = True,
) -> None:
    """A matches file: for each pair the index of every first keypoint's match, or -1."""
    with h5py.File(path, "a", libver="latest") as file:
        for (first, second), indices in pairs.items():
            key = separator.join(name.replace("/", "-") for name in (first, second))
            matches0, scores0 = np.full(counts[first], -1), np.zeros(counts[first])
            matches0[indices[:, 0]], scores0[indices[:, 0]] = indices[:, 1], 0.75
            group = file.create_group(key)
            group.create_dataset("matches0", data=matches0.astype(kind))
            if scores:
                group.create_dataset("matching_scores0", data=scores0.astype(np.float16))


# Files read as hloc reads them


def photo_names(path: Path) -> set[str]:
    """Every group that a dataset lies in."""
    names = set[str]()

    def visit(_: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            names.add(item.parent.name.strip("/"))

    with h5py.File(path, "r", libver="latest") as file:
        file.visititems(visit)
    return names


def read_keypoints(path: Path, name: str) -> tuple[np.ndarray, float | None]:
    """Keypoints of a photo and how uncertain they are."""
    with h5py.File(path, "r", libver="latest") as file:
        dataset = file[name]["keypoints"]
        return dataset[()], dataset.attrs.get("uncertainty")


def read_matches(path: Path, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    """Index pairs and scores, whichever way round and under whichever key the pair was written."""
    names = [name.replace("/", "-") for name in (first, second)]
    with h5py.File(path, "r", libver="latest") as file:
        for separator in "/_":
            for turned in (False, True):
                key = separator.join(names[::-1] if turned else names)
                if key in file:
                    matches0, scores0 = file[key]["matches0"][()], file[key]["matching_scores0"][()]
                    rows = np.flatnonzero(matches0 != -1)
                    found = np.stack([rows, matches0[rows]], axis=1)
                    return found[:, ::-1] if turned else found, scores0[rows]
    raise ValueError(f"no such pair: {first} {second}")


# The package

_BASE_MODEL = """
    from torch import nn

    class BaseModel(nn.Module):
        default_conf = {}
        required_inputs = []

        def __init__(self, conf):
            super().__init__()
            self.conf = {**self.default_conf, **conf}
            self.required_inputs = list(self.required_inputs)
            self._init(self.conf)

        def forward(self, data):
            assert all(name in data for name in self.required_inputs)
            return self._forward(data)

    def dynamic_load(package, name):
        path = f"{package.__name__}.{name}"
        module = __import__(path, fromlist=[""])
        kinds = [kind for kind in vars(module).values() if isinstance(kind, type)]
        kinds = [kind for kind in kinds if kind.__module__ == path and issubclass(kind, BaseModel)]
        (kind,) = kinds
        return kind
"""

_EXTRACT_FEATURES = """
    import argparse
    from pathlib import Path

    confs = {"sift": {"output": "feats-sift", "model": {"name": "dog"}, "preprocessing": {}}}

    class ImageDataset:
        def __init__(self, root, conf, paths=None):
            self.names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))

    def main(conf, image_dir, export_dir, feature_path=None):
        (export_dir / (conf["output"] + ".told")).write_text(str(conf))

    if __name__ == "__main__":
        parser = argparse.ArgumentParser()
        parser.add_argument("--image_dir", type=Path, required=True)
        parser.add_argument("--export_dir", type=Path, required=True)
        parser.add_argument("--conf", default="sift", choices=list(confs.keys()))
        parser.add_argument("--feature_path", type=Path)
        args = parser.parse_args()
        main(confs[args.conf], args.image_dir, args.export_dir, args.feature_path)
"""

_MATCH_FEATURES = """
    import argparse
    from pathlib import Path
    from threading import Thread

    confs = {"NN": {"output": "matches-NN", "model": {"name": "nearest_neighbor"}}}

    def main(conf, pairs, features, export_dir):
        assert Thread(target=print).daemon
        (export_dir / "told").write_text(f"{features}_{conf['output']}_{pairs.stem}")

    if __name__ == "__main__":
        parser = argparse.ArgumentParser()
        parser.add_argument("--pairs", type=Path, required=True)
        parser.add_argument("--export_dir", type=Path)
        parser.add_argument("--features", default="feats-sift")
        parser.add_argument("--conf", default="NN", choices=list(confs.keys()))
        args = parser.parse_args()
        main(confs[args.conf], args.pairs, args.features, args.export_dir)
"""

_MATCH_DENSE = """
    import argparse
    from pathlib import Path

    import h5py
    import numpy as np

    confs = {"loftr": {"output": "matches-loftr", "model": {"name": "loftr"}, "max_error": 1, "cell_size": 1}}

    def key(pair):
        return "/".join(name.replace("/", "-") for name in pair)

    def parse_retrieval(path):
        listed = {}
        for line in path.read_text().split("\\n"):
            if line:
                first, second = line.split()
                listed.setdefault(first, []).append(second)
        return listed

    def find_unique_new_pairs(pairs, path=None):
        unique = {pair for pair in pairs if pair[::-1] not in pairs or pair < pair[::-1]}
        if path is None or not path.exists():
            return list(unique)
        with h5py.File(path, "r") as file:
            return [pair for pair in unique if key(pair) not in file and key(pair[::-1]) not in file]

    def match_dense(conf, pairs, image_dir, match_path, existing_refs=()):
        with h5py.File(match_path, "a") as file:
            for pair in pairs:
                group = file.create_group(key(pair))
                place = np.array([[len(pair[0]), len(pair[1])]], np.float32)
                group["keypoints0"], group["keypoints1"], group["scores"] = place, place, np.ones(1)

    def load_keypoints(conf, paths, quantize=None):
        return {}, {}

    def aggregate_matches(conf, pairs, match_path, feature_path, required_queries, max_kps, cpdict, bindict):
        with h5py.File(match_path, "a") as file, h5py.File(feature_path, "a") as features:
            for pair in pairs:
                file[key(pair)]["matches0"] = np.zeros(1, np.int32)
                file[key(pair)]["matching_scores0"] = np.ones(1, np.float16)
                for name in set(pair) & required_queries:
                    if name not in features:
                        features[f"{name}/keypoints"] = np.zeros((1, 2), np.float32)
        return cpdict

    def assign_matches(pairs, match_path, keypoints, max_error):
        pass

    def match_and_assign(conf, pairs, image_dir, matches, features, refs, max_kps, overwrite):
        raise AssertionError("hloc's own joining was to be replaced")

    def main(conf, pairs, image_dir, export_dir, matches, features):
        match_and_assign(
            conf, pairs, image_dir, matches, export_dir / f"{features}{conf['output']}.h5", [], 8192, False
        )

    if __name__ == "__main__":
        parser = argparse.ArgumentParser()
        parser.add_argument("--pairs", type=Path, required=True)
        parser.add_argument("--image_dir", type=Path, required=True)
        parser.add_argument("--export_dir", type=Path, required=True)
        parser.add_argument("--matches", type=Path, default="matches-loftr")
        parser.add_argument("--features", default="feats_matches-loftr")
        parser.add_argument("--conf", default="loftr", choices=list(confs.keys()))
        args = parser.parse_args()
        main(confs[args.conf], args.pairs, args.image_dir, args.export_dir, args.matches, args.features)
"""


def write_stand_in(folder: Path) -> None:
    """A package named hloc under a folder."""
    sources = {
        "__init__": "",
        "extractors/__init__": "",
        "matchers/__init__": "",
        "utils/__init__": "",
        "utils/base_model": _BASE_MODEL,
        "extract_features": _EXTRACT_FEATURES,
        "match_features": _MATCH_FEATURES,
        "match_dense": _MATCH_DENSE,
    }
    for name, source in sources.items():
        path = folder / "hloc" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))


@contextmanager
def stand_in(folder: Path) -> Iterator[None]:
    """Has `import hloc` find the stand-in, and whatever was there before afterwards."""
    write_stand_in(folder)
    before = _forget()
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        _forget()
        sys.modules.update(before)


def _forget() -> dict[str, object]:
    names = [name for name in sys.modules if name.partition(".")[0] == "hloc"]
    return {name: sys.modules.pop(name) for name in names}
