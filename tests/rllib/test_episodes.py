"""Mixed rewards of RLlib's episodes against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

import dm2_wrappers as dm2

pytest.importorskip("ray.rllib", reason="needs the extra rllib")

from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from dm2_wrappers.rllib.episodes import mix_rewards

C = {"a": 0.5, "b": 2.0}


@pytest.fixture
def matcher():
    rng = np.random.default_rng(0)
    experts = [{agent: rng.normal(1, 0.3, (6, 2)).astype(np.float32) for agent in "ab"} for _ in range(3)]
    return dm2.DistributionMatcher(dm2.Demonstrations.from_episodes(experts), updates=2, batch_size=8, seed=0)


def episode(steps=4, *, rewards=1.5, dead_from=None, broken=False, end=None, arrays=True, masks=False, seed=0):
    """Both agents' steps with random observations; "b" is dead from step ``dead_from`` on."""
    rng = np.random.default_rng(seed)

    def observe():
        seen = {agent: rng.normal(size=2).astype(np.float32) for agent in "ab"}
        return {a: {"observation": o, "action_mask": np.ones(3, np.int8)} for a, o in seen.items()} if masks else seen

    def infos(t, over):
        alive = {"a": True, "b": dead_from is None or t < dead_from}
        return {agent: {"alive": alive[agent]} | ({"broken": True} if broken and over else {}) for agent in "ab"}

    made = MultiAgentEpisode()
    made.add_env_reset(observations=observe(), infos=infos(0, False))
    for t in range(1, steps + 1):
        flags = dict.fromkeys("ab", t == steps)
        made.add_env_step(
            observe(),
            dict.fromkeys("ab", 0),
            dict.fromkeys("ab", rewards),
            infos(t, t == steps),
            terminateds=flags if end == "terminated" else {},
            truncateds=flags if end == "truncated" else {},
        )
    return made.to_numpy() if arrays else made


def rewards(mixed):
    return {agent: piece.get_rewards() for agent, piece in mixed.agent_episodes.items()}


def seen(made, agent):
    """What an agent saw before its actions."""
    return made.agent_episodes[agent].get_observations(slice(0, len(made)))


def expected(matcher, made, env_coefficient=1.0, env_reward=1.5):
    """By hand, one step at a time, under the discriminators as they are now."""
    return {
        agent: [
            np.float32(env_coefficient * env_reward) + np.float32(C[agent] * matcher.rewards({agent: row})[agent])
            for row in seen(made, agent)
        ]
        for agent in "ab"
    }


def test_each_step_is_paid_by_the_updated_discriminators(matcher):
    before = matcher.rewards(np.zeros((1, 2, 2), np.float32))
    first, second = episode(seed=1), episode(3, seed=2)
    mixed, metrics = mix_rewards([first, second], matcher, C, 0.25)
    assert (matcher.rewards(np.zeros((1, 2, 2), np.float32)) != before).all()
    for one, made in zip(mixed, (first, second), strict=True):
        by_hand = expected(matcher, made, env_coefficient=0.25)
        for agent in "ab":
            np.testing.assert_allclose(rewards(one)[agent], by_hand[agent], rtol=1e-5, atol=1e-6)
    assert metrics["transitions"] == 14
    assert metrics["env_reward/a"] == 1.5
    by_hand = np.mean([matcher.rewards({"b": row})["b"] for made in (first, second) for row in seen(made, "b")])
    assert metrics["gail_reward/b"] == pytest.approx(by_hand, abs=1e-6)


def test_dead_agents_are_not_recorded_and_get_the_team_reward_alone(matcher):
    made = episode(dead_from=3)
    mixed, metrics = mix_rewards([made], matcher, C, 1.0)
    by_hand = expected(matcher, made)
    np.testing.assert_allclose(rewards(mixed[0])["a"], by_hand["a"], rtol=1e-5)
    np.testing.assert_allclose(rewards(mixed[0])["b"], [*by_hand["b"][:3], 1.5], rtol=1e-5)
    assert metrics["transitions"] == 4 + 3


def test_broken_episodes_are_not_recorded(matcher):
    whole, lost = episode(seed=1), episode(seed=2, broken=True, end="truncated")
    mixed, metrics = mix_rewards([lost, whole], matcher, C, 1.0)
    assert metrics["transitions"] == 8
    assert rewards(mixed[0])["a"].tolist() == [1.5] * 4
    np.testing.assert_allclose(rewards(mixed[1])["a"], expected(matcher, whole)["a"], rtol=1e-5)


def test_all_pieces_of_a_broken_episode_in_a_rollout_are_left_out(matcher):
    earlier, last = episode(seed=1), episode(seed=2, broken=True, end="truncated")
    last.id_ = earlier.id_
    pieces = last.agent_episodes
    del pieces["b"].infos[-1]["broken"]  # as of an agent that left before the simulator failed
    whole = episode(seed=3)
    mixed, metrics = mix_rewards([earlier, last, whole], matcher, C, 1.0)
    assert metrics["transitions"] == 8
    for piece in mixed[:2]:
        assert {agent: each.tolist() for agent, each in rewards(piece).items()} == {"a": [1.5] * 4, "b": [1.5] * 4}
    np.testing.assert_allclose(rewards(mixed[2])["b"], expected(matcher, whole)["b"], rtol=1e-5)


def test_a_rollout_of_broken_episodes_trains_nothing(matcher):
    before = matcher.state_dict()["discriminators"]
    mixed, metrics = mix_rewards([episode(broken=True, end="truncated")], matcher, C, 2.0)
    assert metrics["trained"] == 0
    assert rewards(mixed[0])["b"].tolist() == [3.0] * 4
    assert str(matcher.state_dict()["discriminators"]) == str(before)


def test_whole_numbers_and_read_only_arrays_are_mixed_without_loss(matcher):
    """Episodes from another process are read-only, and whole rewards make RLlib's array one of integers."""
    made = episode(rewards=1)
    for piece in made.agent_episodes.values():
        piece.rewards.data = np.ones(4, np.int64)
        piece.rewards.data.setflags(write=False)
    mixed, _ = mix_rewards([made], matcher, C, 1.0)
    np.testing.assert_allclose(rewards(mixed[0])["a"], expected(matcher, made, env_reward=1)["a"], rtol=1e-5)


def test_the_given_episodes_stay_as_they_are(matcher):
    """A local runner computes the returns of episodes that go on in the next rollout from them."""
    made = episode(end="truncated")
    flags = made.agent_episodes["a"].is_terminated
    mix_rewards([made], matcher, C, 1.0)
    assert rewards(made)["a"].tolist() == [1.5] * 4
    assert made.agent_episodes["a"].is_terminated == flags


@pytest.mark.parametrize(("end", "terminated"), [("truncated", False), ("terminated", True)])
def test_a_time_limit_that_rllib_calls_a_termination_is_a_truncation_again(matcher, end, terminated):
    made = episode(end=end)
    assert made.agent_episodes["a"].is_terminated, "RLlib does not do this any more: leave the correction out"
    [mixed], _ = mix_rewards([made], matcher, C, 1.0)
    assert [piece.is_terminated for piece in mixed.agent_episodes.values()] == [terminated] * 2
    assert [piece.is_truncated for piece in mixed.agent_episodes.values()] == [not terminated] * 2


def test_pieces_of_an_episode_count_each_step_once(matcher):
    """A rollout that ends in mid-episode: the next piece begins with the last observation of the one before."""
    made = episode(arrays=False)
    following = made.cut(len_lookback_buffer=2)
    following.add_env_step(
        {agent: np.full(2, 9, np.float32) for agent in "ab"}, dict.fromkeys("ab", 0), dict.fromkeys("ab", 1.5)
    )
    first, second = made.to_numpy(), following.to_numpy()
    _, metrics = mix_rewards([first], matcher, C, 1.0)
    assert metrics["transitions"] == 8
    [mixed], metrics = mix_rewards([second], matcher, C, 1.0)
    assert metrics["transitions"] == 2
    last = first.agent_episodes["a"].get_observations(-1)
    paid = 1.5 + 0.5 * matcher.rewards({"a": last})["a"]
    np.testing.assert_allclose(mixed.agent_episodes["a"].get_rewards(), [paid], rtol=1e-5)


def test_masks_are_left_out_and_lists_are_converted(matcher):
    made = episode(masks=True, arrays=False)
    [mixed], _ = mix_rewards([made], matcher, C, 1.0)
    piece = mixed.agent_episodes["a"]
    by_hand = [1.5 + 0.5 * matcher.rewards({"a": row})["a"] for row in piece.get_observations()["observation"][:-1]]
    np.testing.assert_allclose(piece.get_rewards(), by_hand, rtol=1e-5)


def test_single_agent_episodes_are_refused(matcher):
    with pytest.raises(TypeError, match="needs the episodes of a multi-agent environment, got SingleAgentEpisode"):
        mix_rewards([episode().agent_episodes["a"]], matcher, C, 1.0)
