"""A ParallelEnv as RLlib's multi-agent environment, checked through RLlib's own episodes."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

import dm2_wrappers as dm2
from tests.helpers.tiny_envs import TinyEnv

pytest.importorskip("ray.rllib", reason="needs the extra rllib")

from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode


def make(**options):
    return dm2.rllib.RLlibEnv({"make_env": lambda: TinyEnv(**options)})


def play(env, seed=0):
    """One episode with the first action, as RLlib's runner records it."""
    episode = MultiAgentEpisode(observation_space=env.observation_spaces, action_space=env.action_spaces)
    observations, infos = env.reset(seed=seed)
    episode.add_env_reset(observations=observations, infos=infos)
    while not episode.is_done:
        actions = dict.fromkeys(episode.get_agents_to_act(), 0)
        observations, rewards, terminations, truncations, infos = env.step(actions)
        episode.add_env_step(observations, actions, rewards, infos, terminateds=terminations, truncateds=truncations)
    return episode


def ends(episode):
    """Each agent's number of steps, and whether its end is a termination or a truncation."""
    return {a: (len(e), e.is_terminated, e.is_truncated) for a, e in episode.agent_episodes.items()}


def test_agents_keep_the_order_of_the_environment():
    env = make(sizes=(3, 2, 4, 1, 2))
    assert env.possible_agents == [f"agent_{k}" for k in range(5)] == list(env.observation_spaces)
    assert env.get_observation_space("agent_2").shape == (4,)


def test_a_time_limit_is_a_truncation_of_every_agent():
    assert ends(play(make(limit=4))) == {"agent_0": (4, False, True), "agent_1": (4, False, True)}


def test_an_end_is_a_termination_of_every_agent():
    assert ends(play(make(limit=4, truncates=False))) == {"agent_0": (4, True, False), "agent_1": (4, True, False)}


def test_an_agent_that_dies_leaves_and_the_others_are_cut_off():
    episode = play(make(limit=4, lifetimes=(2, None)))
    assert ends(episode) == {"agent_0": (2, True, False), "agent_1": (4, False, True)}


def test_a_death_in_the_last_step_stays_a_termination():
    """GAE looks at the termination first, so a truncation mark next to it does no harm."""
    episode = play(make(limit=4, lifetimes=(4, None)))
    assert not episode.is_terminated
    assert episode.agent_episodes["agent_0"].is_terminated
    assert not episode.agent_episodes["agent_1"].is_terminated
    assert episode.agent_episodes["agent_1"].is_truncated


def test_dead_agents_that_stay_say_so_in_their_infos():
    episode = play(make(limit=4, lifetimes=(2, None), absorb=True))
    assert [info["alive"] for info in episode.agent_episodes["agent_0"].get_infos()] == [True, True, False, False, False]


class LateEnv(TinyEnv):
    """agent_1 joins after the first step."""

    def reset(self, seed=None, options=None):
        observations, infos = super().reset(seed, options)
        self.agents = ["agent_0"]
        return {"agent_0": observations["agent_0"]}, {"agent_0": infos["agent_0"]}

    def step(self, actions):
        result = super().step(actions)
        if self.t == 1:
            self.agents = list(self.possible_agents)
            result[0]["agent_1"] = np.full(2, 7, np.float32)
        return result


def test_agents_may_join_late():
    episode = play(dm2.rllib.RLlibEnv({"make_env": LateEnv}))
    assert ends(episode) == {"agent_0": (5, False, True), "agent_1": (4, False, True)}
    assert episode.agent_episodes["agent_1"].get_observations(0)[0] == 7


class RelayEnv(LateEnv):
    """agent_0 leaves when agent_1 joins."""

    def step(self, actions):
        observations, rewards, _, truncations, infos = super().step(actions)
        self.agents = ["agent_1"]
        return observations, rewards, {"agent_0": True}, truncations, infos


def test_a_complete_change_of_agents_is_refused():
    env = dm2.rllib.RLlibEnv({"make_env": RelayEnv})
    env.reset()
    with pytest.raises(RuntimeError, match=r"all agents have left, and \['agent_1'\] join"):
        env.step({"agent_0": 0})


def test_actions_are_counted_from_zero():
    env = make(start=5, actions=3)
    assert env.action_spaces["agent_0"] == spaces.Discrete(3)
    env.reset()
    env.step({"agent_0": 2, "agent_1": 0})
    assert env.env.last == {"agent_0": 7.0, "agent_1": 5.0}


def test_runners_that_are_seeded_alike_play_different_episodes():
    firsts = []
    for worker in (1, 2, 1):
        env = dm2.rllib.RLlibEnv(EnvContext({"make_env": lambda: TinyEnv(sizes=(5, 5))}, worker_index=worker))
        firsts.append(env.reset(seed=3)[0]["agent_0"])
    assert (firsts[0] == firsts[2]).all()
    assert (firsts[0][2:] != firsts[1][2:]).all()


def test_infos_are_not_the_environments_own():
    env = make(absorb=True)
    shared = {"alive": True}
    env.env._info = lambda agent: shared
    assert env.reset()[1]["agent_0"] == shared
    assert env.reset()[1]["agent_0"] is not shared


def test_wrong_environments_are_refused():
    with pytest.raises(ValueError, match=r"needs a function that makes the ParallelEnv: call \.environment\(make_env\)"):
        dm2.rllib.RLlibEnv({})
    with pytest.raises(TypeError, match="must return a PettingZoo ParallelEnv, got dict"):
        dm2.rllib.RLlibEnv({"make_env": dict})
    demos = dm2.Demonstrations.record(TinyEnv(), lambda observations: dict.fromkeys(observations, 0), 2)
    with pytest.raises(ValueError, match="every env runner would train discriminators of its own"):
        dm2.rllib.RLlibEnv({"make_env": lambda: dm2.DM2ParallelEnv(TinyEnv(), demos, coefficient=1.0)})


class BareEnv(TinyEnv):
    """An environment that takes no options, returns None for infos and keeps its agents listed after their end."""

    def reset(self, seed=None):
        return super().reset(seed)[0], None

    def step(self, actions):
        observations, rewards, terminations, truncations, _ = super().step(actions)
        self.agents = list(self.possible_agents)
        return observations, rewards, terminations, truncations, None


def test_environments_are_read_as_everywhere_else():
    episode = play(dm2.rllib.RLlibEnv({"make_env": lambda: BareEnv(limit=4)}))
    assert ends(episode) == {"agent_0": (4, False, True), "agent_1": (4, False, True)}


class SilentEnv(TinyEnv):
    """agent_1 leaves after two steps, and no dict says so."""

    def step(self, actions):
        result = super().step(actions)
        if self.t >= 2:
            self.agents = ["agent_0"] if self.agents else []
            for part in result:
                part.pop("agent_1", None)
        return result


def test_an_agent_that_leaves_without_a_word_has_died():
    episode = play(dm2.rllib.RLlibEnv({"make_env": lambda: SilentEnv(limit=4)}))
    assert ends(episode) == {"agent_0": (4, False, True), "agent_1": (2, True, False)}


class ReturningEnv(TinyEnv):
    """agent_1 is away in the second step."""

    def step(self, actions):
        self.agents = list(self.possible_agents)
        result = super().step({agent: actions.get(agent, 0) for agent in self.agents})
        self.agents = ["agent_0"] if self.t == 1 else list(self.possible_agents)
        return result


def test_an_agent_that_comes_back_is_refused():
    env = dm2.rllib.RLlibEnv({"make_env": ReturningEnv})
    env.reset()
    env.step({"agent_0": 0, "agent_1": 0})
    with pytest.raises(RuntimeError, match=r"\['agent_1'\] come back in the episode that they left"):
        env.step({"agent_0": 0})


def test_what_does_not_fit_the_spaces_is_refused():
    env = make()
    env.env._observe = lambda agent: np.zeros(7, np.float32)
    with pytest.raises(ValueError, match="an observation of agent 'agent_0' that is not in its observation_space"):
        env.reset()
