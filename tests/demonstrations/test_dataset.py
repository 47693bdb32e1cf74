"""Demonstrations in memory: their numbers, the styles of the ablation, and whether they fit an environment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dm2_wrappers import Demonstrations
from tests.helpers.small_demonstrations import make


def rows(array: np.ndarray) -> list[tuple[float, ...]]:
    return sorted(map(tuple, array.tolist()))


def test_summary_numbers():
    demos = make()
    assert len(demos) == 3
    assert demos.agents == ("agent_0", "agent_1")
    assert demos.sizes == (3, 2)
    assert demos.env_id == "tiny"
    assert demos.win_rate == pytest.approx(2 / 3)
    assert demos.mean_return == pytest.approx(3.0)
    assert demos.mean_length == pytest.approx(3.0)
    assert make(won=(-1, -1, -1)).win_rate is None
    assert make(won=(1, -1, -1)).win_rate == 1  # of the only episode whose outcome is known
    assert make(won=(1, -1, 0)).win_rate == make(won=(1, -1, 0)).shuffled(0).win_rate == 0.5


def test_observations_are_live_steps_unpadded():
    demos = make()
    assert demos.observations("agent_0").shape == (9, 3)
    assert demos.observations("agent_1").shape == (6, 2)
    assert demos.observations("agent_0").dtype == np.float32
    assert demos.observations("agent_1")[:, 0].tolist() == [100, 101, 101, 102, 102, 102]
    with pytest.raises(ValueError, match="no agent 'marine'"):
        demos.observations("marine")


def test_subset_takes_the_first_episodes():
    two = make().subset(2)
    assert len(two) == 2
    assert two.observations("agent_0")[:, 0].tolist() == [0, 0, 1, 1, 1]
    assert two.win_rate == 0.5
    assert len(make().subset(3)) == 3
    assert two.metadata["selected"] == [{"subset": 2, "kept": 2, "of": 3, "mean_return": make().mean_return}]
    for n in (0, 4, -1, True):
        with pytest.raises(ValueError, match="1 to 3"):
            make().subset(n)


def test_shuffled_keeps_each_agents_data_but_not_who_met_whom():
    demos = make(lengths=range(1, 31), won=[1, 0] * 15)
    shuffled = demos.shuffled(seed=1)
    for agent in demos.agents:
        assert rows(shuffled.observations(agent)) == rows(demos.observations(agent))
    order = [shuffled.padded_observations[shuffled.offsets[k, :-1], k, 0] % 100 for k in range(2)]
    assert not np.array_equal(*order)
    assert shuffled.style == "shuffled"
    assert shuffled.win_rate == demos.win_rate
    assert shuffled.mean_return == pytest.approx(demos.mean_return)
    assert np.array_equal(shuffled.offsets, demos.shuffled(seed=1).offsets)
    assert not np.array_equal(shuffled.offsets, demos.shuffled(seed=2).offsets)


def test_episodes_stay_whole_when_shuffled():
    shuffled = make(lengths=range(1, 11), won=[1] * 10).shuffled(seed=0).subset(4)
    for k in range(2):
        for start, end in zip(shuffled.offsets[k, :-1], shuffled.offsets[k, 1:], strict=True):
            episode = shuffled.padded_observations[start:end, k, 0][shuffled.alive[start:end, k]]
            assert len(set(episode.tolist())) <= 1
            assert all(value % 100 == end - start - 1 for value in episode)


def test_mix_takes_each_agent_from_its_own_team():
    one, other = make(seed=1), make(lengths=(5, 1), won=(0, 0), seed=2)
    mixed = Demonstrations.mix({"agent_1": other, "agent_0": one})
    assert mixed.agents == ("agent_1", "agent_0")  # the dict's order
    assert mixed.sizes == (2, 3)
    assert len(mixed) == 2  # the shortest
    assert mixed.win_rate is None
    assert mixed.style == "mixed"
    assert np.array_equal(mixed.observations("agent_0"), one.subset(2).observations("agent_0"))
    assert np.array_equal(mixed.observations("agent_1"), other.observations("agent_1"))
    assert mixed.mean_length == pytest.approx((5 + 6) / 4)
    assert mixed.shuffled(0).win_rate is None


def test_mix_keeps_each_agents_place():
    demos = make(sizes=(3, 2, 4))
    assert demos.positions == (0, 1, 2)
    one, two = (Demonstrations.mix(dict.fromkeys(agents, demos)) for agents in (("agent_2", "agent_0"), demos.agents))
    assert one.positions == one.shuffled(0).positions == one.subset(1).positions == one.filter(won=True).positions == (2, 0)
    assert Demonstrations.mix(dict.fromkeys(("agent_0", "agent_2"), one)).positions == (0, 2)
    assert "positions" not in two.metadata


def test_mix_errors():
    with pytest.raises(ValueError, match="empty"):
        Demonstrations.mix({})
    with pytest.raises(ValueError, match="no agent 'agent_7'"):
        Demonstrations.mix({"agent_7": make()})
    with pytest.raises(ValueError, match="one scenario"):
        Demonstrations.mix({"agent_0": make(), "agent_1": make(env_id="other")})


def test_mix_pads_to_the_widest_chosen_agent():
    mixed = Demonstrations.mix({"agent_1": make(sizes=(9, 2)), "agent_0": make(sizes=(4, 9))})
    assert mixed.padded_observations.shape[2] == 4
    assert mixed.observations("agent_1").shape[1] == 2


def test_check_compatible():
    demos = make()
    demos.check_compatible(("agent_0", "agent_1"), (3, 2))
    demos.check_compatible(["agent_0", "agent_1"], [3, 2], "tiny")
    make(env_id=None).check_compatible(demos.agents, demos.sizes, "other")
    with pytest.raises(ValueError, match=r"'smax:3m', but .* 'tiny'"):
        demos.check_compatible(demos.agents, demos.sizes, "smax:3m")
    with pytest.raises(ValueError, match=r"\['agent_0'\], the demonstrations' \['agent_0', 'agent_1'\]"):
        demos.check_compatible(["agent_0"], [3])
    with pytest.raises(ValueError, match="order"):
        demos.check_compatible(["agent_1", "agent_0"], [2, 3])
    with pytest.raises(ValueError, match=r"'agent_1' has 5 observation features .* 2 in the demonstrations"):
        demos.check_compatible(demos.agents, (3, 5))


def test_shuffled_takes_whole_numbers_for_its_seed():
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, got None"):
        make().shuffled(None)
    assert make().shuffled(np.int64(3)).metadata["shuffle_seed"] == 3


def test_shuffling_and_mixing_use_each_agents_own_offsets_and_wins():
    """Episodes e of agent 1 have other lengths and outcomes than agent 0's, so agent 0's would show."""
    shuffled = make(lengths=(1, 2, 4, 8), won=(1, 0, 0, 0)).shuffled(seed=1)
    assert not np.array_equal(*shuffled.offsets)
    assert not np.array_equal(*shuffled.won)
    mixed = Demonstrations.mix({"agent_1": shuffled, "agent_0": shuffled})
    for name in ("offsets", "won"):
        np.testing.assert_array_equal(getattr(mixed, name), getattr(shuffled, name)[::-1], err_msg=name)
    for demos in (shuffled, mixed, shuffled.subset(2), *(shuffled.shuffled(seed) for seed in range(2, 7))):
        for agent in range(2):
            seen = demos.padded_observations[demos.offsets[agent, :-1], agent, 0]
            episodes = (np.where(demos.alive[demos.offsets[agent, :-1], agent], seen, 0) % 100).astype(int)
            lengths = np.diff(demos.offsets[agent])
            # An episode of agent 1 that lasts one step shows 0: the agent is dead in an episode's last step.
            np.testing.assert_array_equal(lengths, np.array([1, 2, 4, 8])[episodes])
            np.testing.assert_array_equal(demos.won[agent], episodes == 0)


def test_a_win_rate_that_a_file_told_is_not_handed_on():
    """The metadata of a loaded file say its win rate; a choice of its episodes has another."""
    demos = make()
    told = Demonstrations(**{**vars(demos), "metadata": {**demos.metadata, "win_rate": 2 / 3}})
    assert "win_rate" not in told.subset(1).metadata
    assert "win_rate" not in told.filter(won=True).metadata


def test_whether_the_actions_are_known():
    demos = make()
    assert demos.has_actions
    still = replace(demos, actions=np.zeros_like(demos.actions))
    assert still.has_actions  # it was recorded: its metadata have a seed
    assert not replace(still, metadata={}).has_actions
    assert replace(demos, metadata={}).has_actions
    assert not Demonstrations.from_episodes([{"a": np.ones((2, 3))}]).has_actions
    assert Demonstrations.from_episodes([{"observations": {"a": np.ones((2, 3))}, "actions": {"a": [0, 0]}}]).has_actions


def test_the_mean_return_of_many_steps_is_summed_exactly():
    demos = replace(make(), rewards=np.array([[2.0**24, 2.0**24], *[[1.0, 1.0]] * 8], np.float32))
    assert demos.mean_return == (2**24 + 8) / 3
