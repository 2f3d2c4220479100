"""Generate images from any model: the sample of a seed is the same whoever draws it, in any batch.

python jobs/generate.py --model edm-cifar10-32x32-uncond-vp.pkl --seeds 0-49999 --output samples
python jobs/generate.py --model model.safetensors --seeds 100-103 --format npz --float --output out
python jobs/generate.py --model ldm-celebahq-256/ --scheduler ddim --steps 50 --n 1024 --output faces
python jobs/generate.py --model DiT-XL-2-256/ --class 207 --guidance 4 --output retrievers
python jobs/generate.py --model stable-diffusion/ --prompts captions.txt --steps 50 --output pictures
python jobs/generate.py --model empirical:cifar10.zip --max-images 64 --output copies
python jobs/generate.py --model gmm:cifar10.zip --seeds 0-49999 --format npz --output mixture
"""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from regimes.denoisers.compute import Compute
from regimes.errors import ConfigError
from regimes.gaussians.fit import FitConfig
from regimes.gaussians.quantisation import QuantisationError
from regimes.jobs.support import console
from regimes.jobs.support.console import Execution, Stage, duration
from regimes.jobs.support.generate.exports import (
    ExportRecipe,
    Format,
    check_target,
    claim,
    export,
    is_exported,
)
from regimes.jobs.support.sampling import choose_sampler, sample_all
from regimes.jobs.support.sampling_cost import sampling_cost
from regimes.pipelines.schedulers import SchedulerName
from regimes.samplers.edm import SamplerConfig
from regimes.storage.artifacts import Artifact, Store, to_json
from regimes.storage.denoisers import DenoiserRecipe
from regimes.storage.filesystem import Location
from regimes.storage.gaussians import DirectSampler, GaussianRecipe, clipping_error
from regimes.storage.model_specs import import_mixture, import_model, is_mixture
from regimes.storage.pipelines import Conditions
from regimes.storage.prompts import read_prompt_file
from regimes.storage.samples import Sampler, SamplesRecipe, prompts_of
from regimes.storage.seeds import Seeds
from regimes.words import counted

CONFIG = "config.json"
FLAT = tyro.conf.arg(name="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What is generated, and from what."""

    model: str = ""
    """EDM's .pkl or .pt, a .safetensors of this project, a folder saved by a diffusers pipeline or of
    a model artifact; or empirical:SOURCE or wiener:SOURCE, the closed-form denoiser of the images of a
    folder, .zip, .npy, .npz, .parquet, CIFAR-10's archive, or of the word digits; or gaussian:SOURCE or
    gmm:SOURCE, the Gaussian of their mean and covariance, or one per class or several by EM."""
    seeds: str = "0-63"
    """Seeds, as in 0-49999 or 1,2,5-10; one image each."""
    n: int | None = None
    """Number of images: short for --seeds 0-(n-1)."""
    steps: int | None = None
    """Short for --num-steps."""
    class_index: Annotated[int | None, tyro.conf.arg(aliases=["--class"])] = None
    """Class of all images; drawn for every seed if not given. For models with classes."""
    max_images: int | None = None
    """Take only the first images of a closed form's source."""
    batch_size: int = 64
    """Seeds per batch, which is also the unit of work; changes images by rounding only (samples by less
    than 1e-5 from 3 steps on; 2 steps amplify rounding a hundredfold)."""
    noise_device: Literal["cpu", "cuda"] = "cpu"
    """Where noise is drawn; cuda reproduces the images that EDM makes on a GPU."""
    keep_float: Annotated[bool, tyro.conf.arg(name="float")] = False
    """Keep the samples as float64 too, before they are rounded to uint8."""
    scheduler: SchedulerName | None = None
    """For a pipeline's folder: its noise levels, stepped through --num-steps times by ddim, plms,
    dpm-solver++, unipc, euler, heun or ddpm of diffusers. Without it EDM's samplers below are used, and
    for a pipeline of latents (LDM, DiT, Stable Diffusion) the scheduler that it was saved with."""
    eta: float = 0.0
    """Scheduler ddim: noise per step, from 0 (none) to 1 (as much as ddpm)."""
    guidance: float | None = None
    """Pipelines that can be guided: scale w of F(null) + w (F(given) - F(null)), given a class or a prompt;
    1 is unguided. By default 4 for DiT and 7.5 for Stable Diffusion, as in diffusers."""
    prompts: tuple[str, ...] = ()
    """Pipelines that read text: prompts, or a text file with one per line. Seed s is sampled with number
    s mod P of P prompts, counted from 0."""
    negative_prompt: str = ""
    """Pipelines that read text: the prompt that guidance moves away from."""
    mixture: FitConfig = field(default_factory=FitConfig)
    compute: Annotated[Compute, FLAT] = field(default_factory=Compute)
    sampler: Annotated[SamplerConfig, FLAT] = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        Seeds.parse(self.seeds)
        if self.n is not None and (self.n < 1 or self.seeds != "0-63"):
            raise ConfigError(
                f"--n: expected 1 or more images, and no --seeds besides, got {self.n} and {self.seeds}"
            )
        if self.steps is not None and self.sampler.num_steps != SamplerConfig().num_steps:
            raise ConfigError("--steps: the same as --num-steps; pass one of them")
        if self.batch_size < 1:
            raise ConfigError(f"--batch-size: expected at least 1, got {self.batch_size}")

    @property
    def asked_seeds(self) -> Seeds:
        """Seeds, by their list or their number."""
        return Seeds.parse(self.seeds) if self.n is None else Seeds.first(self.n)

    @property
    def asked_sampler(self) -> SamplerConfig:
        """Options of the sampler, with the number of steps by either name."""
        if self.steps is None:
            return self.sampler
        return dataclasses.replace(self.sampler, num_steps=self.steps)

    @property
    def conditions(self) -> Conditions:
        """Guidance and prompts.

        Raises:
            BadSource: if there is no such file of prompts, or none in it.
        """
        prompts = self.prompts
        if len(prompts) == 1 and (prompts[0].endswith(".txt") or os.path.isfile(prompts[0])):
            prompts = read_prompt_file(Path(prompts[0]))
        return Conditions(
            guidance=self.guidance, prompts=prompts, negative_prompt=self.negative_prompt
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination(Execution):
    """Where images go, and how the job runs."""

    output: str = "samples"
    """Folder or URI (s3://..., gs://...) for the images."""
    format: Format = "png"
    """png: a file per seed, 000123.png; npz: samples.npz with the arrays seeds and images;
    parquet: samples.parquet with the columns id and image."""
    subdirs: bool = False
    """Put PNG files into folders of a thousand seeds."""
    store: str | None = None
    """Folder or URI for work in progress and imported models; the output folder if not given."""
    gpus_per_replica: float = 1.0
    """Share of a GPU per generator; or a whole number of GPUs, for a model that does not fit on one: its
    modules are spread over them, for the same images."""

    spreads: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        Execution.__post_init__(self)
        for place in (self.output, self.store or self.output):
            console.check_output(place)
        if self.subdirs and self.format != "png":
            raise ConfigError(f"--subdirs: for --format png, not {self.format}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return console.run_job(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    generation, to = console.read_options(
        argv, [Generation(), Destination()], job="generate", about=__doc__ or ""
    )
    _check(generation, to)
    if to.dry_run:
        _print_plan(generation, to)
        return 0
    store = Store(to.store or to.output)
    recipe = _recipe(store, generation)
    made = ExportRecipe(samples=recipe, format=to.format, subdirs=to.subdirs)
    target = Artifact(Location(to.output), made)
    if not to.resume:
        store.artifact(recipe).remove()
    elif is_exported(target):
        images = counted(len(recipe.seeds), "image")
        print(f"complete: nothing to compute; {images} in {target.location.uri}")
        return 0
    check_target(target, replace=not to.resume)
    about = f"{recipe.denoiser.label}, {counted(len(recipe.seeds), 'seed')}"
    sample_all(store, [recipe], to, about)
    with Stage("write", 0, "file") as stage:
        claim(target, replace=not to.resume)
        clipping = _clipping(store, recipe)
        target.location.write(CONFIG, _config(store, generation, made, clipping).encode())
        export(store.artifact(recipe), target, to.format, subdirs=to.subdirs)
        stage.done(f"{counted(len(recipe.seeds), 'image')} as {to.format} in {target.location.uri}")
    if clipping is not None:
        print(f"clipping  {clipping.words}")
    return 0


def _check(generation: Generation, to: Destination) -> None:
    """Refuse what depends on several options."""
    if not generation.model:
        raise ConfigError(
            "--model: expected a checkpoint, a pipeline's folder, or empirical:SOURCE"
        )
    if generation.keep_float and to.format == "png":
        raise ConfigError("--float: PNG files hold no floats; pass --format npz or parquet")


def _recipe(store: Store, generation: Generation) -> SamplesRecipe:
    """Bring the model into the store, and say what is to be made with it."""
    g = generation
    denoiser, sampler = _model(store, g)
    return SamplesRecipe(
        denoiser=denoiser,
        sampler=sampler,
        seeds=g.asked_seeds,
        seeds_per_unit=generation.batch_size,
        class_index=generation.class_index,
        noise_device=generation.noise_device,
        compute=generation.compute,
        keep_float=generation.keep_float,
    )


def _model(store: Store, g: Generation) -> tuple[DenoiserRecipe | GaussianRecipe, Sampler]:
    """The model in the store, and how it is sampled."""
    if not is_mixture(g.model):
        if g.mixture != FitConfig():
            raise ConfigError("--mixture: for --model gaussian:SOURCE or gmm:SOURCE; leave it out")
        denoiser = import_model(store, g.model, max_images=g.max_images)
        return denoiser, choose_sampler(
            store, denoiser, g.asked_sampler, g.scheduler, g.eta, g.conditions
        )
    if g.asked_sampler != SamplerConfig() or g.scheduler is not None or g.eta:
        raise ConfigError(
            f"--model {g.model}: draws its samples directly; leave samplers, steps and schedulers out"
        )
    if g.guidance is not None or g.prompts or g.negative_prompt:
        raise ConfigError(
            "--guidance, --prompts, --negative-prompt: of DiT and Stable Diffusion pipelines; leave them out"
        )
    return import_mixture(store, g.model, g.mixture, max_images=g.max_images), DirectSampler()


def _clipping(store: Store, recipe: SamplesRecipe) -> QuantisationError | None:
    """What storing a mixture's samples as images does to their moments."""
    if not isinstance(recipe.denoiser, GaussianRecipe):
        return None
    seeds = recipe.seeds.block(0, len(recipe.seeds))
    return clipping_error(store, recipe.denoiser, seeds, recipe.class_index)


def _config(
    store: Store, generation: Generation, made: ExportRecipe, clipping: QuantisationError | None
) -> str:
    about: dict[str, object] = {"model": generation.model, "recipe": made}
    prompts = prompts_of(store, made.samples)
    if prompts:
        about |= {"prompts": prompts, "prompt_of_a_seed": "number seed mod P"}
    return to_json(about if clipping is None else about | {"clipping": clipping})


def _print_plan(generation: Generation, to: Destination) -> None:
    """What would be done, and how long one thread of this machine would take; nothing is kept."""
    store = Store(f"memory://{uuid.uuid4().hex}")
    try:
        recipe = _recipe(store, generation)
        cost = sampling_cost(store, recipe)
    finally:
        store.root.remove()
    channels, height, width = cost.image_shape
    count, evaluations = len(recipe.seeds), recipe.sampler.num_evaluations
    print(f"model     {recipe.denoiser.label}, {cost.about}")
    images, each = counted(count, "image"), counted(evaluations, "evaluation")
    print(f"samples   {images} {width}x{height}x{channels}, {each} each")
    print(f"time      {duration(cost.seconds)} on one thread of this machine; writing not counted")
    print(f"storage   {cost.num_bytes / 1e6:.1f} MB at most")
    print(f"output    {Location(to.output).uri} as {to.format}")


if __name__ == "__main__":
    console.leave(main())
