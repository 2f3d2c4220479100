"""Errors that a user can act on.

Each message is one line that names the thing, says what was expected and found, and what to do.
Jobs print these without a traceback; every other exception is a defect and keeps its traceback.
"""

from __future__ import annotations


class RegimesError(Exception):
    """Base of all errors caused by input, files or configuration."""


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


class IdMismatch(RegimesError):
    """Two sets that must describe the same items do not."""


class DescriptorMismatch(RegimesError):
    """Two feature sets come from different descriptors."""
