"""The descriptor that a job was asked for: a network whose weights are there, or pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regimes.descriptors.network import NetworkConfig
from regimes.descriptors.options import DescriptorOptions, find_network
from regimes.errors import ConfigError
from regimes.storage.descriptors import DescriptorRecipe
from regimes.storage.images import Subset

DEFAULT_DESCRIPTOR = DescriptorOptions(descriptor="whitened-pixels")
"""What jobs take if they are not told: it needs no download."""
DEFAULT_RIDGE = 0.5
"""What --ridge is unless it is given, in units of the mean eigenvalue."""
LARGEST_WHITENING = 12_288
"""Values per image (64x64x3) that can be whitened: the transform takes their square."""

_OF_NETWORKS = (
    "weights", "resize", "filter", "mean", "std", "precision", "channels_last", "descriptor_batch",
    "download_unverified",
)  # fmt: skip


def check_whitening(values: int) -> None:
    """Refuse to whiten images of so many values, if they are too many.

    Raises:
        ConfigError: if they are.
    """
    if values > LARGEST_WHITENING:
        raise ConfigError(
            f"--descriptor whitened-pixels: images of {values} values are too large to whiten (at most "
            f"{LARGEST_WHITENING}); pass --image-size, or --descriptor pixels"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenDescriptor:
    """A descriptor, before it is fitted to anything.

    Args:
        options: as on the command line.
        network: what it is, if it is a network.
        weights: the file of its weights, if it has one.
    """

    options: DescriptorOptions
    network: NetworkConfig | None
    weights: Path | None

    @classmethod
    def find(cls, options: DescriptorOptions) -> ChosenDescriptor:
        """Look it up; weights that are missing are downloaded where that is allowed.

        Raises:
            ConfigError: if an option does not apply, or there is no such descriptor.
            BadDescriptor: if its weights are not there, or not the right ones.
        """
        if options.is_network:
            network, weights = find_network(options)
            return cls(options=options, network=network, weights=weights)
        changed = [
            f"--{name.replace('_', '-')}"
            for name in _OF_NETWORKS
            if getattr(options, name) != getattr(DEFAULT_DESCRIPTOR, name)
        ]
        if changed:
            raise ConfigError(
                f"{', '.join(changed)}: {options.descriptor} is no network; leave it out, or choose "
                "another --descriptor"
            )
        return cls(options=options, network=None, weights=None)

    @property
    def name(self) -> str:
        """Of the descriptor."""
        return self.options.descriptor if self.network is None else self.network.name

    @property
    def is_fitted(self) -> bool:
        """Whether it is fitted to real images (whitening)."""
        return self.options.descriptor == "whitened-pixels"

    def check(self, *, ridge: bool, centre: bool, centre_option: str = "--centre") -> None:
        """Refuse options that another kind of descriptor has.

        Args:
            ridge: whether a ridge was asked for.
            centre: whether a centre was.
            centre_option: what that option is called.

        Raises:
            ConfigError: if it does not apply.
        """
        if ridge and not self.is_fitted:
            raise ConfigError(f"--ridge: {self.name} is not fitted to anything; leave it out")
        if centre and self.network is None:
            raise ConfigError(f"{centre_option}: {self.name} needs no centre; leave it out")

    def recipe(self, real: Subset, *, ridge: float, centre: bool) -> DescriptorRecipe:
        """The artifact of this descriptor, fitted to (or centred by) these images as it needs."""
        if self.network is None:
            fit = real if self.is_fitted else None
            return DescriptorRecipe(
                name=self.name, fit=fit, ridge=ridge if self.is_fitted else None
            )
        return DescriptorRecipe(
            name=self.name, network=self.network, centre=real if centre else None
        )
