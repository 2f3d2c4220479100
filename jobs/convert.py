"""What is in an EDM checkpoint? Describe it, and convert it to safetensors without executing it.

python jobs/convert.py edm-cifar10-32x32-uncond-vp.pkl                  # describe it
python jobs/convert.py edm-cifar10-32x32-uncond-vp.pkl net.safetensors  # and net.json beside it
python jobs/convert.py net.safetensors                                  # describe what was written
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from regimes.checkpoints import load_edm, load_safetensors, save_safetensors
from regimes.checkpoints.summary import config_json, summarize
from regimes.denoisers.unet.build import UNetDenoiser
from regimes.errors import BadCheckpoint, ConfigError, StorageFailure
from regimes.jobs.support import console
from regimes.storage.filesystem import Location

SUFFIX = ".safetensors"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    options = _parser().parse_args(argv)
    source: Path = options.source
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
        help="network-snapshot-*.pkl, training-state-*.pt or *.safetensors; nothing in it is run",
    )
    parser.add_argument(
        "target",
        metavar="OUT",
        type=Path,
        nargs="?",
        help="the .safetensors file to write, OUT.json with its configuration beside it; files that "
        "exist are replaced; without OUT the network is described only",
    )
    return parser


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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailure(f"{target}: cannot be written ({error.strerror})") from error
    save_safetensors(denoiser, target)
    digest = _sha256(target)
    described = config_json(denoiser, weights_sha256=digest)
    Location(str(target.parent)).write(target.with_suffix(".json").name, described)
    print(f"written          {target} (sha256 {digest})")
    print(f"written          {target.with_suffix('.json')}")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadCheckpoint(f"{path}: cannot be read ({error.strerror})") from error


if __name__ == "__main__":
    sys.exit(main())
