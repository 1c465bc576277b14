"""Public photo sets that the demo can fetch, each file pinned by size and SHA-256."""

from dataclasses import dataclass
from pathlib import Path

from gim_sfm.download import download
from gim_sfm.errors import SettingsError
from gim_sfm.progress import stage
from gim_sfm.recipe import nearest


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """One photo: its name, length in bytes and SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PhotoSet:
    """A collection of photos on the net.

    Attributes:
        title: What it shows, and who published it.
        licence: On what terms the photos may be used.
        address: Folder of the files, pinned to one version of them.
        files: Its photos.
    """

    title: str
    licence: str
    address: str
    files: tuple[PhotoFile, ...]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(file.size for file in self.files)


def find_photo_set(name: str) -> PhotoSet:
    """The set of that name.

    Raises:
        SettingsError: There is none; the nearest name is told.
    """
    if name not in PHOTO_SETS:
        raise SettingsError(
            f"No photo set is called {name!r}.{nearest(name, PHOTO_SETS)}",
            remedy=f"Use one of: {', '.join(PHOTO_SETS)}.",
        )
    return PHOTO_SETS[name]


def fetch_photo_set(chosen: PhotoSet, folder: Path) -> Path:
    """Downloads what is missing of a photo set; broken downloads are gone on with.

    Args:
        chosen: A row of PHOTO_SETS.
        folder: Where the photos shall lie.

    Returns:
        The folder.

    Raises:
        DownloadError: An address does not answer, or serves another file.
        OutputError: The folder cannot be written.
    """
    with stage("Fetching photos", len(chosen.files), "photo") as advance:
        for file in chosen.files:
            address = f"{chosen.address}/{file.name}"
            download(address, folder / file.name, sha256=file.sha256, size=file.size)
            advance(1)
    return folder


def _rows(table: str) -> tuple[PhotoFile, ...]:
    cells = (line.split() for line in table.strip().splitlines())
    return tuple(PhotoFile(name, int(size), sha256) for name, size, sha256 in cells)


PHOTO_SETS: dict[str, PhotoSet] = {
    "sacre_coeur": PhotoSet(
        title="Ten tourists' photos of the Sacre Coeur in Paris: many cameras, wide baselines. Image "
        "Matching Challenge 2021, out of YFCC100M; published with hloc",
        licence="Creative Commons, each photo under its photographer's own variant (YFCC100M)",
        address="https://raw.githubusercontent.com/cvg/Hierarchical-Localization/"
        "c13273bd0ecc2917a35910fd843712a1c6243193/datasets/sacre_coeur/mapping",
        files=_rows(
            """
        02928139_3448003521.jpg 518060 4f52d9dcdb3ba9d8cf025025fb1be3f8f8d1ba0e0d84ab7eeb271215589ca608
        03903474_1471484089.jpg 348789 70969e7b24bbc8fe8de0a114d245ab9322df2bf10cd8533cc0d3ec6ec5f59c15
        10265353_3838484249.jpg 454554 d9c8ad3c8694703c08da1a4ec3980e1a35011690368f05e167092b33be8ff25c
        17295357_9106075285.jpg 535133 54dff1885bf44b5c0e0c0ce702220832e99e5b30f38462d1ef5b9d4a0d794f98
        32809961_8274055477.jpg 458230 4c2bf90ab409dfed11b7c112c120917a51141010335530c8607b71010d3919fa
        44120379_8371960244.jpg 357768 fc7bbe1e4b47eeebf986e658d44704dbcce902a3af0d4853ef2e540c95a77659
        51091044_3486849416.jpg 491952 fe4d46cb3feab25b4d184dca745921d7de7dfd18a0f3343660d8d3de07a0c054
        60584745_2207571072.jpg 470664 186e6b8a426403e56a608429f7f63d5a56d32a895487f3da7cb9ceaff97f563f
        71295362_4051449754.jpg 368510 f7e7a59fab6f497bd94b066589a62cb74ceffe63ff3c8cd77b9b6b39bfc66bae
        93341989_396310999.jpg 364593 2932ea734fb26d5417aba1b1891760299ddf16facfd6a76a3712a7f11652e1f6
            """
        ),
    ),
    "saharov32": PhotoSet(
        title="32 photos round a statue with one camera. Published with PhotogrammetryTasks2024",
        licence="MIT (the repository's)",
        address="https://raw.githubusercontent.com/PhotogrammetryCourse/PhotogrammetryTasks2024/"
        "d7c3c753130c20d177151c5d70ad21124a797a08/data/src/datasets/saharov32",
        files=_rows(
            """
        IMG_3023.JPG 514969 dc487730f360e522bded856172624ac8feb975bf57f220dc82e293f5dd44a73c
        IMG_3024.JPG 490894 0c9f2ef6ea138aad1a41a0b907d22b671ec872faa0d3043ca8e026acb20f02a5
        IMG_3025.JPG 527605 c132b142813605a8123731c907ee204db9b4ade660441a904ac5c37d87d69e9f
        IMG_3026.JPG 534760 0897a93357114f69b6bd56c2a9215117e6379a5edc999159bccc61f0f6c411a4
        IMG_3027.JPG 516698 462721d8b6663990ccd808ae8fc1fcc9c4da5e077abca8d7c15861ec8fa9e1f7
        IMG_3028.JPG 517161 33ac470d628a248a754d4ad3726c84bcceb5108a2e86e1cd5123c5795c61538c
        IMG_3029.JPG 521148 13fb9c2e55558e5dfcb6cebbd5b73e920d6325d78009d42a7d3eb05966bfb789
        IMG_3030.JPG 527325 468823cd00beac18948b0c9884afd4156e20ddd9b5c3edf52b424c56338fab31
        IMG_3031.JPG 523622 7753b321f72c10d74473d44f7f1813cbd9aa3354c82e0bf5ac99e67f81332af1
        IMG_3032.JPG 522201 80c9899ba4c31ef8c69e1b8b939e8ba68a2d6717b0f551bd791d21729a658d89
        IMG_3033.JPG 504341 34a836f6508de31164956cc130dc5d3c3c6d4e80ffede15830c35893d4031d75
        IMG_3034.JPG 492298 7cc9f68eca1cd2ae653ed3eebb4c4799eab34c33649500e28b2b2d265f6fb0ed
        IMG_3035.JPG 504315 1cb2448a6323cfb49b1b713462aabf259c4effc62a2cc5083734f3cc4ee2ab0c
        IMG_3036.JPG 493283 3b142dd977269f6ed8b58d0524ea3286b950b0db668e7012b2d94ea93ef3ff53
        IMG_3037.JPG 502543 19092737042342e652229b3c839f8f08c70e7adf68c9d8ff571131b7fca3ccc0
        IMG_3038.JPG 528364 f5473e05d13bd007dc7266c1397c8a1b1eb34f30b7a44554a890d06de8a7ca6b
        IMG_3039.JPG 529845 43847aa7c858d902b026dc6188bf8555854e505342f5052aa12401ee77c55edb
        IMG_3040.JPG 548583 6a7a7a6fa1f0267fa95a2191a3c8a6a2a0770d7e0d69cb5e2bdc85f58e334867
        IMG_3041.JPG 534660 cbee85f7c44470fa861b267240203df7fa1433f1a113f8ceb64fa39158435fd4
        IMG_3042.JPG 521011 5b1676516077842fa8ced480ffd655de36dd290114e641c96e4b5708f19beb51
        IMG_3043.JPG 472753 cb10510d47828c87aa4f4850b52e68fa82ae06def990fe1183b955cdd5b91f43
        IMG_3044.JPG 460154 2b09f9ac3309b07aaad6e6be75adedb6ab3e60116e62df55e87891c801291ed5
        IMG_3045.JPG 477458 d5773fb14d14ffd6827c70b42f381f60d2b7468e8aed46b9bb8e2b20b9343c19
        IMG_3046.JPG 476691 64d970e026c50db6062cf8c9700e9c83ade72302011d11324c1c1bb5e6ad548d
        IMG_3047.JPG 476936 2ffb500e13048a2df38dacd78dd50192d43e2a219e5bd3fbbdcf4e3dcbab7536
        IMG_3048.JPG 555794 b9b67cb102edfca3bdd46951098e15bac07d229fcaeb9cdfdb76c799044a4fc7
        IMG_3049.JPG 628948 8cdb6a4d84334fb4e1508253d4490dd42f76d16c8079035d57c070b6cc4aa725
        IMG_3050.JPG 638615 3010b47dac11e477ffa79c07d7e117010fd146bd9caa2808e77a82c3b8c51d65
        IMG_3051.JPG 610408 7c61fc96444ca86ddf17ac5720f4d2cdb6551c995a14cfcf8b9057674f998fbf
        IMG_3052.JPG 533376 5c46038796a74a7416f5b963240d9485eee9ef889b005bfa28f272e7907d8985
        IMG_3053.JPG 524798 e9c3cce89da786be796cc55201213fe2760b1abf2531646a7ebd3d4d1a7d76ee
        IMG_3054.JPG 482590 d717634307b1df04016465a71790020be4765d763294d7366f2ff2ea7c62cd74
            """
        ),
    ),
}
