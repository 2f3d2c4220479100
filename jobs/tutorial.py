"""A first hour with diffusion: four experiments whose exact answers are known, checked number by number.

python jobs/tutorial.py
python jobs/tutorial.py --experiments gaussian --start exact --noise posterior
python jobs/tutorial.py --experiments swiss-roll --training-steps 0

A bell curve, one point, two points, and a spiral that a small network learns. Each is sampled with
DDPM and DDIM and compared with what theory says; the exit status is 1 if a number is off. There is
no Ray here: the whole tutorial is a minute of arithmetic on two cores, less than it takes to start
workers and share it out.
"""

from __future__ import annotations

from collections.abc import Sequence

from regimes.jobs.support import console
from regimes.jobs.support.tutorial.experiment import (
    SAMPLES,
    Name,
    TutorialExperiment,
    TutorialRun,
    run_lesson,
)
from regimes.jobs.support.tutorial.results import TutorialResults


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit status: 0 if every check passed."""
    return console.run_job(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    experiment, run = console.read_options(
        argv, [TutorialExperiment(), TutorialRun()], job="tutorial", about=__doc__ or ""
    )
    results = TutorialResults(run, experiment)
    if run.dry_run:
        _print_plan(experiment, results)
        return 0
    if run.resume:
        results.check_name()
    else:
        results.remove()
    if results.is_complete():
        print("complete: nothing to compute")
    else:
        results.write([run_lesson(experiment, name) for name in _ordered(experiment)])
    return 0 if results.print_summary() else 1


def _ordered(experiment: TutorialExperiment) -> list[Name]:
    """The lessons asked for, easiest first."""
    return [name for name in SAMPLES if name in experiment.experiments]


def _print_plan(experiment: TutorialExperiment, results: TutorialResults) -> None:
    """What would be done."""
    for name in _ordered(experiment):
        trained = f", {experiment.training_steps} training steps" if name == "swiss-roll" else ""
        print(f"{name:<11}{experiment.setting(name).count:,} samples{trained}")
    print("time       about a minute on two cores with the default options")
    print(f"results    {results.location.uri}")


if __name__ == "__main__":
    console.leave(main())
