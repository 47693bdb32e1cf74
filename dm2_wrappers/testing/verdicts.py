"""What `check_dm2_learner` concludes from a matcher's books: what was recorded, trained and paid."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dm2_wrappers.matching import DistributionMatcher
from dm2_wrappers.testing.bait_env import AGENTS, BRIEF_STEPS, LIFETIMES, STEPS
from dm2_wrappers.testing.faults import names, require
from dm2_wrappers.testing.spy import UNKNOWN, ZEROS, Seen, SpiedMatcher

LEAST_TRAININGS = 8
HEARD = (0.85, 1.05)  # share of each agent's steps


def share_heard(matcher: SpiedMatcher, played: Sequence[int]) -> float:
    """Which share of the observations that agents acted from was recorded."""
    return float(matcher.recorded.live.sum() / _live(played).sum())


def paid_untrained(matcher: SpiedMatcher) -> bool:
    """Whether a reward was paid by discriminators that had learned nothing yet."""
    return any(payment.version == 0 for payment in matcher.payments)


def check_steps(played: int, steps: int, matcher: SpiedMatcher | None) -> None:
    """The learner plays the environments that it was given, for about as many steps as it was told."""
    heard = 0 if matcher is None else int(matcher.recorded.total.max())
    require(
        played or not heard,
        f"the matcher recorded {heard} steps, but no environment that make_env() makes was stepped: train on these "
        "environments, not on others",
    )
    require(
        played >= 0.75 * steps,
        f"the learner played {played} joint steps instead of {steps}: train on make_env()'s environments, and count joint "
        "steps, summed over sub-environments",
    )
    require(
        played <= 2 * steps,
        f"the learner played {played} joint steps instead of {steps}: count the steps of all sub-environments, and do not "
        "evaluate in train",
    )


def check_matcher(matcher: SpiedMatcher | None, played: Sequence[int], exact: bool | None) -> SpiedMatcher:
    """What was recorded, trained and paid is what Algorithm 1 says."""
    if matcher is None:
        raise AssertionError("make_matcher() was never called: the learner trains on the environment's reward alone")
    recorded, paid = matcher.recorded, matcher.paid
    require(
        recorded.total.any() or paid.total.any(),
        "the matcher was made but never used: the learner trains on the environment's reward alone",
    )
    require(recorded.total.any(), "nothing was recorded: hand what the agents see to the matcher, with record()")
    _check_observations("recorded", recorded)
    _check_all_agents("recorded", recorded, "observation")
    _check_shares(recorded, played)
    _check_trainings(matcher)
    require(
        paid.total.any(),
        "the matcher was trained but never asked for a reward: something else pays the agents, such as a copy of the "
        "discriminators that is detached from the trained ones",
    )
    _check_observations("paid", paid)
    _check_all_agents("paid", paid, "reward")
    _check_payments(matcher, exact)
    return matcher


def check_checkpoint(matcher: SpiedMatcher, policy: Any) -> None:
    """A checkpoint brings the discriminators back bit for bit: the learner's own if it has one, else the matcher's."""
    own = getattr(policy, "matcher_state", None)
    state = matcher.state_dict()
    restored = _saved_and_loaded(matcher, state).state_dict() if own is None else own()
    require(
        all(_same(restored[part], state[part]) for part in ("discriminators", "offsets")),
        "a checkpoint does not bring the discriminators back as they were: save matcher.state_dict() and load it again",
    )


def _live(played: Sequence[int]) -> NDArray[np.int64]:
    """From how many observations each agent acted, given how often each time of an episode was played, [K]."""
    return np.array([sum(played[:life]) for life in LIFETIMES])


def _check_observations(verb: str, seen: Seen) -> None:
    """Only observations before an action, as the environment returned them, under the right name."""
    for agent, other in zip(AGENTS, seen.other, strict=True):
        for name in AGENTS:
            require(
                not other[name],
                f"{other[name]} observations of {name!r} were {verb} as those of {agent!r}: the agents are swapped",
            )
    firsts, finals = int(seen.at[:, 0].sum()), int(seen.at[:, STEPS].sum())
    require(
        firsts or not finals,
        f"the observations after each action were {verb}, and never the first of an episode: use the observation before the "
        "action, not the next observation",
    )
    late = int(seen.at[-1, BRIEF_STEPS:].sum()) + seen.other[-1][ZEROS]
    require(
        not late,
        f"{late} observations of {AGENTS[-1]!r} were {verb} that it did not act from, because it is gone {BRIEF_STEPS} "
        f"steps into an episode of {STEPS}: leave out agents that are dead or gone",
    )
    require(
        not finals,
        f"{finals} observations from after an episode's last step were {verb}: no action follows them, so leave them out",
    )
    for agent, other in zip(AGENTS, seen.other, strict=True):
        require(not other[ZEROS], f"{other[ZEROS]} observations of {agent!r} that were {verb} are zeros: leave out padding")
        require(
            not other[UNKNOWN],
            f"{other[UNKNOWN]} observations of {agent!r} that were {verb} never came from the environment: give the matcher "
            "the environment's own observations, not normalized or stacked ones",
        )


def _check_all_agents(verb: str, seen: Seen, what: str) -> None:
    missing = [agent for agent, number in zip(AGENTS, seen.live, strict=True) if not number]
    if missing:
        who = "any agent but the last" if missing == list(AGENTS[:-1]) else names(missing)
        raise AssertionError(f"no {what} of {who} was {verb}: every agent needs its own")


def _check_shares(recorded: Seen, played: Sequence[int]) -> None:
    """Every step is recorded, and once."""
    for agent, share in zip(AGENTS, recorded.live / _live(played), strict=True):
        require(
            share >= HEARD[0],
            f"only {share:.0%} of the steps of {agent!r} were recorded: the matcher must get a whole rollout, not a slice "
            "of it, from every sub-environment",
        )
        require(share <= HEARD[1], f"{share:.0%} of the steps of {agent!r} were recorded: record each step once, not twice")


def _check_trainings(matcher: SpiedMatcher) -> None:
    require(
        matcher.trainings or not matcher.updates_without_effect,
        f"update() was called {matcher.updates_without_effect} times with new steps, but did not change the discriminators: "
        "they are frozen",
    )
    require(matcher.trainings, "the discriminators were never updated: call update() after each rollout")
    require(matcher.trainings > 1, "the discriminators were updated only once: call update() after each rollout")
    require(
        matcher.trainings >= LEAST_TRAININGS,
        f"the discriminators were updated only {matcher.trainings} times: call update() after each rollout, and choose "
        f"rollouts of which at least {LEAST_TRAININGS} fit into the steps",
    )


def _check_payments(matcher: SpiedMatcher, exact: bool | None) -> None:
    """The present discriminators pay, after they have learned from the rollout or step by step."""
    versions = {payment.version for payment in matcher.payments}
    require(
        len(versions) >= LEAST_TRAININGS - 1,
        f"the discriminators were updated {matcher.trainings} times, but rewards came from only {len(versions)} of their "
        "states: rewards come from frozen discriminators",
    )
    untrained = [payment for payment in matcher.payments if payment.version == 0]
    if exact is None:
        # Who pays step by step asks for each step's reward at once; a rollout that is paid as a whole has waited longer.
        untrained = [payment for payment in untrained if payment.unpaid_steps > 0.5 * matcher.first_training_at]
    require(
        exact is False or not untrained,
        "rewards of the first rollout were paid before the update: call update() before rewards(), so that the "
        "discriminators have learned from what they pay for",
    )
    for version, snapshot in matcher.snapshots.items():
        again = _saved_and_loaded(matcher, snapshot.state).rewards(snapshot.observations, snapshot.alive)
        require(
            np.array_equal(again, snapshot.paid),
            f"after {version} updates the matcher paid rewards that differ by up to {np.abs(again - snapshot.paid).max():g} "
            "from what its saved state pays: something changed its rewards or its networks",
        )


def _saved_and_loaded(matcher: SpiedMatcher, state: dict[str, Any]) -> DistributionMatcher:
    """A new matcher that continues from a saved state, by way of a file's bytes."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    fresh = DistributionMatcher(matcher.demonstrations, **matcher.options)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def _same(one: Any, other: Any) -> bool:
    """Whether two saved states are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
