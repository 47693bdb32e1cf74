"""What `check_dm2_learner` concludes from a run: each function raises an `AssertionError` for the fault it finds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dm2_wrappers.matching import DistributionMatcher
from dm2_wrappers.testing.bait_env import AGENTS, BRIEF_STEPS, LIFETIMES, STEPS
from dm2_wrappers.testing.spy import UNKNOWN, ZEROS, Seen, SpiedMatcher

LEAST_TRAININGS = 8
HEARD = (0.85, 1.05)  # share of the environments' steps
FOLLOWS = 0.25  # an agent that goes at least this far its experts' way follows them; experts go 0.9


def expected_live(played: Sequence[int]) -> NDArray[np.int64]:
    """From how many observations each agent acted, given how often each time of an episode was played, [K]."""
    return np.array([sum(played[:life]) for life in LIFETIMES])


def share_heard(matcher: SpiedMatcher, played: Sequence[int]) -> float:
    """Which share of what the agents acted from was recorded."""
    return float(matcher.recorded.live.sum() / expected_live(played).sum())


def paid_untrained(matcher: SpiedMatcher) -> bool:
    """Whether a reward was paid by discriminators that had learned nothing yet."""
    return any(payment.version == 0 for payment in matcher.payments)


def check_steps(played: int, steps: int, matcher: SpiedMatcher | None) -> None:
    """The learner plays the environments that it was given, for about as many steps as it was told."""
    heard = 0 if matcher is None else int(matcher.recorded.total.max())
    assert played or not heard, (
        f"the matcher recorded {heard} steps, but the environments that make_env() makes were never stepped: train on them, "
        "not on an environment of another making"
    )
    assert played >= 0.75 * steps, (
        f"the learner played {played} joint steps of {steps}: train on make_env()'s environments for as many joint steps, "
        "summed over sub-environments"
    )
    assert played <= 2 * steps, (
        f"the learner played {played} joint steps instead of {steps}: count them over all sub-environments, once for all "
        "agents together, and do not evaluate in train"
    )


def check_matcher(matcher: SpiedMatcher | None, played: Sequence[int], exact: bool | None) -> None:
    """What was recorded, trained and paid is what Algorithm 1 says."""
    assert matcher is not None, "make_matcher() was never called: the learner trains on the environment's reward alone"
    assert matcher.recorded.total.any() or matcher.paid.total.any() or matcher.trainings, (
        "the matcher was made but never used: the learner trains on the environment's reward alone"
    )
    _check_observations("recorded", matcher.recorded)
    _check_all_agents("recorded", matcher.recorded, "observation")
    _check_shares(matcher, played)
    _check_trainings(matcher)
    assert matcher.paid.total.any(), (
        "the matcher was trained but never asked for a reward: the agents are paid by something else, such as a copy of the "
        "discriminators that nobody trains"
    )
    _check_observations("paid", matcher.paid)
    _check_all_agents("paid", matcher.paid, "reward")
    _check_payments(matcher, exact)


def _check_observations(verb: str, seen: Seen) -> None:
    """Only observations before an action, under the right name."""
    for agent, other in zip(AGENTS, seen.other, strict=True):
        for name in AGENTS:
            assert not other[name], (
                f"observations of {name!r} were {verb} as those of {agent!r} ({other[name]} of them): the agents are swapped"
            )
    firsts, finals = seen.at[:, 0], seen.at[:, STEPS]
    assert not (finals.any() and not firsts.any()), (
        f"the observations after each action were {verb}, but never the first of an episode: use the observation before the "
        "action, not the next one"
    )
    late = int(seen.at[-1, BRIEF_STEPS:].sum()) + seen.other[-1][ZEROS]
    assert not late, (
        f"{late} observations of {AGENTS[-1]!r} were {verb} from after it had left, {BRIEF_STEPS} steps into an episode of "
        f"{STEPS}: leave out the steps of agents that are dead or gone"
    )
    assert not finals.any(), (
        f"{int(finals.sum())} observations after an episode's last step were {verb}: no action follows them, leave them out"
    )
    for agent, other in zip(AGENTS, seen.other, strict=True):
        assert not other[ZEROS], f"{other[ZEROS]} observations of {agent!r} that were {verb} are zeros: leave out padding"
        assert not other[UNKNOWN], (
            f"{other[UNKNOWN]} observations of {agent!r} that were {verb} are none that the environment returned: give the "
            "matcher the environment's own, not normalized or stacked ones"
        )


def _check_all_agents(verb: str, seen: Seen, what: str) -> None:
    missing = [agent for agent, number in zip(AGENTS, seen.live, strict=True) if not number]
    if missing == list(AGENTS[:-1]):
        raise AssertionError(f"no {what} of any agent but the last was {verb}: every agent needs its own")
    assert not missing, f"no {what} of {_names(missing)} was {verb}: every agent needs its own"


def _check_shares(matcher: SpiedMatcher, played: Sequence[int]) -> None:
    """Every step is heard, and once."""
    shares = matcher.recorded.live / expected_live(played)
    for agent, share in zip(AGENTS, shares, strict=True):
        assert share >= HEARD[0], (
            f"the matcher recorded {share:.0%} of the steps of {agent!r}: it must hear every step of every sub-environment"
        )
        assert share <= HEARD[1], f"the matcher recorded {share:.0%} of the steps of {agent!r}: record each step once"


def _check_trainings(matcher: SpiedMatcher) -> None:
    assert matcher.trainings or not matcher.updates_without_effect, (
        f"update() was called {matcher.updates_without_effect} times with data, but the discriminators' weights are as they "
        "were: they are frozen"
    )
    assert matcher.trainings, "the discriminators were never updated: call update() after each rollout"
    assert matcher.trainings > 1, "the discriminators were updated once only: call update() after each rollout"
    assert matcher.trainings >= LEAST_TRAININGS, (
        f"the discriminators were updated {matcher.trainings} times only: call update() after each rollout, and choose "
        f"rollouts so short that at least {LEAST_TRAININGS} fit in"
    )


def _check_payments(matcher: SpiedMatcher, exact: bool | None) -> None:
    """Rewards are paid by the present discriminators, in the right order, as they are."""
    versions = {payment.version for payment in matcher.payments}
    assert len(versions) >= LEAST_TRAININGS - 1, (
        f"the discriminators were updated {matcher.trainings} times, but only {len(versions)} of their states ever paid a "
        "reward: rewards come from frozen discriminators"
    )
    untrained = [payment for payment in matcher.payments if payment.version == 0]
    if exact is None:
        # A step-by-step payment follows its step at once; a rollout that was collected first waits longer.
        untrained = [payment for payment in untrained if payment.unpaid_steps > 0.5 * matcher.first_update_steps]
    assert exact is False or not untrained, (
        "a rollout was paid before the discriminators had learned from it: call update() first, then rewards(), or pay each "
        "step when it is taken"
    )
    for version, snapshot in matcher.snapshots.items():
        fresh = _fresh(matcher, snapshot.state)
        again = fresh.rewards(snapshot.observations, snapshot.alive)
        assert np.array_equal(again, snapshot.paid), (
            f"after {version} updates the matcher paid other rewards than its saved state pays (by up to "
            f"{np.abs(again - snapshot.paid).max():g}): its discriminators or its rewards were tampered with"
        )


def check_checkpoint(matcher: SpiedMatcher | None, policy: Any) -> None:
    """A checkpoint brings the discriminators back bit for bit, the learner's own if it has one."""
    assert matcher is not None
    own = getattr(policy, "matcher_state", None)
    state = matcher.state_dict()
    restored = _fresh(matcher, state).state_dict() if own is None else own()
    assert _same(restored["discriminators"], state["discriminators"]) and _same(restored["offsets"], state["offsets"]), (
        "a checkpoint does not bring the discriminators back as they were: save matcher.state_dict() and load it again"
    )


def check_following(first: NDArray[Any], second: NDArray[Any], to_the_right: Any, mirrored_to_the_right: Any) -> float:
    """Every agent goes its experts' way, in both runs.

    Args:
        first: How far each agent goes its experts' way in the first run, -1 to 1, [K].
        second: The same with the mirrored experts.
        to_the_right: How far each agent goes to the right, where the bait is, in the first run, [K].
        mirrored_to_the_right: The same in the second run.

    Returns:
        How far the agent goes that follows least.
    """
    worse = np.minimum(first, second)
    numbers = ", ".join(f"{agent} {a:+.2f} and {b:+.2f}" for agent, a, b in zip(AGENTS, first, second, strict=True))
    told = f"their way in the two runs: {numbers}; 0.9 is the experts'"
    if (to_the_right > 2 * FOLLOWS).all() and (mirrored_to_the_right > 2 * FOLLOWS).all():
        raise AssertionError(
            f"the agents go for the environment's reward although env_coefficient is 0 ({told}): multiply the environment's "
            "reward by env_coefficient"
        )
    if (np.maximum(first, second) < -FOLLOWS).all():
        raise AssertionError(f"the agents go away from what their experts do ({told}): r_gail has the wrong sign")
    lost = [agent for agent, place in zip(AGENTS, worse, strict=True) if place < FOLLOWS]
    if len(lost) == len(AGENTS):
        raise AssertionError(f"no agent follows its experts ({told}): r_gail does not reach the learners")
    if lost == list(AGENTS[:-1]):
        raise AssertionError(f"only the last agent follows its experts ({told}): r_gail of the others is lost")
    assert not lost, (
        f"{_names(lost)} {'does' if len(lost) == 1 else 'do'} not follow the experts ({told}): r_gail is lost, or goes to "
        "another agent"
    )
    return float(worse.min())


def check_without_matching(places: NDArray[Any]) -> None:
    """With coefficient 0, every agent goes to the right, for the environment's reward, and not the experts' way."""
    numbers = ", ".join(f"{agent} {place:+.2f}" for agent, place in zip(AGENTS, places, strict=True))
    wrong = [agent for agent, place in zip(AGENTS, places, strict=True) if place < -FOLLOWS]
    assert not wrong, (
        f"with coefficient=0 {_names(wrong)} still went the experts' way ({numbers}; -0.9 is the experts'): multiply r_gail "
        "by coefficient"
    )
    idle = [agent for agent, place in zip(AGENTS, places, strict=True) if place < FOLLOWS]
    assert not idle, (
        f"with coefficient=0 and env_coefficient=1 {_names(idle)} did not go for the environment's reward ({numbers}; 1 is the "
        "best): the environment's reward does not reach the learner"
    )


def _fresh(matcher: SpiedMatcher, state: dict[str, Any]) -> DistributionMatcher:
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


def _names(agents: list[str]) -> str:
    return " and ".join(map(repr, agents))
