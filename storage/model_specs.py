"""Models as a user names them: a path, or a closed form of a source of images.

network-snapshot-050000.pkl      EDM's files, and .safetensors of this project
ddpm-cifar10/                    a folder saved by a diffusers pipeline, or of a model artifact
empirical:cifar10.zip            the perfect memorizer of the images of a source
wiener:digits                    the best linear denoiser of them
"""

from __future__ import annotations

from pathlib import Path

from regimes.errors import ConfigError
from regimes.images.sources import open_source
from regimes.images.split import Split
from regimes.storage.artifacts import Store
from regimes.storage.checkpoints import NETWORK_FILES, identify_checkpoint, import_checkpoint
from regimes.storage.denoisers import ClosedFormRecipe, DenoiserRecipe
from regimes.storage.images import ImagesRecipe, Subset, decode_source, ingest

CLOSED_FORMS = ("empirical:", "wiener:")
"""What the name of a closed form begins with."""
_SUFFIXES = (".pkl", ".pt", ".safetensors")
_FILES = ("model_index.json", "network.json", *NETWORK_FILES)


def is_model(spec: str) -> bool:
    """Whether a user who writes this means a model, not images."""
    path = Path(spec)
    is_folder = path.is_dir() and any((path / name).exists() for name in _FILES)
    return _is_closed_form(spec) or is_folder or path.suffix in _SUFFIXES


def identify_model(spec: str, *, max_images: int | None = None) -> DenoiserRecipe:
    """The recipe of a model, from its content; nothing is written.

    Args:
        spec: see the module's docstring.
        max_images: a closed form takes only this many images, the first.

    Raises:
        BadCheckpoint, BadSource: if there is nothing there, or nothing known.
        ConfigError: if ``max_images`` is given for a checkpoint.
    """
    if _is_closed_form(spec):
        return _closed_form(spec, max_images)
    if max_images is not None:
        raise ConfigError(
            "--max-images: for a closed form, as in --model empirical:SOURCE; a checkpoint has been "
            "trained"
        )
    return identify_checkpoint(spec)


def import_model(store: Store, spec: str, *, max_images: int | None = None) -> DenoiserRecipe:
    """Bring a model, or the images of a closed form, into the store, where workers find it.

    Args:
        store: where it goes; what is there is not read again.
        spec: as of ``identify_model``.
        max_images: likewise.

    Raises:
        BadCheckpoint, BadSource, ConfigError: as ``identify_model``.
    """
    recipe = identify_model(spec, max_images=max_images)
    if not isinstance(recipe, ClosedFormRecipe):
        return import_checkpoint(store, spec)
    images = recipe.train.images
    if isinstance(images, ImagesRecipe) and store.missing([images]):
        ingest(store, images, decode_source(open_source(_source(spec)), images))
    return recipe


def _is_closed_form(spec: str) -> bool:
    return spec.startswith(CLOSED_FORMS) and not Path(spec).exists()


def _source(spec: str) -> str:
    return spec.partition(":")[2]


def _closed_form(spec: str, max_images: int | None) -> ClosedFormRecipe:
    source = open_source(_source(spec))
    images = ImagesRecipe(
        fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
    )
    count = len(source.ids)
    size = count if max_images is None else max_images
    if not 1 <= size <= count:
        raise ConfigError(f"--max-images: expected 1 to {count}, as {source.name} has, got {size}")
    split = Split(num_images=count, seed=None, parts=1)
    train = Subset(images=images, split=split, half="A", size=size)
    return ClosedFormRecipe(
        form="empirical" if spec.startswith("empirical") else "wiener", train=train
    )
