"""Errors that a user can act on.

Each message is one line that names the thing, says what was expected and found, and what to do.
Jobs print these without a traceback; every other exception is a defect and keeps its traceback.
"""

from __future__ import annotations


class RegimesError(Exception):
    """Base of all errors caused by input, files or configuration."""


def find_cause(error: BaseException) -> RegimesError | None:
    """The ``RegimesError`` behind an exception, if there is one.

    Workers' errors arrive wrapped, sometimes several times; the original is what a user can act on.
    """
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        candidate = waiting.pop(0)
        if not isinstance(candidate, BaseException) or candidate in seen:
            continue
        original = getattr(candidate, "cause", None)
        if isinstance(candidate, RegimesError) and not isinstance(original, BaseException):
            return candidate
        seen.append(candidate)
        waiting += [original, candidate.__cause__, candidate.__context__]
    return None


class ConfigError(RegimesError):
    """An option has a value that cannot be used."""


class BadSource(RegimesError):
    """An image source is missing, empty or of mixed sizes."""


class BadImage(BadSource):
    """One image cannot be decoded."""


class BrokenArtifact(RegimesError):
    """A stored file is missing, truncated or differs from its checksum."""


class StorageFailure(RegimesError):
    """The output location is read-only, full or out of reach."""


class NotFiniteSamples(RegimesError):
    """A model made samples, or a classifier calls, that hold NaN or infinite values."""


class IdMismatch(RegimesError):
    """Two sets that must describe the same items do not."""


class DescriptorMismatch(RegimesError):
    """Two feature sets come from different descriptors."""


class BadCheckpoint(RegimesError):
    """A checkpoint is damaged, of an unknown kind, or does not describe the network it holds."""


class UnsafeCheckpoint(BadCheckpoint):
    """A checkpoint asks for something that is not plain data; nothing of it was executed."""


class BadDescriptor(RegimesError):
    """A descriptor's weights cannot be had or used, or its features are not what they must be."""


class WorkFailed(RegimesError):
    """A unit of work failed wherever it was tried; the others are complete."""
