"""Which of two matchers is better: python examples/compare_matchers.py ZEB OUT FIRST SECOND."""

import sys
from pathlib import Path

import gim_sfm

root, out = Path(sys.argv[1]), Path(sys.argv[2])
first, second = (gim_sfm.evaluate_zeb(root, out=out, matcher=name) for name in sys.argv[3:5])
print(second)  # the table, with the first one in it
print(gim_sfm.compare(first.folder, second.folder, out / "comparison"))
