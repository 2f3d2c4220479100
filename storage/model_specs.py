"""Models as a user names them: a path, or a closed form of a source of images.

network-snapshot-050000.pkl      EDM's files, and .safetensors of this project
ddpm-cifar10/                    a folder saved by a diffusers pipeline, or of a model artifact
empirical:cifar10.zip            the perfect memorizer of the images of a source
wiener:digits                    the best linear denoiser of them
gaussian:cifar10.zip             the Gaussian of their mean and covariance: draws images, no denoiser
gmm:cifar10.zip                  a mixture, one Gaussian per class or several by EM: likewise
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from regimes.errors import ConfigError
from regimes.gaussians.fit import FitConfig
from regimes.images.sources import open_source
from regimes.images.split import Split
from regimes.storage.artifacts import Store
from regimes.storage.checkpoints import NETWORK_FILES, identify_checkpoint, import_checkpoint
from regimes.storage.denoisers import ClosedFormRecipe, DenoiserRecipe
from regimes.storage.gaussians import GaussianRecipe, fit_gaussian_model
from regimes.storage.images import ImagesRecipe, Subset, decode_source, ingest

CLOSED_FORMS = ("empirical:", "wiener:")
"""What the name of a closed form begins with."""
MIXTURES = ("gaussian:", "gmm:")
"""What the name of a model that draws images by itself begins with."""
_SUFFIXES = (".pkl", ".pt", ".safetensors")
_FILES = ("model_index.json", "network.json", *NETWORK_FILES)


def is_model(spec: str) -> bool:
    """Whether a user who writes this means a model, not images."""
    path = Path(spec)
    is_folder = path.is_dir() and any((path / name).exists() for name in _FILES)
    return _is_closed_form(spec) or is_mixture(spec) or is_folder or path.suffix in _SUFFIXES


def identify_model(spec: str, *, max_images: int | None = None) -> DenoiserRecipe:
    """The recipe of a model, from its content; nothing is written.

    Args:
        spec: see the module's docstring.
        max_images: a closed form takes only this many images, the first.

    Raises:
        BadCheckpoint, BadSource: if there is nothing there, or nothing known.
        ConfigError: if ``max_images`` is given for a checkpoint.
    """
    if is_mixture(spec):
        raise ConfigError(
            f"{spec}: draws images by itself and has no denoiser; make its images by jobs/generate.py"
        )
    if _is_closed_form(spec):
        return _closed_form(spec, max_images)
    if max_images is not None:
        raise ConfigError(
            "--max-images: for a closed form, as in --model empirical:SOURCE; a checkpoint has been "
            "trained"
        )
    if ":" in spec and "://" not in spec and not Path(spec).exists():
        forms = ", ".join(CLOSED_FORMS + MIXTURES)
        raise ConfigError(f"{spec}: neither a file or folder nor one of {forms} and a source")
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


def is_mixture(spec: str) -> bool:
    """Whether a model is a Gaussian or a mixture of them."""
    return spec.startswith(MIXTURES) and not Path(spec).exists()


def import_mixture(
    store: Store, spec: str, fit: FitConfig, *, max_images: int | None = None
) -> GaussianRecipe:
    """Bring the images of a mixture into the store, and fit it to them; what is there is kept.

    Args:
        store: where it goes.
        spec: gaussian:SOURCE, or gmm:SOURCE, which is one Gaussian per class unless components are asked for.
        fit: how it is fitted.
        max_images: take only this many images, the first.

    Raises:
        BadSource, ConfigError: if there is nothing there, or it does not allow that fit.
    """
    if spec.startswith("gaussian:"):
        if fit.by == "class" or fit.components > 1:
            raise ConfigError(f"{spec}: one Gaussian; for several pass gmm:{_source(spec)}")
    elif fit.components == 1:
        fit = replace(fit, by="class")
    train = _subset(spec, max_images)
    recipe = GaussianRecipe(train=train, fit=fit)
    if not store.missing([recipe]):
        return recipe
    images = train.images
    assert isinstance(images, ImagesRecipe)
    if store.missing([images]):
        ingest(store, images, decode_source(open_source(_source(spec)), images))
    if fit.by == "class" and open_source(_source(spec)).labels is None:
        raise ConfigError(
            f"{spec}: the images do not say their classes; expected class folders or labels, or "
            "--mixture.components K, or gaussian:SOURCE"
        )
    fit_gaussian_model(store, recipe)
    return recipe


def _closed_form(spec: str, max_images: int | None) -> ClosedFormRecipe:
    form: Literal["empirical", "wiener"] = "empirical" if spec.startswith("empirical") else "wiener"
    return ClosedFormRecipe(form=form, train=_subset(spec, max_images))


def _subset(spec: str, max_images: int | None) -> Subset:
    """The images of a source, or the first ones."""
    source = open_source(_source(spec))
    images = ImagesRecipe(
        fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
    )
    count = len(source.ids)
    size = count if max_images is None else max_images
    if not 1 <= size <= count:
        raise ConfigError(f"--max-images: expected 1 to {count}, as {source.name} has, got {size}")
    split = Split(num_images=count, seed=None, parts=1)
    return Subset(images=images, split=split, half="A", size=size)
