"""What the tutorial is made of: its options, and which lesson runs with what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from regimes.errors import ConfigError
from regimes.jobs.support.console import Stage, check_name, check_output, default_output
from regimes.studies.checks import Lesson
from regimes.studies.tutorial import Setting, gaussian, one_point
from regimes.studies.tutorial_points import STEPS, two_points
from regimes.studies.tutorial_roll import swiss_roll
from regimes.toys.diffusion import Noise, Start
from regimes.toys.predictor import PredictorConfig

Name = Literal["gaussian", "one-point", "two-points", "swiss-roll"]
SAMPLES: dict[Name, int] = {
    "gaussian": 100_000,
    "one-point": 1000,
    "two-points": 100_000,
    "swiss-roll": 1000,
}
"""Samples per lesson, if not given; in the order in which lessons run."""
FEWEST = 100
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TutorialExperiment:
    """What is sampled, and how."""

    experiments: tuple[Name, ...] = tuple(SAMPLES)
    """Which lessons."""
    samples: int | None = None
    """Samples of each lesson; by default 100000 (gaussian, two-points) or 1000 (the others)."""
    seed: int = 0
    """Of all random numbers."""
    start: Start = "published"
    """published: from pure noise, as is usual; exact: from noised data, as would be right."""
    noise: Noise = "published"
    """Of DDPM. published: variance sigma_q^2/T in every step, the last too; posterior: the variance
    that the next point has, given the present one."""
    training_steps: int = PredictorConfig().steps
    """Of the network of swiss-roll; 0 shows what the checks say of an untrained one."""

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        if not self.experiments or len(set(self.experiments)) < len(self.experiments):
            raise ConfigError(
                f"--experiments: expected each of {', '.join(SAMPLES)} once at most, got "
                f"{' '.join(self.experiments) or 'none'}"
            )
        if self.samples is not None and self.samples < FEWEST:
            raise ConfigError(f"--samples: expected at least {FEWEST}, got {self.samples}")
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise ConfigError(f"--seed: expected an integer from 0 to 2^63 - 1, got {self.seed}")
        if self.training_steps < 0:
            raise ConfigError(f"--training-steps: expected at least 0, got {self.training_steps}")

    def setting(self, name: Name) -> Setting:
        """What a lesson runs with."""
        count = SAMPLES[name] if self.samples is None else self.samples
        return Setting(count=count, seed=self.seed, start=self.start, noise=self.noise)


@dataclass(frozen=True, slots=True, kw_only=True)
class TutorialRun:
    """Where the tutorial puts its results."""

    output: str = field(default_factory=default_output)
    """Folder or URI (s3://..., gs://...) for the results; $REGIMES_OUTPUT if it is set."""
    name: str | None = None
    """Name of the result folder; made from seed and options if not given."""
    resume: bool = True
    """Keep complete results; --no-resume computes them again."""
    dry_run: bool = False
    """Print what would be done, and stop."""

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        check_name(self.name)
        check_output(self.output)


def run_lesson(experiment: TutorialExperiment, name: Name) -> Lesson:
    """Run one lesson, with its line on the console."""
    setting = experiment.setting(name)
    config = PredictorConfig(steps=experiment.training_steps)
    total, unit = {"two-points": (len(STEPS), "run"), "swiss-roll": (config.steps, "step")}.get(
        name, (0, "")
    )
    with Stage(name, total, unit) as stage:
        lessons: dict[Name, Callable[[], Lesson]] = {
            "gaussian": lambda: gaussian(setting),
            "one-point": lambda: one_point(setting),
            "two-points": lambda: two_points(setting, stage.advance),
            "swiss-roll": lambda: swiss_roll(setting, config, stage.advance),
        }
        lesson = lessons[name]()
        failed = sum(not check.passed for check in lesson.checks)
        stage.done(
            f"{setting.count:,} samples: {len(lesson.checks) - failed} checks ok, {failed} failed"
        )
    return lesson
