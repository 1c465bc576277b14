"""Features of pictures seen lately, so that a view matched to many others is looked at once."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from gim_sfm.bev.view_matching import ViewMatcher
from gim_sfm.matchers.contract import Detector, SemiDenseMatcher
from gim_sfm.types import Features, Photo

MOST_PHOTOS = 200
"""Photos whose features are kept: some hundred megabytes."""


class RememberingDetector:
    """A detector that finds the features of equal pixels once.

    Args:
        detector: Finds them.
        most: Photos it remembers.
    """

    def __init__(self, detector: Detector, most: int = MOST_PHOTOS) -> None:
        self._detector, self._most = detector, most
        self._known: OrderedDict[bytes, Features] = OrderedDict()

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        """Features of each photo, as the detector tells them."""
        return [self._extract(photo) for photo in photos]

    def _extract(self, photo: Photo) -> Features:
        key = hashlib.blake2b(photo.pixels.data, digest_size=16, salt=repr(photo.size).encode()[:16]).digest()
        features = self._known.pop(key, None) or self._detector.extract([photo])[0]
        self._known[key] = features
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return features


def remembering(views: ViewMatcher) -> ViewMatcher:
    """The same, with a memory where it finds features at all."""
    matcher = views.matcher
    if not isinstance(matcher, SemiDenseMatcher):
        return views
    return replace(views, matcher=SemiDenseMatcher(RememberingDetector(matcher.detector), matcher.matcher))
