"""Schedules of the coefficient c, and what they are told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import dm2_wrappers as dm2
from dm2_wrappers.matching.coefficient import as_array, checked, checked_fixed
from dm2_wrappers.matching.mixing import Mixing
from dm2_wrappers.matching.schedules import BUILT_IN, Constant, LinearFall, Progress, ReturnGap, Schedule, VarianceShare

AGENTS = ("a", "b")
MATCHER = SimpleNamespace(agents=AGENTS, demonstrations=SimpleNamespace(mean_return=12.0))


def told(**changes):
    zeros = np.zeros(2)
    defaults = {"steps": 0, "returns": zeros[:0], "live_steps": np.array([5, 5]), "env_mean": zeros, "env_std": zeros}
    return Progress(**{**defaults, "gail_mean": zeros, "gail_std": zeros, **changes})


def test_public_names():
    assert dm2.schedules.LinearFall is LinearFall
    assert issubclass(dm2.schedules.Schedule, Schedule)
    assert set(BUILT_IN) == {"Constant", "LinearFall", "ReturnGap", "VarianceShare"}


def test_constant():
    assert Constant(0.25).coefficient() == 0.25
    np.testing.assert_array_equal(as_array(Constant({"b": 2, "a": 1}), AGENTS), [1, 2])


def test_linear_fall():
    fall = LinearFall(0.4, 0.1, steps=1000)
    c = []
    for steps in (0, 500, 1000, 5000):
        fall.update(told(steps=steps))
        c.append(fall.coefficient())
    assert c == pytest.approx([0.4, 0.25, 0.1, 0.1])
    assert LinearFall(0.3, steps=1e6).options["steps"] == 1_000_000
    assert LinearFall(0.3, steps=7).at(2) == 0.3 * (1 - 2 / 7)  # bit for bit
    assert LinearFall({"a": 0.4, "b": 0.0}, 0.2, steps=10).at(5) == pytest.approx({"a": 0.3, "b": 0.1})


def test_return_gap_falls_towards_the_experts_return_and_rises_again():
    gap = ReturnGap(0.8, 0.2, episodes=4)
    gap.begin(AGENTS, MATCHER.demonstrations)
    assert gap.coefficient() == 0.8
    c = []
    for returns in ([], [1.0, 3.0], [7.0, 7.0, 7.0, 7.0], [12.0] * 4, [30.0], [2.0] * 4, [-9.0] * 4):
        gap.update(told(returns=np.array(returns)))
        c.append(gap.coefficient())
    # From the first returns' mean of 2 to the experts' 12; the newest four episodes count.
    assert c == pytest.approx([0.8, 0.8, 0.5, 0.2, 0.2, 0.8, 0.8])
    own = ReturnGap(1.0, target=4.0, first=0.0)
    own.begin(AGENTS, MATCHER.demonstrations)
    own.update(told(returns=np.array([1.0])))
    assert own.coefficient() == pytest.approx(0.75)


def test_a_loaded_return_gap_has_its_own_target_and_first_return():
    saved = ReturnGap(0.3, target=10.0, first=0.0)
    saved.update(told(returns=np.array([10.0])))
    assert saved.coefficient() == 0.0
    later = ReturnGap(0.3, target=100.0, first=0.0)
    later.load_state_dict(saved.state_dict())
    assert later.coefficient() == pytest.approx(0.27)
    with pytest.raises(ValueError, match="first must be a finite number"):
        ReturnGap(0.3).load_state_dict({"first": "x", "target": 1.0, "newest": []})
    found = ReturnGap(0.3)  # these take over what was found out
    found.load_state_dict(saved.state_dict())
    assert found.coefficient() == 0.0


def test_return_gap_of_a_team_that_begins_at_the_experts_level():
    gap = ReturnGap({"a": 1.0, "b": 0.5}, target=3.0, episodes=1)
    for returns, expected in (([3.0], 0.0), ([2.0], 1.0)):
        gap.update(told(returns=np.array(returns)))
        assert gap.coefficient() == {"a": expected, "b": expected / 2}


def test_variance_share_is_reached_and_limited():
    share = VarianceShare(0.2, largest=0.9, updates=2)
    share.begin(AGENTS, MATCHER.demonstrations)
    assert share.coefficient() == {"a": 0.0, "b": 0.0}
    share.update(told(env_std=np.array([1.0, 0.0]), gail_std=np.array([2.0, 1.0])))
    c = share.coefficient()
    assert c["a"] ** 2 * 4 / (1 + c["a"] ** 2 * 4) == pytest.approx(0.2)
    assert c["b"] == 0.9  # the environment's reward does not vary
    # Running means over two updates: variances 1, 9 of r_env and 4, 4 of r_gail. "b" was never alive.
    share.update(told(env_std=np.array([3.0, 7.0]), gail_std=np.array([2.0, 1.0]), live_steps=np.array([3, 0])))
    assert share.coefficient() == pytest.approx({"a": np.sqrt(0.25 * 5 / 4), "b": 0.9})
    share.update(told(env_std=np.array([9.0, 0.0]), gail_std=np.array([2.0, 1.0])))
    assert share.coefficient()["a"] == 0.9


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(0.5),
        lambda: LinearFall(1.0, steps=100),
        lambda: ReturnGap(1.0, episodes=2),
        lambda: VarianceShare(0.3),
    ],
)
def test_a_saved_schedule_goes_on_alike(make):
    def run(schedule, updates):
        c = []
        for i in updates:
            numbers = {name: np.array([0.1, 0.2]) * i for name in ("env_std", "gail_mean")}
            schedule.update(told(steps=10 * i, returns=np.array([float(i)]), gail_std=np.array([1.0, 2.0]), **numbers))
            c.append(schedule.coefficient())
        return c

    one, other = make(), BUILT_IN[type(make()).__name__](**make().options)
    for each in (one, other):
        each.begin(AGENTS, MATCHER.demonstrations)
    run(one, range(1, 4))
    other.load_state_dict(one.state_dict())
    assert other.coefficient() == one.coefficient()
    assert run(other, range(4, 7)) == run(one, range(4, 7))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(-1), "c must be a finite number of at least 0"),
        (lambda: LinearFall(0.3, steps=0), "steps must be an integer of at least 1"),
        (lambda: LinearFall(0.3, steps=1.5), "steps must be an integer of at least 1, got 1.5"),
        (lambda: LinearFall({"a": 1}, {"b": 1}, steps=1).at(0), "same agents"),
        (lambda: ReturnGap(0.3, episodes=0), "episodes"),
        (
            lambda: Mixing(ReturnGap(0.3), SimpleNamespace(agents=AGENTS, demonstrations=object())),
            "SelfImitation alone has none: pass target=",
        ),
        (lambda: VarianceShare(1.0), "share must be below 1"),
        (lambda: VarianceShare(0.5, largest={"a": 1}), "largest must be one number"),
        (lambda: Mixing(Constant({"a": 1.0}), MATCHER), r"the coefficient of Constant must have one number for each"),
        (lambda: checked("high", AGENTS), "coefficient must be a finite number"),
    ],
)
def test_wrong_options_are_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class Told(Schedule):
    """Keeps what it is told, and gives 1, 2, 3, ..."""

    def __init__(self):
        self.progress = []

    def coefficient(self):
        return float(len(self.progress) + 1)

    def update(self, progress):
        self.progress.append(progress)

    def state_dict(self):
        return {"number": len(self.progress)}

    def load_state_dict(self, state):
        self.progress = [None] * state["number"]


def test_mixing_tells_a_schedule_of_episodes_and_live_steps():
    schedule = Told()
    mixing = Mixing(schedule, MATCHER)
    np.testing.assert_array_equal(mixing.array, [1, 1])
    present = np.array([[True, True], [True, False]])
    rewards = np.array([[2.0, 4.0], [5.0, 99.0]], np.float32)
    for time, ended, broken in (([0, 0], [0, 0], None), ([1, 1], [1, 1], [False, True]), ([0, 0], [1, 0], None)):
        broken = broken if broken is None else np.array(broken)
        mixing.count(rewards, present, np.array(ended, bool), broken, np.array(time))
    alive = np.array([[[True, False], [True, False]]])
    mixing.paid(rewards, np.array([[[1.0, 7.0], [4.0, 7.0]]], np.float32), alive)
    mixing.updated(env_coefficient=2.0)
    (progress,) = schedule.progress
    assert progress.steps == 6
    assert progress.returns.tolist() == [6.0, 3.0]  # the second sub-environment's episode broke
    assert progress.live_steps.tolist() == [2, 0]
    assert progress.env_mean.tolist() == [7.0, 0.0]
    assert progress.env_std.tolist() == [3.0, 0.0]
    assert progress.gail_mean.tolist() == [2.5, 0.0]
    assert progress.gail_std.tolist() == [1.5, 0.0]
    assert mixing.by_agent() == {"a": 2.0, "b": 2.0}

    # 0.1 summed in float64 has a mean square that is not quite the square of its mean.
    same = np.full((3, 1, 2), 0.1, np.float32)
    mixing.paid(same, same + np.array([[[0.001, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]], np.float32), np.ones((3, 1, 2), bool))
    mixing.updated(env_coefficient=1.0)
    assert schedule.progress[-1].env_std.tolist() == [0.0, 0.0]
    assert schedule.progress[-1].gail_std.tolist() == pytest.approx([0.001 * np.sqrt(2) / 3, 0.0], rel=1e-3)

    mixing.count(rewards, present, np.array([False, False]), None, np.array([0, 1]))
    saved = mixing.state_dict()  # without the returns of the episodes under way
    other = Mixing(Told(), MATCHER)
    other.load_state_dict(saved)
    assert other.by_agent() == {"a": 3.0, "b": 3.0}
    for each in (mixing, other):
        each.count(rewards, present, np.array([True, True]), None, np.array([0, 0]))  # the environment was reset
        each.updated(1.0)
        assert each.schedule.progress[-1].steps == 10
        assert each.schedule.progress[-1].returns.tolist() == [3.0, 5.0]
        assert each.schedule.progress[-1].live_steps.tolist() == [0, 0]


def test_only_episodes_that_were_counted_from_their_first_step_on_have_a_return():
    mixing = Mixing(Told(), MATCHER)  # assigned when the second sub-environment is about to begin an episode
    ones, both = np.ones((2, 2), np.float32), np.ones((2, 2), bool)

    def counted(time, ended):
        mixing.count(ones, both, np.array(ended), None, np.array(time))

    counted([4, 0], [False, False])
    counted([5, 1], [True, True])
    assert mixing.state_dict()["returns"] == [2.0]
    counted([0, 0], [False, False])
    mixing.skip()  # a step that does not count, in both episodes
    counted([2, 2], [True, False])
    counted([0, 3], [True, True])
    assert mixing.state_dict()["returns"] == [2.0, 1.0]
    counted([0, 0], [False, False])
    counted([0, 1], [True, True])  # the first sub-environment was reset in mid-episode
    assert mixing.state_dict()["returns"] == [2.0, 1.0, 1.0, 2.0]
    assert mixing.state_dict()["steps"] == 14
    counted([0, 0], [False, False])
    mixing.load_state_dict(mixing.state_dict())  # the episodes under way are not part of it
    counted([1, 1], [True, True])
    assert mixing.state_dict()["returns"] == [2.0, 1.0, 1.0, 2.0]


def test_a_state_of_another_schedule_is_refused():
    saved = Mixing(Told(), MATCHER).state_dict()
    mixing = Mixing(Constant(1.0), MATCHER)
    with pytest.raises(ValueError, match="saved with the schedule Told"):
        mixing.load_state_dict(saved)
    told_three = Mixing(Told(), MATCHER)
    with pytest.raises(ValueError, match="damaged"):
        told_three.load_state_dict({**saved, "schedule": {}})
    with pytest.raises(ValueError, match="numbers of 2 agents"):
        told_three.load_state_dict({**saved, "live_steps": [1]})
    assert Mixing(0.3, MATCHER).state_dict() is None
    Mixing(0.3, MATCHER).load_state_dict(saved)  # a number stays as it is


def test_integrations_without_schedules_refuse_them():
    with pytest.raises(ValueError, match=r"dm2.rllib takes no schedule, got LinearFall: pass a number"):
        checked_fixed(LinearFall(0.3, steps=10), ["a"], "dm2.rllib")
    assert checked_fixed({"a": 1}, ["a"], "dm2.rllib") == {"a": 1.0}


def test_return_gap_needs_rewards_or_a_target():
    """Demonstrations without rewards, as from arrays or PyMARL, would switch c off at the first positive return."""
    without = dm2.Demonstrations.from_episodes([{"observations": {"a": np.ones((3, 2)), "b": np.ones((3, 2))}}])
    with pytest.raises(ValueError, match=r"these hold no rewards, all of them are 0: pass target="):
        Mixing(ReturnGap(0.3), SimpleNamespace(agents=AGENTS, demonstrations=without))
    assert Mixing(ReturnGap(0.3, target=0.0), SimpleNamespace(agents=AGENTS, demonstrations=without)).array[0] > 0


def test_what_is_no_coefficient_is_named():
    with pytest.raises(ValueError, match="got the class LinearFall; make one of it"):
        checked(LinearFall, AGENTS)
    with pytest.raises(ValueError, match="one schedule for all agents, and in a dict only numbers"):
        checked({"a": Constant(0.1), "b": Constant(0.2)}, AGENTS)
    for make in (lambda **c: LinearFall(**c, steps=10), ReturnGap):
        with pytest.raises(ValueError, match=r"start and end must be of the same agents, got \['a'\] and \['b'\]"):
            make(start={"a": 0.1}, end={"b": 0.1})


def test_a_saved_state_stays_as_it_was():
    """Returns of episodes that end later are not in it."""
    mixing, one = Mixing(Told(), MATCHER), np.ones((1, 2), bool)
    saved = mixing.state_dict()
    mixing.count(np.ones((1, 2), np.float32), one, np.array([True]), None, np.array([0]))
    assert mixing.state_dict()["returns"] == [1.0]
    assert saved["returns"] == []


@pytest.mark.parametrize(
    ("rewards", "deviation"),
    [
        ([0.1, 0.1, 0.1], 0.0),  # whose mean square less squared mean is below 0
        ([10_000.25, 10_000.0], 0.125),  # whose squares have too many digits for float32
    ],
)
def test_deviations_of_rewards_that_hardly_vary(rewards, deviation):
    mixing = Mixing(Told(), MATCHER)
    env_rewards = np.array(rewards)[:, None, None].repeat(2, 2)
    mixing.paid(env_rewards, env_rewards.astype(np.float32), np.ones(env_rewards.shape, bool))
    mixing.updated(1.0)
    (progress,) = mixing.schedule.progress
    for name in ("env_std", "gail_std"):
        np.testing.assert_allclose(getattr(progress, name), [deviation] * 2, atol=1e-6)


def test_the_variances_of_a_variance_share_are_running_means_over_an_agents_own_updates():
    share = VarianceShare(0.5, largest=100.0, updates=2)  # c squared is the variance of r_env if that of r_gail is 1
    share.begin(AGENTS, MATCHER.demonstrations)
    for deviations, live in (([1.0, 1.0], [1, 1]), ([3.0, 0.0], [1, 0]), ([5.0, 5.0], [1, 1])):
        deviations, live = np.array(deviations), np.array(live)
        share.update(told(env_std=deviations, gail_std=1.0 * live, live_steps=live))
    # "a": 1, then (1 + 9) / 2, then (5 + 25) / 2. "b" was not alive at the second update.
    assert share.coefficient() == pytest.approx({"a": np.sqrt(15), "b": np.sqrt(13)})
    share.begin(AGENTS, MATCHER.demonstrations)  # given again, it goes on
    assert share.coefficient() == pytest.approx({"a": np.sqrt(15), "b": np.sqrt(13)})


def test_defaults_of_schedules():
    assert VarianceShare(0.3).options == {"share": 0.3, "largest": 1.0, "updates": 10}
    assert ReturnGap(0.3).options == {"start": 0.3, "end": 0.0, "target": None, "first": None, "episodes": 100}
    assert LinearFall(0.3, steps=10).options["end"] == 0.0


class Assigned(Told):
    """A schedule whose c is whatever was loaded."""

    c = 1.0

    def coefficient(self):
        return self.c

    def state_dict(self):
        return {"c": self.c}

    def load_state_dict(self, state):
        self.c = state["c"]


def test_a_damaged_state_of_a_schedule_changes_nothing():
    mixing = Mixing(Assigned(), MATCHER)
    saved = mixing.state_dict()
    with pytest.raises(ValueError, match="the coefficient of Assigned must be a finite number of at least 0"):
        mixing.load_state_dict({**saved, "schedule": {"c": -1.0}})
    assert mixing.schedule.c == 1.0
    for name in ("env", "gail"):
        with pytest.raises(ValueError, match="numbers of 2 agents"):
            mixing.load_state_dict({**saved, name: [[0.0], [0.0]]})
    share = VarianceShare(0.3)
    share.begin(AGENTS, MATCHER.demonstrations)
    with pytest.raises(ValueError, match="a count and two variances for each of 2 agents"):
        share.load_state_dict({"counts": [1, 1], "env": [1.0, -1.0], "gail": [1.0, 1.0]})
