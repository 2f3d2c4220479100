"""The table of descriptors: what each network is, where its weights are, and what it sees.

Similarity is the cosine of two features, so every feature is divided by its length, whether the
network does so itself (SSCD, which was trained for it) or not (all others, whose published uses mostly
take raw features; ``NetworkDescriptor.raw`` gives those). Class scores and pooled activations behind a
ReLU are not negative, hence any two of them have a cosine of at least 0, usually far above: centre
them (``DescriptorRecipe.centre``) before thresholds are read as similarities.

One hash is known in full, none is invented. torchvision's file names carry the first eight
digits. Where nothing is known, the hash of the file that was used is in the recipe of every feature.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from regimes.callables import PYTHON
from regimes.descriptors.resize import Preprocessing
from regimes.descriptors.weights import WeightsFile
from regimes.errors import ConfigError

Family = Literal["torchscript", "torchvision", "torch-fidelity", "timm", "open-clip", "python"]
PIXEL_DESCRIPTORS = ("pixels", "whitened-pixels")
TORCHSCRIPT = "torchscript:"

_SSCD = "https://dl.fbaipublicfiles.com/sscd-copy-detection/"
_TORCHVISION = "https://download.pytorch.org/models/"
_HUB = "https://huggingface.co/timm/"
_FIDELITY = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One descriptor that is a published network."""

    name: str
    """What it is called on the command line."""
    family: Family
    """Which code builds the network."""
    model: str
    """The architecture, in the words of that code."""
    layer: str
    """Where features are taken."""
    dimension: int
    """Numbers per image."""
    weights: WeightsFile
    """The published file."""
    preprocessing: Preprocessing | None = field(default_factory=lambda: Preprocessing(size=224))
    """What the network sees; None if it takes uint8 images and resizes them itself."""
    variants: tuple[str, ...] = ()
    """Other rules of resizing that are in use."""
    unit: bool = False
    """Whether the network itself divides features by their length."""


def _torchvision(file: str) -> WeightsFile:
    return WeightsFile(name=file, url=_TORCHVISION + file)


def _sscd(name: str, dimension: int, sha256: str | None) -> Entry:
    """SSCD, Pizzi et al. 2022; its authors recommend both rules of resizing, and skew for batches."""
    file = f"{name.replace('-', '_')}.torchscript.pt"
    return Entry(
        name=name, family="torchscript", model=name, layer="output", dimension=dimension, unit=True,
        weights=WeightsFile(name=file, url=_SSCD + file, sha256=sha256, is_program=True),
        preprocessing=Preprocessing(size=320), variants=("short-edge-288",),
    )  # fmt: skip


_CLIP = Preprocessing(
    size=224,
    filter="bicubic",
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)

ENTRIES = {
    entry.name: entry
    for entry in (
        # The hash of disc-mixup is what ten independent public projects pin; Meta states none.
        _sscd("sscd-disc-mixup", 512,
              "9f26bd4c848cc19b73d2ae92eea6e04886f61a7b764ceb7a13aeee62e6a6db56"),
        _sscd("sscd-disc-large", 1024, None),
        # The class scores that the diverse-samples study takes, and the features before them.
        Entry(name="squeezenet", family="torchvision", model="squeezenet1_1", layer="scores",
              dimension=1000, weights=_torchvision("squeezenet1_1-b8a52dc0.pth")),
        Entry(name="squeezenet-pool", family="torchvision", model="squeezenet1_1", layer="pool",
              dimension=512, weights=_torchvision("squeezenet1_1-b8a52dc0.pth")),
        # Behind the ReLU of the last hidden layer, classifier[:-1].
        Entry(name="vgg16", family="torchvision", model="vgg16", layer="penultimate",
              dimension=4096, weights=_torchvision("vgg16-397923af.pth")),
        Entry(name="alexnet", family="torchvision", model="alexnet", layer="penultimate",
              dimension=4096, weights=_torchvision("alexnet-owt-7be5be79.pth")),
        # Behind the last average pooling, before dropout and classes.
        Entry(name="efficientnet-b7", family="torchvision", model="efficientnet_b7", layer="pool",
              dimension=2560, weights=_torchvision("efficientnet_b7_lukemelas-c5b4e57e.pth"),
              preprocessing=Preprocessing(size=600, filter="bicubic")),
        Entry(name="inception-v3", family="torchvision", model="inception_v3", layer="pool",
              dimension=2048, weights=_torchvision("inception_v3_google-0cc3c7bd.pth"),
              preprocessing=Preprocessing(size=299)),
        Entry(name="resnet50-pool", family="torchvision", model="resnet50", layer="pool",
              dimension=2048, weights=_torchvision("resnet50-0676ba61.pth")),
        # The network of FID: TensorFlow's weights of 2015, and TensorFlow 1's resizing inside.
        Entry(name="inception-fid", family="torch-fidelity", model="inception-v3-compat",
              layer="2048", dimension=2048, preprocessing=None,
              weights=WeightsFile(name="weights-inception-2015-12-05-6726825d.pth",
                                  url=_FIDELITY + "weights-inception-2015-12-05-6726825d.pth")),
        # ViT-L/14 at 224 pixels, class token: the features of FD-DINOv2.
        Entry(name="dinov2", family="timm", model="vit_large_patch14_dinov2", layer="class-token",
              dimension=1024, preprocessing=Preprocessing(size=224, filter="bicubic"),
              weights=WeightsFile(
                  name="vit_large_patch14_dinov2.lvd142m.safetensors",
                  url=_HUB + "vit_large_patch14_dinov2.lvd142m/resolve/main/model.safetensors")),
        Entry(name="clip", family="open-clip", model="ViT-B-32-quickgelu", layer="projection",
              dimension=512, preprocessing=_CLIP,
              weights=WeightsFile(
                  name="vit_base_patch32_clip_224.openai.safetensors",
                  url=_HUB + "vit_base_patch32_clip_224.openai/resolve/main/"
                  "open_clip_model.safetensors")),
    )
}  # fmt: skip


def descriptor_names() -> list[str]:
    """Everything that can be asked for, for help and errors."""
    return [*PIXEL_DESCRIPTORS, *ENTRIES, f"{TORCHSCRIPT}FILE", f"{PYTHON}MODULE:CALLABLE"]


def find_entry(name: str) -> Entry:
    """The entry of a name.

    Raises:
        ConfigError: if there is none.
    """
    if name not in ENTRIES:
        raise ConfigError(f"--descriptor {name}: expected one of {', '.join(descriptor_names())}")
    return ENTRIES[name]
