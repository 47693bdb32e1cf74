"""What discriminators see and are paid for with actions or next observations, by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dm2_wrappers import AfterStep, Demonstrations, DistributionMatcher, JointRollout
from dm2_wrappers.matching.input_rows import InputRows
from tests.helpers.tiny_matchers import same

EPISODES = [
    {  # agent b dies after the first of three steps
        "observations": {"a": [[1.0, 2], [3, 4], [5, 6]], "b": [[7.0], [0], [0]]},
        "alive": {"a": [True, True, True], "b": [True, False, False]},
        "actions": {"a": [0, 1, 0], "b": [2, 0, 0]},
    },
    {
        "observations": {"a": [[11.0, 12], [13, 14]], "b": [[17.0], [18]]},
        "actions": {"a": [1, 1], "b": [1, 0]},
    },
]


def make(**options):
    demos = Demonstrations.from_episodes(EPISODES)
    return DistributionMatcher(demos, **{"updates": 2, "batch_size": 8, "buffer_size": 50, "seed": 0, **options})


def experts_of(matcher):
    """Each agent's demonstrated rows."""
    counts = matcher._experts.counts
    return [part.tolist() for part in matcher._experts.rows.split(counts)]


def recorded(matcher, k):
    buffer = matcher._recorded.transitions
    return buffer._rows[k, : int(buffer.counts[k])].tolist()


def steps():
    """Four joint steps of one sub-environment: an episode of three, in which agent b dies after the first, and another."""
    observations = np.array([[[1, 1], [2, 0]], [[3, 3], [0, 0]], [[5, 5], [0, 0]], [[7, 7], [8, 0]]], np.float32)[:, None]
    alive = np.array([[1, 1], [1, 0], [1, 0], [1, 1]], bool)[:, None]
    following = np.array([[[3, 3], [0, 0]], [[5, 5], [0, 0]], [[6, 6], [0, 0]], [[9, 9], [10, 0]]], np.float32)[:, None]
    after = AfterStep(
        observations=following,
        alive=np.array([[1, 0], [1, 0], [1, 0], [1, 1]], bool)[:, None],
        ended=np.array([0, 0, 1, 0], bool)[:, None],
        truncated=np.zeros((4, 1, 2), bool),
        time=np.array([0, 1, 2, 0])[:, None],
    )
    return observations, alive, after


def test_an_agents_own_features_come_first_in_a_row():
    rows = InputRows("state-action", (2, 1), (2, 3), absorbing=True)
    assert rows.sizes == (5, 5)
    seen, done = torch.tensor([[1.0, 2], [3, 0]]), torch.tensor([[4.0, 5, 0], [6, 7, 8]])
    assert rows.joined([seen, done]).tolist() == [[1, 2, 4, 5, 0], [3, 6, 7, 8, 0]]
    assert rows.absorbing_row.tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]
    assert InputRows("transition", (2, 1), None, absorbing=False).joined([seen, seen]).tolist() == [
        [1, 2, 1, 2],
        [3, 3, 0, 0],
    ]


def test_state_action_rows_of_both_sides():
    matcher = make(inputs="state-action", action_spaces={"a": 2, "b": 3})
    of_a, of_b = experts_of(matcher)
    assert of_a == [[1, 2, 1, 0], [3, 4, 0, 1], [5, 6, 1, 0], [11, 12, 0, 1], [13, 14, 0, 1]]
    assert of_b == [[7, 0, 0, 1], [17, 0, 1, 0], [18, 1, 0, 0]]
    observations, alive, _ = steps()
    matcher.record(observations, alive, actions=np.array([[0, 2], [1, 0], [1, 0], [0, 1]])[:, None])
    assert recorded(matcher, 0) == [[1, 1, 1, 0], [3, 3, 0, 1], [5, 5, 0, 1], [7, 7, 1, 0]]
    assert recorded(matcher, 1) == [[2, 0, 0, 1], [8, 0, 1, 0]]


def test_transitions_of_both_sides_leave_out_last_steps_and_deaths():
    matcher = make(inputs="transition")
    of_a, of_b = experts_of(matcher)
    assert of_a == [[1, 2, 3, 4], [3, 4, 5, 6], [11, 12, 13, 14]]
    assert of_b == [[17, 18, 0, 0]]
    observations, alive, after = steps()
    matcher.record(observations, alive, after=after)
    assert recorded(matcher, 0) == [[1, 1, 3, 3], [3, 3, 5, 5], [7, 7, 9, 9]]
    assert recorded(matcher, 1) == [[8, 10, 0, 0]]
    assert matcher._recorded.new.tolist() == [3, 1]


def test_an_episodes_last_transition_is_paid_with_the_last_observation_and_a_death_is_not():
    matcher = make(inputs="transition", center=False)
    observations, alive, after = steps()
    paid = matcher.rewards(observations, alive, after=after)[:, 0]
    rows = torch.tensor([[5.0, 5, 6, 6], [8, 10, 0, 0]])
    expected = matcher.discriminators.logits(rows).tolist()
    assert paid[2, 0] == pytest.approx(expected[0], abs=1e-6)
    assert paid[3, 1] == pytest.approx(expected[1], abs=1e-6)
    assert (paid[:, 1] == 0).tolist() == [True, True, True, False]
    over = replace(after, alive=after.alive & ~after.ended[..., None])  # agents that are reported as terminated at the end
    np.testing.assert_array_equal(matcher.rewards(observations, alive, after=over)[:, 0], paid)


def test_the_step_with_which_an_agent_leaves_alive_is_paid_but_not_trained_on():
    observations, alive, after = steps()
    alive[1:3, 0, 1] = after.alive[:3, 0, 1] = True
    after = replace(after, left=np.array([[0, 0], [0, 1], [0, 0], [0, 0]], bool)[:, None])  # b leaves after the second step
    alive[2, 0, 1] = False
    observations[1, 0, 1], after.observations[0:2, 0, 1] = [3, 0], [[3, 0], [4, 0]]
    matcher = make(inputs="transition", center=False)
    matcher.record(observations, alive, after=after)
    assert recorded(matcher, 1) == [[2, 3, 0, 0], [8, 10, 0, 0]]
    paid = matcher.rewards(observations, alive, after=after)[:, 0, 1]
    logits = matcher.discriminators.logits(torch.tensor([[3.0, 3, 5, 5], [3, 4, 0, 0]])).tolist()
    assert paid[1] == pytest.approx(logits[1], abs=1e-6)
    assert paid[2] == 0


def test_rewards_by_name():
    matcher = make(inputs="state-action")
    joint = matcher.rewards(np.array([[1, 2], [3, 0]], np.float32), actions=np.array([1, 2]))
    assert matcher.rewards({"b": [3.0]}, actions={"b": 2}) == {"b": pytest.approx(float(joint[1]), abs=1e-6)}
    matcher = make(inputs="transition")
    by_name = matcher.rewards({"b": [3.0]}, after={"b": [4.0]})
    logit = matcher.discriminators.logits(torch.tensor([[0.0, 0, 0, 0], [3, 4, 0, 0]]))[1]
    assert by_name["b"] == pytest.approx(float(logit), abs=1e-6)


@pytest.mark.parametrize("kind", ["state-action", "transition"])
def test_chunks_with_a_third_part_are_record_update_and_rewards(kind):
    one, other = make(inputs=kind), make(inputs=kind)
    observations, _, after = steps()
    alive = np.ones((4, 1, 2), bool)
    actions = np.array([[0, 2], [1, 0], [1, 0], [0, 1]])[:, None]
    after = AfterStep(after.observations, alive, np.zeros((4, 1), bool), np.zeros((4, 1, 2), bool))
    more = {"actions": actions} if kind == "state-action" else {"after": after}
    one.record(observations, alive, **more)
    one.update()
    paid = one.rewards(observations, alive, **more)
    third = actions if kind == "state-action" else after.observations
    cut = {"a": slice(None), "b": slice(1)}  # features of each agent
    part = [third[:, 0, k] if kind == "state-action" else third[:, 0, k, cut[a]] for k, a in enumerate("ab")]
    chunks = [
        ("b", observations[:, 0, 1, :1], part[1]),
        ("a", observations[:3, 0, 0], part[0][:3]),
        ("a", observations[3:, 0, 0], part[0][3:]),
    ]
    of_b, first, second = other.algorithm1(chunks)
    np.testing.assert_array_equal(of_b, paid[:, 0, 1])
    np.testing.assert_array_equal(np.concatenate([first, second]), paid[:, 0, 0])
    assert same(one.state_dict(), other.state_dict())
    name = "actions" if kind == "state-action" else "next observations"
    with pytest.raises(ValueError, match=rf"chunk 0 must be a triple \(agent, observations, {name}\)"):
        other.algorithm1([chunks[0][:2]])
    with pytest.raises(ValueError, match=f"chunk 0 has 4 observations, but 2 {name}"):
        other.algorithm1([(*chunks[0][:2], chunks[0][2][:2])])


def test_what_is_missing_is_refused_before_anything_is_kept():
    observations, alive, _ = steps()
    for options, match in (({"inputs": "state-action"}, "pass actions="), ({"inputs": "transition"}, "pass after=")):
        matcher = make(**options)
        before = matcher.state_dict()
        with pytest.raises(ValueError, match=match):
            matcher.record(observations, alive)
        with pytest.raises(ValueError, match=match):
            matcher.rewards(observations, alive)
        with pytest.raises(ValueError, match=match):
            JointRollout(matcher).append(observations[0], alive[0], np.zeros(1, bool))
        assert same(matcher.state_dict(), before)
    with pytest.raises(ValueError, match="inputs must be one of 'state', 'state-action', 'transition'"):
        make(inputs="states")


@pytest.mark.parametrize("kind", ["state-action", "transition"])
def test_the_joint_rollout_hands_everything_on(kind):
    one, other = make(inputs=kind), make(inputs=kind)
    observations, alive, after = steps()
    actions = np.array([[0, 2], [1, 0], [1, 0], [0, 1]])[:, None]
    rollout = JointRollout(one)
    for t in range(4):
        now = AfterStep(*(getattr(after, name)[t] for name in ("observations", "alive", "ended", "truncated")))
        rollout.append(observations[t], alive[t], after.ended[t], actions=actions[t], after=now)
    paid = rollout.gail_rewards()
    more = {"actions": actions} if kind == "state-action" else {"after": after}
    other.record(observations, alive, **more)
    other.update()
    np.testing.assert_array_equal(paid, other.rewards(observations, alive, **more))
    assert same(one.state_dict(), other.state_dict())
