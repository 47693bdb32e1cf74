"""`check_dm2_learner`: does a learner follow Algorithm 1, measured from outside?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks
from dm2_wrappers.testing import verdicts
from dm2_wrappers.testing.bait_env import BaitEnv, experts, places, steps_played
from dm2_wrappers.testing.faults import require
from dm2_wrappers.testing.following import check_following, check_without_matching
from dm2_wrappers.testing.spy import SpiedMatcher

Train = Callable[..., Callable[[dict[str, Any]], dict[str, Any]]]

# Experts' directions; the second run has the mirrored ones. The environment's bait is to the right, 1, for all agents.
DIRECTIONS = (1, -1, -1)
MIRRORED = (-1, 1, 1)
AGAINST_THE_BAIT = (-1, -1, -1)
# Large, so that a learner that leaves the environment's reward in goes for it; and small, so that one that pays r_gail
# although c is 0 does not.
LARGE_BAIT, SMALL_BAIT = 10.0, 0.5


@dataclass(frozen=True)
class LearnerReport:
    """What `check_dm2_learner` measured of a learner that passed.

    Attributes:
        heard: Share of the environments' steps that the matcher recorded, 1 if all.
        moved: How far the agent that follows its experts least goes their way, 0 (not at all) to 1.
        exact: Whether no reward was paid before the discriminators had learned from a rollout.
        trainings: How often the discriminators were trained, in the run with the fewest.
        steps: Joint environment steps of all runs.
        seconds: Of the whole check.
    """

    heard: float
    moved: float
    exact: bool
    trainings: int
    steps: int
    seconds: float


@dataclass
class _Run:
    """One call of ``train``: its environments, its matcher and where its policy goes."""

    matcher: SpiedMatcher | None
    played: list[int]
    places: NDArray[np.float64]
    policy: Any


def check_dm2_learner(train: Train, *, seed: int = 0, steps: int = 9_600, exact: bool | None = None) -> LearnerReport:
    """Check that a learner follows the paper's Algorithm 1; see docs/testing.md for all that is checked.

    The learner is trained three times on a tiny environment that pays only a bait: with experts and
    ``env_coefficient=0``, with mirrored experts, and with ``coefficient=0`` (half the steps).

    Args:
        train: ``train(make_env, make_matcher, *, coefficient, env_coefficient, steps, seed) -> policy``. ``make_env()``
            makes a PettingZoo ``ParallelEnv`` (it can be pickled); ``make_matcher()`` makes the `DistributionMatcher` and
            may be called once, in this process. ``steps`` are joint environment steps, summed over sub-environments; at
            least 8 rollouts should fit. ``policy({agent: observation}) -> {agent: action}`` may sample. If it has an
            attribute ``matcher_state``, a function, this must save the learner, load it, and return the ``state_dict`` of
            the loaded learner's matcher. Do not evaluate in ``train``: all steps count.
        seed: Of experts, discriminators and learner.
        steps: Of each of the first two runs.
        exact: True: refuse a reward that is paid before the discriminators have learned from its rollout. False: do not.
            None: allow it only for rewards that are paid step by step, as the wrappers do.

    Returns:
        What was measured.

    Raises:
        AssertionError: The learner does something else; one sentence says what.
        ValueError: An argument that cannot work.
        Exception: Whatever ``train`` raises.
    """
    seed = _checks.integer("seed", seed, least=0)
    steps = _checks.integer("steps", steps, least=800)
    started = time.perf_counter()
    first, second = (
        _run(train, directions, LARGE_BAIT, steps, seed, coefficient=1.0, env_coefficient=0.0, exact=exact)
        for directions in (DIRECTIONS, MIRRORED)
    )
    moved = check_following(first.places, DIRECTIONS, second.places)
    third = _run(train, AGAINST_THE_BAIT, SMALL_BAIT, steps // 2, seed, coefficient=0.0, env_coefficient=1.0)
    check_without_matching(third.places)
    matchers = [run.matcher for run in (first, second) if run.matcher is not None]
    return LearnerReport(
        heard=min(verdicts.share_heard(matcher, run.played) for matcher, run in zip(matchers, (first, second), strict=True)),
        moved=moved,
        exact=not any(verdicts.paid_untrained(matcher) for matcher in matchers),
        trainings=min(matcher.trainings for matcher in matchers),
        steps=sum(sum(run.played) for run in (first, second, third)),
        seconds=time.perf_counter() - started,
    )


# What the functions given to ``train`` need and must not carry: they may be copied, and pickled into other processes.
_matchers: dict[str, list[SpiedMatcher]] = {}


def _make_matcher(tally: str, directions: tuple[int, ...], seed: int) -> SpiedMatcher:
    made = _matchers.get(tally)
    if made is None:
        raise AssertionError(
            "make_matcher() was called in another process, where training would not reach the matcher: call it in the "
            "process that runs train"
        )
    require(
        not made,
        "make_matcher() was called twice: all agents and sub-environments share one matcher, because each of several would "
        "be trained on a slice of the data",
    )
    # So that a whole check takes less than a minute: the discriminators learn fast on five features.
    options: dict[str, Any] = {"updates": 15, "batch_size": 64, "hidden": (32, 32), "learning_rate": 1e-2}
    options["buffer_size"] = 4096  # the newest rollouts
    made.append(SpiedMatcher(experts(directions, seed), tally=tally, seed=seed, **options))
    return made[0]


def _run(
    train: Train,
    directions: tuple[int, ...],
    bait: float,
    steps: int,
    seed: int,
    *,
    coefficient: float,
    env_coefficient: float,
    exact: bool | None = None,
) -> _Run:
    """Train once. With a coefficient, everything that can be said of this run alone is checked."""
    with tempfile.TemporaryDirectory(prefix="dm2_learner_check_") as folder:
        tally = str(Path(folder) / "steps")
        Path(tally).touch()
        _matchers[tally] = []
        try:
            policy = train(
                partial(BaitEnv, bait, tally),
                partial(_make_matcher, tally, directions, seed),
                coefficient=coefficient,
                env_coefficient=env_coefficient,
                steps=steps,
                seed=seed,
            )
        finally:
            made = _matchers.pop(tally)
        played = steps_played(tally)
        matcher = made[0] if made else None
        verdicts.check_steps(sum(played), steps, matcher)
        if coefficient:
            verdicts.check_checkpoint(verdicts.check_matcher(matcher, played, exact), policy)
    require(
        callable(policy),
        f"train must return a function policy({{agent: observation}}), but returned {type(policy).__name__}",
    )
    return _Run(matcher, played, places(policy), policy)
