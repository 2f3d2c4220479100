"""Guided sampling: Euler, Heun or DDIM steps with a repulsive force between particles of a group.

    d = (x - D) / sigma,   x' = x + (sigma' - sigma) (d - s F)

with the same expressions, in the same order, as ``samplers.edm``: with factor 0 or one particle per
group the plain sampler itself runs, and guidance draws no random numbers. A DDIM step of eta > 0 is
an Euler step to sigma_down and noise of standard deviation sigma_up,

    sigma_up = eta sigma' sqrt(1 - sigma'^2 / sigma^2),   sigma_down^2 = sigma'^2 - sigma_up^2

(Song et al. 2021, arXiv 2010.02502, equation 12, for x / sqrt(abar)); eta = 0 is Euler's step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regimes.errors import ConfigError
from regimes.guidance.config import GuidanceConfig
from regimes.guidance.kernels import Dissimilarity, group_forces
from regimes.noise import SeedNoise
from regimes.samplers.edm import SampledDenoiser, SamplerConfig, sample

FeatureMap = Callable[[Tensor], Tensor]
"""(B, C, H, W) images, about in [-1, 1] -> (B, F) features, differentiable."""
OnStep = Callable[[float, Tensor, Tensor], None]
"""(sigma, x, D(x)), both (B, C, H, W), at the start of every step."""


def guided_sample(
    denoiser: SampledDenoiser,
    latents: Tensor,
    *,
    config: SamplerConfig,
    guidance: GuidanceConfig,
    class_labels: Tensor | None = None,
    step_noise: Callable[[], Tensor] | None = None,
    features: FeatureMap | None = None,
    dissimilarity: Dissimilarity | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Map latents to samples, groups of particles repelling each other.

    Args:
        denoiser: the model.
        latents: (G B, C, H, W), standard normal; the first B rows are the first group, and so on.
        config: solver euler or heun in EDM's time and scale, with or without churn.
        guidance: the repulsion.
        class_labels: (G B, L) float32 one-hot rows, or None.
        step_noise: returns (G B, C, H, W) float64, standard normal; called once per step, and only if
            there is churn or ``guidance.eta > 0``.
        features: what particles are compared by in space features.
        dissimilarity: the kernel custom.
        on_step: called with what a trajectory is made of; it changes nothing.

    Returns:
        (G B, C, H, W) float64 samples.

    Raises:
        ValueError: if rows are not whole groups, or a callable that is needed is missing.
        ConfigError: if sampler and guidance cannot be had together.

    Cost: beyond the plain sampler, one evaluation of the forces per guided evaluation of D.
    """
    check_together(config, guidance)
    _check_given(len(latents), config, guidance, step_noise, features, dissimilarity)
    if guidance.is_plain and guidance.eta == 0 and on_step is None:
        return sample(
            denoiser, latents, config=config, class_labels=class_labels, step_noise=step_noise
        )
    flow = _GuidedFlow(
        denoiser=denoiser,
        class_labels=class_labels,
        guidance=guidance,
        features=features,
        dissimilarity=dissimilarity,
    )
    return _integrate(flow, latents, config, step_noise, on_step)


def check_together(config: SamplerConfig, guidance: GuidanceConfig) -> None:
    """Refuse a sampler that cannot be guided.

    Raises:
        ConfigError: if so.
    """
    if config.solver not in ("euler", "heun"):
        raise ConfigError(f"solver: guidance steps by euler or heun, got {config.solver}")
    if (config.schedule, config.scaling) != ("linear", "none"):
        raise ConfigError(
            "schedule, scaling: guidance steps in sigma; expected linear and none, "
            f"got {config.schedule} and {config.scaling}"
        )
    if not guidance.corrector and config.solver == "euler":
        raise ConfigError("corrector: solver euler has none; leave it out, or take solver heun")
    if guidance.eta > 0 and (config.solver != "euler" or config.s_churn > 0):
        raise ConfigError("eta: is DDIM's noise; expected solver euler without churn, or eta 0")


def _check_given(
    rows: int,
    config: SamplerConfig,
    guidance: GuidanceConfig,
    step_noise: Callable[[], Tensor] | None,
    features: FeatureMap | None,
    dissimilarity: Dissimilarity | None,
) -> None:
    if rows % guidance.group_size:
        raise ValueError(
            f"latents: expected whole groups of {guidance.group_size} particles, got {rows} rows"
        )
    if (guidance.eta > 0 or config.s_churn > 0) and step_noise is None:
        raise ValueError("s_churn > 0 and eta > 0 need step_noise")
    if not guidance.is_plain and (guidance.space == "features") != (features is not None):
        raise ValueError("features: expected in space features, and only there")
    if not guidance.is_plain and (guidance.kernel == "custom") != (dissimilarity is not None):
        raise ValueError("dissimilarity: expected with kernel custom, and only with it")


@dataclass(frozen=True, slots=True, kw_only=True)
class _GuidedFlow:
    """The right-hand side: a denoiser and the repulsion of its estimates."""

    denoiser: SampledDenoiser
    class_labels: Tensor | None
    guidance: GuidanceConfig
    features: FeatureMap | None
    dissimilarity: Dissimilarity | None

    def slopes(
        self, x: Tensor, sigma: Tensor, progress: float, *, guided: bool = True
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """d, -s F (None outside the window), and D; one evaluation."""
        g = self.guidance
        guided = guided and not g.is_plain and g.guides_at(float(sigma))
        exact = guided and g.jacobian == "exact"
        with torch.set_grad_enabled(exact):
            leaf = x.detach().requires_grad_(exact)
            D = self.denoiser(leaf, sigma, self.class_labels)
        d = (x - D.detach()) / sigma
        if not guided:
            return d, None, D.detach()
        force = self._force(leaf, D, float(sigma))
        return d, -_scaled(force, d, g, float(sigma), progress), D.detach()

    def _force(self, x: Tensor, D: Tensor, sigma: float) -> Tensor:
        """-dU/dx, or -dU/dD where the Jacobian is taken as 1."""
        if self.guidance.space == "x":
            return self._of(x.detach(), sigma)
        of = self._of if self.features is None else self._of_features
        force = of(D.detach(), sigma)
        if self.guidance.jacobian == "exact":
            (force,) = torch.autograd.grad(D, x, force.to(D.dtype))
        return force.to(torch.float64)

    def _of(self, z: Tensor, sigma: float) -> Tensor:
        """Forces on z itself, in its shape."""
        rows = z.to(torch.float64).reshape(-1, self.guidance.group_size, z[0].numel())
        return group_forces(rows, self.guidance, sigma, self.dissimilarity).reshape(z.shape)

    def _of_features(self, D: Tensor, sigma: float) -> Tensor:
        """Forces on features of D, pulled back by a vector-Jacobian product."""
        assert self.features is not None
        with torch.enable_grad():
            leaf = D.requires_grad_()
            z = self.features(leaf)
        force = self._of(z.detach(), sigma)
        return torch.autograd.grad(z, leaf, force.to(z.dtype))[0]

    def moved(self, x: Tensor, shift: Tensor) -> Tensor:
        """Where a displacement by guidance leads, relative to x.

        The angular kernel in space x turns particles about the origin by |shift| / |x|: a straight
        step along the tangent would also throw them outwards.
        """
        if self.guidance.kernel != "angular" or self.guidance.space != "x":
            return shift
        rows, along = x.flatten(1), shift.flatten(1)
        radius, length = rows.norm(dim=1, keepdim=True), along.norm(dim=1, keepdim=True)
        angle = length / radius.clamp(min=1e-12)
        tangent = along / length.clamp(min=1e-300) * radius
        return (rows * (angle.cos() - 1) + tangent * angle.sin()).reshape(x.shape)


def _scaled(
    force: Tensor, d: Tensor, guidance: GuidanceConfig, sigma: float, progress: float
) -> Tensor:
    """Guidance s F: the schedule, then what refers to the length of the slope, group by group."""
    scaled = guidance.schedule(sigma, progress) * force
    if guidance.strength != "relative" and guidance.cap is None:
        return scaled
    size = guidance.group_size
    rows = scaled.reshape(-1, size * scaled[0].numel())
    slope = d.to(torch.float64).reshape(rows.shape).norm(dim=1, keepdim=True)
    length = rows.norm(dim=1, keepdim=True)
    wanted = guidance.factor * slope if guidance.strength == "relative" else length
    if guidance.cap is not None:
        wanted = torch.minimum(wanted, guidance.cap * slope)
    # Forces that vanish (particles far apart, or coinciding) are left at that.
    ratio = torch.where(length > 0, wanted / length.clamp(min=1e-300), 0.0)
    return (rows * ratio).reshape(scaled.shape)


def _integrate(
    flow: _GuidedFlow,
    latents: Tensor,
    config: SamplerConfig,
    step_noise: Callable[[], Tensor] | None,
    on_step: OnStep | None,
) -> Tensor:
    sigmas = config.sigmas(flow.denoiser).to(latents.device)
    x = latents.to(torch.float64) * sigmas[0]
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        if step_noise is not None and config.s_churn > 0:
            x, sigma = _churn(flow, x, sigma, step_noise(), config)
        target, up = _ddim_levels(sigma, sigma_next, flow.guidance.eta)
        progress = i / config.num_steps, (i + 1) / config.num_steps
        d, g, D = flow.slopes(x, sigma, progress[0])
        if on_step is not None:
            on_step(float(sigma), x, D)
        x_next = _stepped(flow, x, target - sigma, d, g)
        if config.solver == "heun" and sigma_next > 0:
            wanted = flow.guidance.corrector
            d_next, g_next, _ = flow.slopes(x_next, sigma_next, progress[1], guided=wanted)
            g = _mean(g, g_next) if wanted else g
            x_next = _stepped(flow, x, target - sigma, (d, d_next), g)
        if up > 0 and step_noise is not None:
            x_next = x_next + up * step_noise().to(x.device)
        x = x_next
    return x


def _stepped(
    flow: _GuidedFlow,
    x: Tensor,
    step: Tensor,
    d: Tensor | tuple[Tensor, Tensor],
    g: Tensor | None,
) -> Tensor:
    """A step along d, or the mean of two; bit for bit that of the plain sampler if g is None."""
    x_next = x + step * d if isinstance(d, Tensor) else x + step * (d[0] + d[1]) / 2
    return x_next if g is None else x_next + flow.moved(x, step * g)


def _mean(g: Tensor | None, g_next: Tensor | None) -> Tensor | None:
    """Heun's mean of two slopes; outside the window a slope is 0."""
    if g is None or g_next is None:
        only = g if g_next is None else g_next
        return None if only is None else only / 2
    return (g + g_next) / 2


def _ddim_levels(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """sigma_down and sigma_up."""
    if eta == 0:
        return sigma_next, torch.zeros_like(sigma_next)
    up = eta * sigma_next * (1 - (sigma_next / sigma) ** 2).sqrt()
    return (sigma_next**2 - up**2).sqrt(), up


def _churn(
    flow: _GuidedFlow, x: Tensor, sigma: Tensor, noise: Tensor, config: SamplerConfig
) -> tuple[Tensor, Tensor]:
    """As in the plain sampler."""
    sigma_hat = flow.denoiser.round_sigma(config.churned(sigma))
    added = (sigma_hat**2 - sigma**2).sqrt() * config.s_noise
    return x + added * noise.to(x.device), sigma_hat


def guided_sample_seeds(
    denoiser: SampledDenoiser,
    seeds: Sequence[int],
    image_shape: tuple[int, int, int],
    *,
    config: SamplerConfig,
    guidance: GuidanceConfig,
    groups_per_batch: int | None = None,
    features: FeatureMap | None = None,
    dissimilarity: Dissimilarity | None = None,
    on_step: OnStep | None = None,
    device: str = "cpu",
) -> Tensor:
    """Samples of the given seeds in consecutive groups, each determined by the seeds of its group.

    Args:
        denoiser: an unconditional model, on ``device``.
        seeds: G B integers.
        image_shape: (C, H, W) of one sample.
        config: sampler options.
        guidance: the repulsion.
        groups_per_batch: computed at a time; None takes all. Changes samples by rounding only.
        features: see ``guided_sample``; as ``dissimilarity`` and ``on_step``.
        dissimilarity: see there.
        on_step: see there.
        device: where the denoiser computes.

    Returns:
        (G B, C, H, W) float64 on the CPU, in the order of ``seeds``.

    Raises:
        ValueError, ConfigError: as ``guided_sample``.
    """
    step = (groups_per_batch or max(len(seeds), 1)) * guidance.group_size
    batches = []
    for start in range(0, len(seeds), step):
        noise = SeedNoise(seeds[start : start + step], image_shape)
        latents = noise.latents().to(device)
        with torch.no_grad():
            x = guided_sample(
                denoiser,
                latents,
                config=config,
                guidance=guidance,
                step_noise=noise.step,
                features=features,
                dissimilarity=dissimilarity,
                on_step=on_step,
            )
        batches.append(x.cpu())
    return torch.cat(batches) if batches else torch.empty((0, *image_shape), dtype=torch.float64)
