"""Reconstruct photos and list what became of each: python examples/reconstruct_folder.py PHOTOS OUT."""

import json
import sys
from pathlib import Path

import gim_sfm

photos, out = Path(sys.argv[1]), Path(sys.argv[2])
result = gim_sfm.reconstruct(photos, out, matcher="xfeat-lighterglue", max_keypoints=1024)
print(result)
for row in json.loads((out / "report.json").read_text())["photos"]:
    print(row["name"], row["status"], row["reason"])
