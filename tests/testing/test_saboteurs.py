"""Learners with one fault each are refused, with a sentence that names the fault."""

from __future__ import annotations

import re

import numpy as np
import pytest

import dm2_wrappers as dm2
from dm2_wrappers.testing import check_dm2_learner
from dm2_wrappers.testing.bait_env import BaitEnv
from dm2_wrappers.testing.spy import _EXPECTED as EXPECTED
from tests.testing.table_team import AGENTS, STEPS, Exact, Online, TableTeam, play, trains


def no_op(make_env, make_matcher, *, coefficient, env_coefficient, steps, seed):
    make_matcher()
    return TableTeam(seed).policy


class EnvOnly(Exact):
    def gail_rewards(self, rollout):
        return 0.0


class NoMatcher(EnvOnly):
    def begin(self):
        self.env = self.make_env()


class RecordsLastAgent(Exact):
    def record(self, rollout):
        alive = rollout.alive.copy()
        alive[..., :-1] = False
        self.matcher.record(rollout.observations, alive)


class PaysLastAgent(Exact):
    def pay(self, rollout):
        return super().pay(rollout) * np.array([0, 0, 1])


class AsksForOneAgent(Exact):
    def pay(self, rollout):
        return self.matcher.rewards(rollout.observations, rollout.alive & np.array([False, True, False]))


class RecordsSwapped(Exact):
    def record(self, rollout):
        self.matcher.record(rollout.observations[:, :, [1, 0, 2]], rollout.alive[:, :, [1, 0, 2]])


class PaysSwapped(Exact):
    def pay(self, rollout):
        return super().pay(rollout)[..., [1, 0, 2]]


class PaysTheNext(Exact):
    def pay(self, rollout):
        return super().pay(rollout)[..., [0, 2, 1]]


class Sign(Exact):
    def pay(self, rollout):
        return -super().pay(rollout)


class Frozen(Exact):
    """Updates, but puts the old weights back."""

    def update(self):
        before = self.matcher.discriminators.state_dict()
        super().update()
        self.matcher.discriminators.load_state_dict(before)


class PaysFrozen(Exact):
    """Pays with what the discriminators were after the first update."""

    def pay(self, rollout):
        now = self.matcher.discriminators.state_dict()
        self.first = getattr(self, "first", now)
        self.matcher.discriminators.load_state_dict(self.first)
        paid = super().pay(rollout)
        self.matcher.discriminators.load_state_dict(now)
        return paid


class Detached(Exact):
    """A second matcher pays."""

    def pay(self, rollout):
        return dm2.DistributionMatcher(self.matcher.demonstrations, seed=0).rewards(rollout.observations, rollout.alive)


class Slice(Exact):
    def record(self, rollout):
        self.matcher.record(rollout.observations[:, :10], rollout.alive[:, :10])


class Twice(Exact):
    def record(self, rollout):
        super().record(rollout)
        super().record(rollout)


class NeverUpdated(Exact):
    def update(self):
        pass


class UpdatedOnce(Exact):
    def update(self):
        if not self.matcher.trainings:
            super().update()


class UpdatedSeldom(Exact):
    def update(self):
        if self.matcher.trainings < 4:
            super().update()


class PaysFirst(Exact):
    def gail_rewards(self, rollout):
        self.record(rollout)
        paid = self.pay(rollout)
        self.update()
        return paid


class NextObservation(Exact):
    def record(self, rollout):
        self.matcher.record(rollout.following, rollout.alive)


class PaysNextObservation(Exact):
    def pay(self, rollout):
        return self.matcher.rewards(rollout.following, rollout.alive)


class DeadRecorded(Exact):
    """The observations of the agent that left are zeros."""

    def record(self, rollout):
        self.matcher.record(rollout.observations, np.ones_like(rollout.alive))


class FinalRecorded(Exact):
    def record(self, rollout):
        super().record(rollout)
        last = np.zeros_like(rollout.alive)
        last[-1, :, :2] = True
        self.matcher.record(rollout.following, last)


class WrongEnv(Exact):
    def collect(self, actions):
        return play(BaitEnv(), actions)


class Normalized(Exact):
    def record(self, rollout):
        self.matcher.record(rollout.observations * 0.5, rollout.alive)


class TwoMatchers(Exact):
    def begin(self):
        super().begin()
        self.make_matcher()


class Bait(Exact):
    """Ignores env_coefficient."""

    def mixed(self, rollout):
        return rollout.rewards + self.coefficient * self.gail_rewards(rollout)


class AlwaysMatches(Exact):
    """Ignores coefficient."""

    def mixed(self, rollout):
        return self.env_coefficient * rollout.rewards + 3 * self.gail_rewards(rollout)


class NeverTheEnv(Exact):
    """Leaves the environment's reward out, whatever env_coefficient is."""

    def mixed(self, rollout):
        return self.coefficient * self.gail_rewards(rollout)


class PaysNothing(Exact):
    def pay(self, rollout):
        return 0 * super().pay(rollout)


class Tampered(Exact):
    """The networks pay something else than their weights say."""

    def begin(self):
        super().begin()
        logits = self.matcher.discriminators.logits
        self.matcher.discriminators.logits = lambda rows: logits(rows) + 1.0


class BadCheckpoint(Exact):
    """The learner's checkpoint lacks the discriminators' training."""

    def returned(self, team):
        untrained = dm2.DistributionMatcher(self.matcher.demonstrations, **self.matcher.options)

        def policy(observations):
            return team.policy(observations)

        policy.matcher_state = untrained.state_dict
        return policy


class Unplayed(Exact):
    """Counts each sub-environment's steps as one."""

    def collect(self, actions):
        return play(self.env, actions[:, :10])


class EvaluatesWhileTraining(Exact):
    def mixed(self, rollout):
        for _ in range(2):
            play(self.env, rollout.actions)
        return super().mixed(rollout)


@pytest.mark.parametrize(
    ("train", "fault"),
    [
        (no_op, "the learner played 0 joint steps instead of 3200"),
        (EnvOnly, "the matcher was made but never used: the learner trains on the environment's reward alone"),
        (NoMatcher, "make_matcher() was never called: the learner trains on the environment's reward alone"),
        (RecordsLastAgent, "no observation of any agent but the last was recorded"),
        (PaysLastAgent, "only the last agent follows its experts"),
        (AsksForOneAgent, "no reward of 'first' and 'brief' was paid"),
        (RecordsSwapped, "observations of 'second' were recorded as those of 'first': the agents are swapped"),
        (PaysSwapped, "only the last agent follows its experts: r_gail of the others is lost, or they get each other's"),
        (PaysTheNext, "'second' and 'brief' do not follow the experts: r_gail is lost, or goes to another agent"),
        (Sign, "the agents went the other way than their experts: r_gail has the wrong sign"),
        (Frozen, "rewards came from only 1 of their states: rewards come from frozen discriminators"),
        (PaysFrozen, "rewards came from only 1 of their states: rewards come from frozen discriminators"),
        (Detached, "detached from the trained ones"),
        (Slice, "only 20% of the steps of 'first' were recorded"),
        (Twice, "200% of the steps of 'first' were recorded: record each step once, not twice"),
        (NeverUpdated, "the discriminators were never updated"),
        (UpdatedOnce, "the discriminators were updated only once"),
        (UpdatedSeldom, "the discriminators were updated only 4 times"),
        (PaysFirst, "rewards of the first rollout were paid before the update"),
        (NextObservation, "the observations after each action were recorded, and never the first of an episode"),
        (PaysNextObservation, "the observations after each action were paid, and never the first of an episode"),
        (DeadRecorded, "2000 observations of 'brief' were recorded that it did not act from, because it is gone"),
        (FinalRecorded, "800 observations from after an episode's last step were recorded"),
        (WrongEnv, "no environment that make_env() makes was stepped"),
        (Normalized, "observations of 'first' that were recorded never came from the environment"),
        (TwoMatchers, "make_matcher() was called twice"),
        (Bait, "the agents went for the environment's reward although env_coefficient is 0"),
        (AlwaysMatches, "with coefficient=0 the experts were followed by"),
        (NeverTheEnv, "with coefficient=0 and env_coefficient=1 the environment's reward was not followed by"),
        (PaysNothing, "no agent follows its experts: r_gail does not reach the learners"),
        (Tampered, "something changed its rewards or its networks"),
        (BadCheckpoint, "a checkpoint does not bring the discriminators back as they were"),
        (Unplayed, "the learner played 640 joint steps instead of 3200"),
        (EvaluatesWhileTraining, "the learner played 9600 joint steps instead of 3200"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_saboteur_is_refused(train, fault):
    with pytest.raises(AssertionError, match=re.escape(fault)) as refusal:
        check_dm2_learner(train if train is no_op else trains(train), steps=3_200)
    assert "\n" not in str(refusal.value)


def test_an_online_learner_is_refused_where_the_exact_order_is_asked_for():
    with pytest.raises(AssertionError, match="paid before the update"):
        check_dm2_learner(trains(Online), steps=3_200, exact=True)


def test_the_order_may_be_left_unchecked():
    assert not check_dm2_learner(trains(PaysFirst), steps=3_200, exact=False).exact


def test_constants_agree():
    assert tuple(BaitEnv().possible_agents) == AGENTS
    assert len(EXPECTED[0]) == STEPS + 1
