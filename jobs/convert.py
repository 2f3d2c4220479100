"""EDM's files: describe a checkpoint, convert it to safetensors without executing it; write datasets.

python jobs/convert.py edm-cifar10-32x32-uncond-vp.pkl                  # describe it
python jobs/convert.py edm-cifar10-32x32-uncond-vp.pkl net.safetensors  # and net.json beside it
python jobs/convert.py net.safetensors                                  # describe what was written
python jobs/convert.py cifar-10-python.tar.gz cifar10.zip               # images as EDM's dataset
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

from regimes.checkpoints import load_edm, load_safetensors, save_safetensors
from regimes.checkpoints.summary import config_json, summarize
from regimes.denoisers.unet.build import UNetDenoiser
from regimes.errors import BadCheckpoint, ConfigError, StorageFailure
from regimes.jobs.support import console
from regimes.jobs.support.convert.dataset_zip import convert_images
from regimes.storage.filesystem import Location

SUFFIX, DATASET = ".safetensors", ".zip"
_OF_IMAGES = ("max_images", "image_size", "channels")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    options = _parser().parse_args(argv)
    source: Path = options.source
    if options.target is not None and options.target.suffix.lower() == DATASET:
        return _convert_images(options)
    for name in _OF_IMAGES:
        if getattr(options, name) is not None:
            raise ConfigError(
                f"--{name.replace('_', '-')}: for images, which are written as {DATASET}; leave it out"
            )
    target = None if options.target is None else _target(source, options.target)
    denoiser = load_safetensors(source) if source.suffix == SUFFIX else load_edm(source)
    print(f"file             {source} (sha256 {_sha256(source)})")
    print("\n".join(summarize(denoiser).lines))
    if target is not None:
        _write(denoiser, target)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="regimes convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        metavar="IN",
        type=Path,
        help="network-snapshot-*.pkl, training-state-*.pt or *.safetensors; nothing in it is run. For "
        "OUT.zip images: a folder, .zip, .npy, .npz, .parquet, CIFAR-10's archive, or the word digits",
    )
    parser.add_argument(
        "target",
        metavar="OUT",
        type=Path,
        nargs="?",
        help="the .safetensors file to write, OUT.json with its configuration beside it; files that "
        "exist are replaced; without OUT the network is described only. Or the .zip to write images to",
    )
    parser.add_argument("--max-images", type=int, help="write the first images only")
    parser.add_argument(
        "--image-size", type=int, help="crop centre squares and resize them to this side, in pixels"
    )
    parser.add_argument("--channels", type=int, choices=(1, 3), help="convert to gray or colour")
    return parser


def _convert_images(options: argparse.Namespace) -> int:
    source, target = options.source, options.target
    if target.resolve() == source.resolve():
        raise ConfigError(f"{target}: is both IN and OUT; give OUT another name")
    if options.image_size is not None and options.image_size < 1:
        raise ConfigError(f"--image-size: expected at least 1, got {options.image_size}")
    _make_parent(target)
    written = convert_images(
        str(source), target, **{name: getattr(options, name) for name in _OF_IMAGES}
    )
    print(f"written          {target}: {written} (sha256 {_sha256(target)})")
    return 0


def _target(source: Path, asked: Path) -> Path:
    """The file to write; refused before anything is read, if it could not be meant."""
    if asked.is_dir():
        raise ConfigError(f"{asked}: is a folder; give the name of the {SUFFIX} file to write")
    if asked.suffix.lower() in (".pkl", ".pt", ".pth", ".ckpt", ".bin", ".json"):
        raise ConfigError(f"{asked}: weights are written as {SUFFIX} only; end OUT with it")
    target = asked if asked.suffix == SUFFIX else asked.with_name(asked.name + SUFFIX)
    if target.resolve() == source.resolve():
        raise ConfigError(f"{target}: is both IN and OUT; give OUT another name")
    return target


def _write(denoiser: UNetDenoiser, target: Path) -> None:
    """The weights, and the JSON beside them."""
    _make_parent(target)
    save_safetensors(denoiser, target)
    digest = _sha256(target)
    described = config_json(denoiser, weights_sha256=digest)
    Location(str(target.parent)).write(target.with_suffix(".json").name, described)
    print(f"written          {target} (sha256 {digest})")
    print(f"written          {target.with_suffix('.json')}")


def _make_parent(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailure(f"{target}: cannot be written ({error.strerror})") from error


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadCheckpoint(f"{path}: cannot be read ({error.strerror})") from error


if __name__ == "__main__":
    console.leave(main())
