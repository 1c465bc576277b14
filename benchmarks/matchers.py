"""How fast every matcher is and how much memory it takes, beside the straightforward way to run its network.

Contenders of each matcher:
  ours       as gim_sfm runs it by default on the device (half precision where it pays, batches on a GPU).
  float32    the same in single precision.
  plain      float32, one photo or pair after the other: kornia's ALIKED, DISK, LightGlue and LoFTR as its
             documentation runs them, romatch's own match(), and DKM's layers as they are, with a correlation
             by grid_sample. SuperPoint and XFeat are as under float32; xfeat-star and root-sift have none.

Each runs in a process of its own, in turns, once for every repeat; times are medians. Peak memory is the
process's, on a GPU the most that torch held there. A matcher whose weights are not on this machine is left
out, unless --checkpoints names files for them.

    python benchmarks/matchers.py --photos FOLDER --matchers aliked-lightglue gim-dkm --json result.json
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from gim_sfm.matchers import MATCHERS, MatcherRow, describe

CONTENDERS = ("ours", "float32", "plain")
PHOTOS = 5


def load_weights(row: MatcherRow, checkpoints: dict[str, Path]) -> dict[str, Any]:
    """State dicts of a matcher's files, by id."""
    from gim_sfm.matchers.weights import WEIGHTS, load_state_dict, locate

    paths = {id: checkpoints.get(id) or locate(WEIGHTS[id]) for id in row.weights}
    return {id: load_state_dict(path) for id, path in paths.items()}


def build(row: MatcherRow, contender: str, arguments: argparse.Namespace) -> Any:
    """The matcher as gim_sfm runs it."""
    from gim_sfm.matchers import building, resolve_device
    from gim_sfm.matchers.precision import resolve_precision

    device = resolve_device(arguments.device)
    return row.build(
        building.Setup(
            weights=load_weights(row, arguments.checkpoints),
            device=device,
            precision=resolve_precision("auto" if contender == "ours" else "float32", device),
            max_keypoints=arguments.max_keypoints or row.max_keypoints,
            image_size=arguments.image_size or row.image_size,
        )
    )


def plain_lightglue() -> None:
    """Kornia's LightGlue, one pair after the other."""
    import numpy as np
    import torch

    from gim_sfm.matchers import lightglue
    from gim_sfm.types import Matches

    def match(self: Any, pairs: Sequence[Any]) -> list[Any]:
        found = []
        for pair in pairs:
            given = {}
            for index, features in enumerate(pair):
                given[f"image{index}"] = {
                    "keypoints": torch.from_numpy(features.keypoints)[None].to(self.device),
                    "descriptors": torch.from_numpy(features.descriptors)[None].float().to(self.device),
                    "image_size": torch.tensor([features.size]).to(self.device),
                }
            with torch.inference_mode():
                joined = self.network(given)["matches"][0].cpu().numpy()
            found.append(Matches(joined.astype(np.int32), np.ones(len(joined), np.float32)))
        return found

    lightglue.LightGlueMatcher.match = match  # type: ignore[method-assign]


def plain_kornia_detector(name: str) -> Callable[[], None]:
    """Kornia's ALIKED or DISK, one photo after the other."""

    def patch() -> None:
        import numpy as np
        import torch
        from kornia import feature

        from gim_sfm.matchers import aliked, disk
        from gim_sfm.matchers.frame import ENLARGE_TO, to_network
        from gim_sfm.types import Features

        plain_lightglue()
        ours: Any = aliked.AlikedDetector if name == "ALIKED" else disk.DiskDetector
        build_ours = ours.__init__

        def make(self: Any, state_dict: Any, **settings: Any) -> None:
            build_ours(self, state_dict, **settings)
            most = settings["max_keypoints"]
            if name == "ALIKED":
                self.plain = feature.ALIKED("aliked-n16", max_num_keypoints=most)
                # strict=False: the one key that kornia's class lacks is a constant
                self.plain.load_state_dict(state_dict, strict=False)
            else:
                self.plain = feature.DISK()
                self.plain.load_state_dict(state_dict)
            self.plain = self.plain.eval().to(settings["device"])
            self.most, self.size, self.at = most, settings["image_size"], settings["device"]

        def extract(self: Any, photos: Sequence[Any]) -> list[Any]:
            found = []
            for photo in photos:
                pixels, frame = to_network(photo, self.size, 32, enlarge_to=ENLARGE_TO)
                image = torch.from_numpy(pixels).to(self.at).permute(2, 0, 1)[None].float() / 255
                with torch.inference_mode():
                    each = self.plain(image)[0] if name == "ALIKED" else self.plain(image, self.most)[0]
                keypoints = each.keypoints.cpu().numpy()
                ones = np.ones(len(keypoints), np.float32)
                described = each.descriptors.cpu().numpy().astype(np.float16)
                found.append(Features(frame.to_file(keypoints), ones, described, ones, photo.size))
            return found

        ours.__init__, ours.extract = make, extract

    return patch


def plain_loftr() -> None:
    """Kornia's LoFTR, with GIM's backbone where the weights are GIM's."""
    import torch
    from kornia.feature import LoFTR
    from kornia.feature.loftr.loftr import default_cfg

    from gim_sfm.matchers import loftr
    from gim_sfm.matchers.frame import fit
    from gim_sfm.matchers.networks.gim_loftr import GimLoftrBackbone
    from gim_sfm.types import Correspondences

    def make(self: Any, state_dict: Any, *, device: Any, image_size: int, flavour: Any, **_: Any) -> None:
        settings = {**default_cfg, "fine_concat_coarse_feat": flavour.context}
        settings["coarse"] = {**default_cfg["coarse"], "temp_bug_fix": False}
        network = LoFTR(pretrained=None, config=settings)
        if flavour.colour:
            network.backbone = GimLoftrBackbone()
        names = {key: key.removeprefix("model.").removeprefix("matcher.") for key in state_dict}
        network.load_state_dict({name: state_dict[key] for key, name in names.items()})
        self.plain, self.at, self.size = network.eval().to(device), device, image_size
        self.grey = not flavour.colour

    def correspond(self: Any, pairs: Sequence[Any]) -> list[Any]:
        found = []
        for pair in pairs:
            fitted = [fit(photo, self.size, 8) for photo in pair]
            images = [torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self.at) for pixels, _ in fitted]
            images = [image.mean(1, keepdim=True) for image in images] if self.grey else images
            with torch.inference_mode():
                each = self.plain({"image0": images[0], "image1": images[1]})
            points = [
                frame.to_file(each[f"keypoints{index}"].cpu().numpy())
                for index, (_, frame) in enumerate(fitted)
            ]
            found.append(Correspondences(points[0], points[1], each["confidence"].cpu().numpy()))
        return found

    kind: Any = loftr.LoftrMatcher
    kind.__init__, kind.correspond = make, correspond


def plain_dkm() -> None:
    """The layers as they are, with a correlation by grid_sample of every place of the window."""
    import torch
    from torch.nn import functional

    from gim_sfm.matchers.networks import dkm

    def correlate(x: Any, y: Any, flow: Any, radius: int) -> Any:
        batch, channels, height, width = x.shape
        reach = torch.arange(-radius, radius + 1, device=x.device)
        window = torch.stack(torch.meshgrid(2 * reach / width, 2 * reach / height, indexing="xy"), -1)
        places = flow.permute(0, 2, 3, 1)[:, :, :, None] + window.reshape(-1, 2)
        products = []
        for one in range(batch):
            grid = places[one].reshape(1, height, -1, 2)
            read = functional.grid_sample(y[one : one + 1], grid, align_corners=False)
            read = read.reshape(channels, height, width, -1)
            products.append((x[one, ..., None] * read).sum(0).permute(2, 0, 1) / channels**0.5)
        return torch.stack(products)

    module: Any = dkm
    module.correlate, module.fold_norms = correlate, id


def plain_roma() -> None:
    """Romatch's own match() and sample()."""
    import numpy as np
    import torch
    from PIL import Image

    from gim_sfm.matchers import roma
    from gim_sfm.matchers.networks.roma import build_network
    from gim_sfm.types import Correspondences

    def make(
        self: Any, weights: Any, dinov2: Any, *, device: Any, image_size: int, flavour: Any, **_: Any
    ) -> None:
        side = image_size // 14 * 14
        self.plain = build_network(weights, dinov2).to(device)
        self.plain.h_resized = self.plain.w_resized = side
        self.plain.upsample_res = (round(side * flavour.enlargement) // 8 * 8,) * 2
        self.at = device

    def correspond(self: Any, pairs: Sequence[Any]) -> list[Any]:
        found = []
        for pair in pairs:
            images = [Image.fromarray(photo.pixels) for photo in pair]
            with torch.inference_mode():
                warp, certainty = self.plain.match(*images, device=self.at)
                matches, scores = self.plain.sample(warp, certainty, num=5000)
            matches = matches.cpu().numpy().astype(np.float32)
            found.append(Correspondences(matches[:, :2], matches[:, 2:], scores.float().cpu().numpy()))
        return found

    kind: Any = roma.RomaMatcher
    kind.__init__, kind.correspond = make, correspond


PATCHES: dict[str, Callable[[], None]] = {
    "aliked-lightglue": plain_kornia_detector("ALIKED"),
    "disk-lightglue": plain_kornia_detector("DISK"),
    "lightglue": plain_lightglue,
    "superpoint-lightglue": plain_lightglue,
    "xfeat-lighterglue": plain_lightglue,
    "loftr": plain_loftr,
    "dkm": plain_dkm,
    "roma": plain_roma,
}


def run_one(name: str, contender: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Times one contender in this process."""
    import torch

    from gim_sfm.images import ImageFolder, read_photo
    from gim_sfm.matchers.contract import SemiDenseMatcher, SparseMatcher

    row = MATCHERS[name]
    if contender == "plain":
        PATCHES[family(name)]()
    matcher = build(row, contender, arguments)
    folder = ImageFolder.scan(arguments.photos)
    photos = [read_photo(folder.path(each), longest=1600) for each in folder.names[:PHOTOS]]
    on_gpu = torch.cuda.is_available() and arguments.device != "cpu"
    batch = 1 if contender == "plain" or not on_gpu else row.batch
    inputs, per_photo = photos, 0.0
    if isinstance(matcher, SparseMatcher | SemiDenseMatcher):
        matcher.detector.extract(photos[:1])
        per_photo, inputs = timed(matcher.detector.extract, photos, batch, on_gpu)
    match = matcher.matcher.match if isinstance(matcher, SparseMatcher) else matcher.matcher.correspond
    pairs = list(pairwise(inputs))[: arguments.pairs]
    if arguments.warm_up:
        match(pairs[:1])
    per_pair, found = timed(match, pairs, batch, on_gpu)
    held = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "seconds_per_photo": per_photo,
        "seconds_per_pair": per_pair,
        "gib": held or peak,
        "matches": statistics.mean(map(len, found)),
    }


def timed(
    work: Callable[[Any], list[Any]], items: Sequence[Any], batch: int, on_gpu: bool
) -> tuple[float, list[Any]]:
    """Seconds an item takes, and the results."""
    import torch

    began, results = time.perf_counter(), []
    for start in range(0, len(items), batch):
        results += work(items[start : start + batch])
    if on_gpu:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / len(items), results


def in_process(name: str, contender: str, given: Sequence[str]) -> dict[str, float] | None:
    """Times one contender in a process of its own."""
    command = [sys.executable, __file__, *given, "--one", name, contender]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name} {contender}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}", file=sys.stderr)
        return None
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def family(name: str) -> str:
    """What GIM's matcher and its sibling have in common."""
    return name.removeprefix("gim-")


def is_here(row: MatcherRow, checkpoints: dict[str, Path]) -> bool:
    """Whether all weights of a matcher are on this machine."""
    return all(status.path or status.id in checkpoints for status in describe(row.name))


def main() -> None:
    """Runs all contenders in turns and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--matchers", nargs="+", choices=MATCHERS, default=list(MATCHERS))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--max-keypoints", type=int)
    parser.add_argument("--pairs", type=int, default=PHOTOS - 1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm-up", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--checkpoints", nargs="+", default=[], metavar="ID=FILE")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.checkpoints = {
        id: Path(path) for id, path in (each.split("=") for each in arguments.checkpoints)
    }
    if arguments.one:
        print(json.dumps(run_one(*arguments.one, arguments)))
        return
    rows = []
    print(
        f"{'matcher':22} {'run as':8} {'s/photo':>8} {'s/pair':>8} {'GiB':>6} {'matches':>8}  against plain"
    )
    for name in arguments.matchers:
        if not is_here(MATCHERS[name], arguments.checkpoints):
            print(f"{name:22} left out: its weights are not on this machine")
            continue
        rows += measure(name, arguments)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All contenders of a matcher, in turns."""
    contenders = [each for each in arguments.contenders if each != "plain" or family(name) in PATCHES]
    runs: dict[str, list[dict[str, float]]] = {contender: [] for contender in contenders}
    for _ in range(arguments.repeats):
        for contender in runs:
            one = in_process(name, contender, sys.argv[1:])
            runs[contender] += [one] if one else []
    rows = []
    for contender, found in runs.items():
        if found:
            middle = {key: statistics.median(each[key] for each in found) for key in found[0]}
            rows.append({"matcher": name, "contender": contender, **middle})
    plain = next((row for row in rows if row["contender"] == "plain"), None)
    for row in rows:
        ratios = [
            f"{plain[key] / row[key]:.1f}x"
            for key in ("seconds_per_photo", "seconds_per_pair")
            if plain and row[key] and plain[key]
        ]
        print(
            f"{name:22} {row['contender']:8} {row['seconds_per_photo']:8.3f} {row['seconds_per_pair']:8.3f} "
            f"{row['gib']:6.2f} {row['matches']:8.0f}  {' '.join(ratios)}",
            flush=True,
        )
    return rows


if __name__ == "__main__":
    main()
