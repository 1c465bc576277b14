"""hloc's SfM and localization with a matcher of ours: python examples/inside_hloc.py PHOTOS OUT QUERY."""

import sys
from pathlib import Path

from gim_sfm import hloc_plugin

hloc_plugin.register()
from hloc import extract_features, localize_sfm, match_features, pairs_from_exhaustive, reconstruction  # noqa: E402

photos, out, query = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
detector, matcher = (stage.confs["aliked-lightglue"] for stage in (extract_features, match_features))
features = extract_features.main(detector, photos, out)
mapped = sorted(path.name for path in photos.glob("*.*g") if path.name != query)
pairs_from_exhaustive.main(out / "pairs.txt", image_list=mapped)
matches = match_features.main(matcher, out / "pairs.txt", detector["output"], out)
model = reconstruction.main(
    out / "sfm", photos, out / "pairs.txt", features, matches, "SINGLE", image_list=mapped
)

camera = next(iter(model.cameras.values()))  # the query was taken with the camera of the others
words = [query, camera.model_name, camera.width, camera.height, *camera.params]
(out / "queries.txt").write_text(" ".join(map(str, words)))
pairs_from_exhaustive.main(out / "query_pairs.txt", image_list=[query], ref_list=mapped)
matches = match_features.main(matcher, out / "query_pairs.txt", detector["output"], out)
localize_sfm.main(model, out / "queries.txt", out / "query_pairs.txt", features, matches, out / "poses.txt")
print(model.summary(), (out / "poses.txt").read_text(), sep="\n")
