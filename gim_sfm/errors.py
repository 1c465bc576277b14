"""Errors that a person can act on: what was found, where, and what to do about it."""

from collections.abc import Sequence


class GimSfmError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        message: What was found, and where (a file, a setting).
        remedy: What the person can do about it.
    """

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  What to do: {self.remedy}"


class InputError(GimSfmError):
    """Photos, masks, poses, pairs or other input files that cannot be used."""


class OutputError(GimSfmError):
    """The output folder cannot be written, or holds something that must not be mixed with this run."""


class SettingsError(GimSfmError):
    """A setting, recipe key or matcher name that does not exist or does not fit."""


class WeightsError(GimSfmError):
    """Network weights that are missing, damaged or of another network."""


class ReconstructionError(GimSfmError):
    """The photos were read and matched, but no model came of it; says why."""


class LocalizationError(GimSfmError):
    """A photo that sees nothing of the model, or too little to be sure where it was taken; says which.

    Args:
        message: What was found.
        remedy: What the person can do about it.
        partners: Photos of the model that it was compared with.
    """

    def __init__(self, message: str, *, remedy: str, partners: Sequence[str] = ()) -> None:
        super().__init__(message, remedy=remedy)
        self.partners = tuple(partners)


class RegistrationError(GimSfmError):
    """Two point clouds that could not be registered beyond doubt; says why."""


class DownloadError(GimSfmError):
    """A file that could not be fetched from the net, or came as another file than the one asked for."""


class ResourceError(GimSfmError):
    """Memory of the machine or its GPU that does not suffice for even the smallest piece of work."""
