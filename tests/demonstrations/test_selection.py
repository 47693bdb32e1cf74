"""Choosing episodes: won or lost ones, and the best by return."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dm2_wrappers import Demonstrations
from tests.helpers.small_demonstrations import make


def episodes(demos: Demonstrations, agent: int) -> list[int]:
    """The numbers of an agent's episodes, which are in its observations."""
    return (demos.padded_observations[demos.offsets[agent, :-1], agent, 0] % 100).astype(int).tolist()


def with_returns(returns: list[list[float]], **options) -> Demonstrations:
    """One episode of two steps for each return, [agent][episode]; the reward is in its first step."""
    demos = make(lengths=[2] * len(returns[0]), won=[1] * len(returns[0]), **options)
    rewards = np.zeros_like(demos.rewards)
    rewards[::2] = np.transpose(returns)
    return replace(demos, rewards=rewards)


@pytest.mark.parametrize("won", [True, False])
def test_only_joint_episodes_that_were_won_or_lost(won):
    demos = make(lengths=(2, 3, 4, 5), won=(1, 0, -1, 1)).filter(won=won)
    kept = [0, 3] if won else [1]
    assert episodes(demos, 0) == episodes(demos, 1) == kept
    np.testing.assert_array_equal(demos.offsets, [[0, 2, 7]] * 2 if won else [[0, 3]] * 2)
    assert demos.win_rate == float(won)
    assert demos.style == "concurrent"
    assert demos.metadata["selected"] == [{"filter": {"won": won}, "kept": len(kept), "of": 4, "mean_return": 3.5}]
    assert demos.metadata["policy"] == {"algorithm": "IPPO"}


def test_an_episode_in_which_agents_differ_was_neither_won_nor_lost():
    demos = replace(make(lengths=(2, 3, 4, 5), won=(0, 0, 0, 0)), won=[[1, 1, 0, 0], [0, 1, 1, 0]])
    for won, kept in ((True, [1]), (False, [3])):
        assert episodes(demos.filter(won=won), 0) == episodes(demos.filter(won=won), 1) == kept


def test_shuffled_demonstrations_keep_each_agents_own_won_episodes():
    shuffled = make(lengths=range(1, 9), won=[1, 0, 0, 1, 0, 1, 0, 0]).shuffled(seed=1)
    assert not np.array_equal(*shuffled.won)
    won = shuffled.filter(won=True)
    assert won.style == "shuffled"
    assert won.won.tolist() == [[1] * 3] * 2
    for agent in range(2):
        assert sorted(np.diff(won.offsets[agent]).tolist()) == [1, 4, 6]  # an episode's length is its number and one
    assert won.offsets[0].tolist() != won.offsets[1].tolist()


def test_mixed_demonstrations_keep_as_many_as_the_agent_with_the_fewest():
    strong, weak = make(won=(1, 1, 1)), make(lengths=(5, 6, 7), won=(0, 1, 0))
    won = Demonstrations.mix({"agent_0": strong, "agent_1": weak}).filter(won=True)
    assert won.offsets.tolist() == [[0, 2], [0, 6]]  # the first of agent 0, the only one of agent 1
    assert won.style == "mixed"


def test_wins_that_are_not_reported_or_leave_nothing():
    with pytest.raises(ValueError, match=r"These demonstrations do not say which episodes were won.*best\(share\)"):
        make(won=(-1, -1, -1)).filter(won=True)
    mixed = Demonstrations.mix({"agent_0": make(), "agent_1": make(won=(-1, -1, -1))})
    with pytest.raises(ValueError, match=r"episodes of \['agent_1'\] do not say"):
        mixed.filter(won=True)
    with pytest.raises(
        ValueError, match=r"filter\(won=True\) leaves nothing: .* 0 won, 2 lost, 1 not reported; best\(share\)"
    ):
        make(won=(0, -1, 0)).filter(won=True)
    with pytest.raises(ValueError, match="won must be True or False, got 'yes'"):
        make().filter(won="yes")


def test_the_best_joint_episodes_by_return():
    """Episode means over agents are 3, 5, 1, 5, 4; agent 0 alone would choose others."""
    demos = with_returns([[6, 4, 1, 4, 0], [0, 6, 1, 6, 8]])
    for share, kept in (
        (0.2, [1]),
        (0.4, [1, 3]),
        (0.41, [1, 3, 4]),
        (0.6, [1, 3, 4]),
        (0.8, [0, 1, 3, 4]),
        (1, [0, 1, 2, 3, 4]),
    ):
        best = demos.best(share)
        assert episodes(best, 0) == episodes(best, 1) == kept, share
        assert best.metadata["selected"] == [{"best": share, "kept": len(kept), "of": 5, "mean_return": demos.mean_return}]
    assert demos.best(0.4).mean_return == pytest.approx(5)


def test_the_best_of_each_agents_own_episodes():
    demos = with_returns([[1, 2, 3, 4], [1, 2, 3, 4]]).shuffled(seed=3)
    assert not np.array_equal(*(episodes(demos, agent) for agent in range(2)))
    best = demos.best(0.5)
    for agent in range(2):
        assert sorted(episodes(best, agent)) == [2, 3]
        assert episodes(best, agent) == [e for e in episodes(demos, agent) if e >= 2]  # in the order they had
    assert best.mean_return == pytest.approx(3.5)


def test_of_equal_episodes_the_earlier_are_kept():
    assert episodes(with_returns([[1] * 40, [1] * 40]).best(0.5), 1) == list(range(20))


def test_rows_after_an_agents_last_episode_are_not_ranked():
    long, short = make(lengths=(9, 1), won=(1, 1)), make(lengths=(1, 2), won=(1, 1))
    mixed = Demonstrations.mix({"agent_0": long, "agent_1": short})
    assert np.diff(mixed.best(0.5).offsets).tolist() == [[9], [2]]


def test_long_episodes_are_summed_exactly():
    """In float32 the ones would be lost beside 2**24."""
    demos = with_returns([[2**24, 2**24], [2**24, 2**24]])
    rewards = demos.rewards.copy()
    rewards[3] = 1
    assert episodes(replace(demos, rewards=rewards).best(0.5), 0) == [1]


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan"), "half", True])
def test_shares_that_are_none(share):
    with pytest.raises(ValueError, match="share must be a"):
        make().best(share)


def test_no_best_without_rewards():
    with pytest.raises(ValueError, match=r"hold no rewards: all of them are 0 .* those of a zero-sum game cancel"):
        replace(make(), rewards=np.zeros((9, 2))).best(0.5)


def test_choices_follow_each_other_in_the_metadata(tmp_path):
    demos = make(lengths=(2, 3, 4, 5), won=(1, 0, 1, 1)).filter(won=True).best(0.5)
    assert episodes(demos, 0) == [2, 3]  # the longest, since each step pays 1
    history = [
        {"filter": {"won": True}, "kept": 3, "of": 4, "mean_return": 3.5},
        {"best": 0.5, "kept": 2, "of": 3, "mean_return": 11 / 3},
    ]
    assert demos.metadata["selected"] == history
    demos.save(tmp_path / "best.npz")
    assert Demonstrations.load(tmp_path / "best.npz").metadata["selected"] == history
    mixed = Demonstrations.mix({"agent_0": demos, "agent_1": make()})
    assert mixed.metadata["selected"] == {"agent_0": history, "agent_1": None}
    step = {"best": 0.5, "kept": 1, "of": 2, "mean_return": mixed.mean_return}
    assert mixed.best(0.5).metadata["selected"] == [mixed.metadata["selected"], step]


def test_the_return_of_all_that_was_recorded_is_remembered():
    demos = with_returns([[1, 2, 3, 6], [1, 2, 3, 6]])
    assert demos.recorded_return == demos.mean_return == 3
    chosen = demos.best(0.5).subset(1)
    assert (chosen.mean_return, chosen.recorded_return) == (3, 3)
    assert demos.best(0.5).shuffled(0).recorded_return == 3
    other = with_returns([[4, 5], [4, 5]]).subset(1)
    mixed = Demonstrations.mix({"agent_0": chosen, "agent_1": other})
    assert mixed.recorded_return == mixed.best(1).recorded_return == (3 + 4.5) / 2
    for empty in (None, [], {}):
        assert replace(demos, metadata={"selected": empty}).recorded_return == 3
    of_steps = ([{"kept": 1}], *([{"kept": 1, "mean_return": odd}] for odd in ("x", 10**400)))
    for odd in (3, "x", [3], *of_steps, {"a": None}, [{"a": None}]):
        with pytest.raises(ValueError, match="do not say what all recorded episodes returned"):
            _ = replace(demos, metadata={"selected": odd}).recorded_return
    with pytest.raises(ValueError, match="use the number of the recording itself"):
        _ = Demonstrations.mix({"agent_0": chosen, "agent_1": demos}).recorded_return  # not known of agent_1


def test_a_tiny_share_keeps_one_episode():
    assert len(make().best(1e-12)) == 1


@pytest.mark.parametrize("first", ["agent_0", "agent_1"])
def test_mixed_demonstrations_have_actions_if_all_their_agents_have(first):
    plain, second = make(), "agent_1" if first == "agent_0" else "agent_0"
    without = Demonstrations.from_episodes([{"agent_0": np.ones((2, 3)), "agent_1": np.ones((2, 2))}])
    unknown = replace(plain, actions=np.zeros_like(plain.actions), metadata={})
    assert (plain.has_actions, without.has_actions, unknown.has_actions) == (True, False, False)
    assert Demonstrations.mix({first: plain, second: plain}).has_actions
    assert not Demonstrations.mix({first: plain, second: without}).has_actions
    assert not Demonstrations.mix({first: unknown, second: unknown}).has_actions
    assert not Demonstrations.mix({first: plain, second: without}).best(1.0).has_actions


def test_mixed_demonstrations_keep_the_scenario_that_is_known():
    known, unknown, third = make(sizes=(3, 2, 2)), make(sizes=(3, 2, 2), env_id=None), make(sizes=(3, 2, 2), env_id="other")
    mixed = Demonstrations.mix({"agent_0": unknown, "agent_1": known, "agent_2": unknown})
    assert mixed.env_id == "tiny"
    assert Demonstrations.mix({"agent_0": unknown}).env_id is None
    with pytest.raises(ValueError, match="of one scenario, but got 'tiny' and 'other'"):
        Demonstrations.mix({"agent_0": unknown, "agent_1": known, "agent_2": third})


def test_mixed_demonstrations_keep_continuous_actions_that_came_as_integers():
    smooth = replace(make(), actions=np.full((9, 2, 2), 0.25))
    whole = replace(make(), actions=np.ones((9, 2, 2), int))
    mixed = Demonstrations.mix({"agent_0": whole, "agent_1": smooth})
    assert mixed.actions[0].tolist() == [[1, 1], [0.25, 0.25]]


@pytest.mark.parametrize(
    ("sources", "match"),
    [
        ([make()], r"mix\(\) needs a dict from each agent to its demonstrations, got \[Demonstrations"),
        (None, "got None"),
        ({"agent_0": "experts.npz"}, r"mix\(\) needs Demonstrations for each agent, got 'experts.npz' for 'agent_0'"),
    ],
)
def test_what_cannot_be_mixed(sources, match):
    with pytest.raises(TypeError, match=match):
        Demonstrations.mix(sources)


def test_a_share_that_is_a_whole_number_of_episodes_is_not_rounded_up():
    demos = with_returns([list(range(100))] * 2)
    assert [len(demos.best(share)) for share in (0.07, 0.14, 0.071)] == [7, 14, 8]  # 0.07 * 100 is 7.000000000000001


def test_of_equal_episodes_among_others_the_earlier_are_kept():
    kept = episodes(with_returns([[1.0, 0.0, 2.0] * 32] * 2).best(0.5), 0)
    assert kept == sorted([*range(2, 96, 3), *range(0, 48, 3)])


def test_mixed_demonstrations_forget_the_first_sources_places_and_seed():
    demos = make(sizes=(3, 2, 4))
    swapped = Demonstrations.mix(dict.fromkeys(("agent_1", "agent_0"), demos))
    assert swapped.positions == (1, 0)
    again = Demonstrations.mix(dict.fromkeys(("agent_0", "agent_1"), swapped))
    assert again.positions == (0, 1)
    assert "positions" not in again.metadata
    assert demos.metadata["seed"] == 0
    assert swapped.metadata["seed"] is None


def test_only_actions_of_one_kind_can_be_mixed():
    discrete, wide = make(), replace(make(), actions=np.full((9, 2, 3), 0.25))
    with pytest.raises(ValueError, match=r"actions of one kind, but one source has discrete and another \(3,\)"):
        Demonstrations.mix({"agent_0": discrete, "agent_1": wide})
