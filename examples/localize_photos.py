"""Map photos, then find where others were taken: python examples/localize_photos.py PHOTOS QUERIES OUT."""

import sys
from pathlib import Path

import gim_sfm

photos, queries, out = map(Path, sys.argv[1:4])
print(gim_sfm.reconstruct(photos, out, matcher="xfeat-lighterglue", max_keypoints=1024))
print(gim_sfm.localize(queries, out, out / "poses"))  # all of a folder: poses.txt, poses.json

with gim_sfm.Localizer.open(out) as localizer:  # one by one: map and networks stay loaded
    answer = localizer.localize(sorted(queries.iterdir())[0])
print(answer.name, answer.cam_from_world.inverse().translation, f"{answer.inliers} inliers")
for partner in answer.partners:
    print("  by way of", partner.name, partner.inliers)
