"""What the environments here promise, the same for every backend.

SMAC's runs on a double of its ``StarCraft2Env`` always, and on the genuine package where that and StarCraft II are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from numpy.testing import assert_allclose, assert_array_equal
from pettingzoo.test import parallel_api_test, parallel_seed_test

import dm2_wrappers as dm2
from tests.helpers import genuine_smac, smac_double

close = {"rtol": 1e-5, "atol": 1e-5}


@dataclass
class Backend:
    """One backend, and how to fight in it."""

    env_id: str
    options: dict[str, Any]
    idle: int  # the no-op of the living
    idle_dead: int
    east: int
    first_attack: int

    def __post_init__(self) -> None:
        self.opened: list[Any] = []

    def parallel(self, **options: Any) -> Any:
        self.opened.append(dm2.envs.parallel_env(self.env_id, **self.options, **options))
        return self.opened[-1]

    def vector(self, num_envs: int, **options: Any) -> Any:
        self.opened.append(dm2.envs.vector_env(self.env_id, num_envs, **self.options, **options))
        return self.opened[-1]

    def wait(self, env: Any, alive: Any) -> dict[str, int]:
        return {agent: self.idle if alive[agent] else self.idle_dead for agent in env.agents}

    def fight(self, observations: dict, agents: list[str]) -> dict[str, int]:
        """Attack the first target in range, else advance."""
        actions = {}
        for agent in agents:
            mask = observations[agent]["action_mask"]
            targets = np.flatnonzero(mask[self.first_attack :])
            wish = self.first_attack + targets[0] if len(targets) else self.east
            actions[agent] = int(wish) if mask[wish] else int(np.flatnonzero(mask)[0])
        return actions


@pytest.fixture(params=["smax", "double", pytest.param("smac", marks=pytest.mark.smac)])
def backend(request) -> Iterator[Backend]:
    if request.param == "smax":
        pytest.importorskip("jaxmarl", reason="the extra smax is not installed")
        chosen = Backend("smax:3m", {}, idle=4, idle_dead=4, east=1, first_attack=5)
    else:
        if request.param == "smac" and (reason := genuine_smac.missing()):
            pytest.skip(reason)
        options = {"simulator": smac_double.StarCraft2Env} if request.param == "double" else {}
        chosen = Backend("smac:3m", options, idle=1, idle_dead=0, east=4, first_attack=6)
    yield chosen
    for env in chosen.opened:
        env.close()


both_deaths = pytest.mark.parametrize("death", ["absorb", "remove"])


def random_legal(observations: dict, agents: list[str], rng: np.random.Generator) -> dict[str, int]:
    return {agent: int(rng.choice(np.flatnonzero(observations[agent]["action_mask"]))) for agent in agents}


def episodes(env: Any, count: int, choose: Callable[[dict, list[str]], dict], seed: int | None = None) -> Iterator[tuple]:
    """Each step of ``count`` episodes: agents before it, what was known, the actions, what came."""
    for _ in range(count):
        observations, infos = env.reset(seed=seed)
        seed = None
        while env.agents:
            present = list(env.agents)
            actions = choose(observations, present)
            result = env.step(actions)
            yield present, observations, infos, result
            observations, infos = result[0], result[4]


# --- PettingZoo's own tests -------------------------------------------------------------------------------------------


@both_deaths
def test_pettingzoo_api(backend, death):
    parallel_api_test(backend.parallel(death=death, invalid_action="noop"), num_cycles=150)


def test_pettingzoo_seed(backend):
    parallel_seed_test(lambda: backend.parallel(invalid_action="noop"), num_cycles=40)


# --- names, spaces, observations, infos -------------------------------------------------------------------------------


def test_names_and_spaces(backend):
    env = backend.parallel()
    assert env.env_id == env.metadata["name"] == backend.env_id
    assert len(env.possible_agents) == len(set(env.possible_agents)) == 3
    assert env.agents == []
    for agent in env.possible_agents:
        space = env.observation_space(agent)
        assert env.observation_space(agent) is space
        assert env.action_space(agent) is env.action_space(agent)
        assert space["action_mask"].shape == (env.action_space(agent).n,)
        assert space["action_mask"].dtype == np.int8
        assert space["observation"].dtype == np.float32
    again = backend.parallel()
    assert again.possible_agents == env.possible_agents
    assert again.observation_space(agent) == space


@both_deaths
def test_what_agents_see_and_are_told(backend, death):
    env, rng = backend.parallel(death=death), np.random.default_rng(0)
    deaths = kept = 0
    steps = episodes(env, 3, lambda seen, agents: random_legal(seen, agents, rng), seed=2)
    for present, _, infos, (seen, rewards, terminations, truncations, after) in steps:
        assert list(seen) == list(rewards) == list(terminations) == list(truncations) == list(after) == present
        over = not env.agents
        assert len(set(rewards.values())) == 1  # the team's, for all that are there
        assert env.state_space.contains(env.state())
        for agent in present:
            assert env.observation_space(agent).contains(seen[agent])
            assert set(after[agent]) >= {"alive", "battle_won", "broken"}
            assert after[agent]["broken"] is False
            observation, mask = seen[agent]["observation"], seen[agent]["action_mask"]
            alive = after[agent]["alive"]
            assert isinstance(alive, bool)
            assert mask.sum() >= 1
            if alive:
                assert observation.any()
                assert mask[backend.idle] == 1
            else:
                assert not observation.any()
                assert np.flatnonzero(mask).tolist() == [backend.idle_dead]
            died = infos[agent]["alive"] and not alive
            deaths += died
            kept += not infos[agent]["alive"]
            ended = terminations[agent] or truncations[agent]
            assert (agent in env.agents) == (not ended)
            if death == "remove":
                assert infos[agent]["alive"]  # the dead are gone
                assert terminations[agent] >= died
            else:
                assert ended == over  # the dead stay
    assert deaths >= 3
    assert (kept > 0) == (death == "absorb")


def test_arrays_belong_to_the_caller(backend):
    env = backend.parallel()
    observations, infos = env.reset(seed=0)
    assert all(infos[agent]["alive"] for agent in env.agents)
    before = {agent: {key: array.copy() for key, array in seen.items()} for agent, seen in observations.items()}
    state = env.state()
    state_before = state.copy()
    for _ in range(3):
        env.step(dict.fromkeys(env.agents, backend.east))
    assert_array_equal(state, state_before)
    for agent, seen in observations.items():
        for key, array in seen.items():
            assert_array_equal(array, before[agent][key])
        seen["observation"][:] = np.nan
    assert np.isfinite(env.step(dict.fromkeys(env.agents, backend.idle))[0][agent]["observation"]).all()


# --- ends of episodes -------------------------------------------------------------------------------------------------


@both_deaths
def test_a_time_limit_is_a_truncation_and_nothing_else(backend, death):
    env = backend.parallel(max_steps=3, death=death)
    ends = []
    for _, _, _, (_, _, terminations, truncations, infos) in episodes(
        env, 2, lambda seen, _: backend.wait(env, dict.fromkeys(seen, True))
    ):
        assert not any(terminations.values())
        assert all(truncations.values()) == any(truncations.values())
        assert not any(info["battle_won"] for info in infos.values())
        ends.append(any(truncations.values()))
    assert ends == [False, False, True] * 2
    with pytest.raises(RuntimeError, match=r"call reset\(\)"):
        env.step({})


def test_a_battle_that_is_won_or_lost_is_a_termination_and_a_win_returns_twenty(backend):
    env = backend.parallel()
    returns, total = {True: [], False: []}, 0.0
    for present, _, _, (_, rewards, terminations, truncations, infos) in episodes(env, 12, backend.fight, seed=0):
        total += rewards[present[0]]
        won = {info["battle_won"] for info in infos.values()}
        assert len(won) == 1
        if env.agents:
            assert won == {False}
            continue
        assert all(terminations.values())
        assert not any(truncations.values())
        assert any(info["alive"] for info in infos.values()) == won.copy().pop()
        returns[won.pop()].append(total)
        total = 0.0
    assert returns[True]
    assert_allclose(returns[True], 20.0, rtol=1e-5)
    assert max(returns[False], default=0.0) < 20.0


def test_reset_in_the_midst_of_an_episode(backend):
    env = backend.parallel(death="remove")
    first, _ = env.reset(seed=0)
    for _ in range(2):
        env.step(dict.fromkeys(env.agents, backend.east))
    again, infos = env.reset()
    assert env.agents == env.possible_agents == list(again) == list(infos)
    agent = env.agents[0]
    assert all(info["alive"] for info in infos.values())
    assert again[agent]["observation"].shape == first[agent]["observation"].shape


# --- actions ----------------------------------------------------------------------------------------------------------


def test_an_illegal_action_is_refused_and_changes_nothing(backend):
    env, twin = backend.parallel(), backend.parallel()
    env.reset(seed=1), twin.reset(seed=1)
    one, other, third = env.agents
    for wrong in (backend.first_attack, -1, 99):  # the enemy is out of range
        with pytest.raises(ValueError, match=rf"action {wrong} of agent '{other}' .* is not available"):
            env.step({one: backend.east, other: wrong, third: backend.east})
    with pytest.raises(ValueError, match="expected one action for each of"):
        env.step({one: backend.east, other: backend.east})
    with pytest.raises(ValueError, match="expected one action for each of"):
        env.step({**dict.fromkeys(env.agents, backend.east), "nobody": 1})
    with pytest.raises(ValueError, match="must be integers"):
        env.step({one: 1.0, other: 1.0, third: 1.0})
    for _ in range(3):
        mine, theirs = (each.step(dict.fromkeys(each.agents, backend.east)) for each in (env, twin))
        assert mine[1:] == theirs[1:]
        assert_array_equal(env.state(), twin.state())
        for agent in env.agents:
            assert_array_equal(mine[0][agent]["observation"], theirs[0][agent]["observation"])


def test_noop_does_nothing_instead(backend):
    env, twin = backend.parallel(invalid_action="noop"), backend.parallel()
    env.reset(seed=1), twin.reset(seed=1)
    one, other, third = env.agents
    mine = env.step({one: backend.east, other: backend.first_attack, third: 99})
    theirs = twin.step({one: backend.east, other: backend.idle, third: backend.idle})
    for agent in env.agents:
        assert_array_equal(mine[0][agent]["observation"], theirs[0][agent]["observation"])


@pytest.mark.parametrize(
    "option", [{"death": "none"}, {"invalid_action": "ignore"}, {"max_steps": 0}, {"render_mode": "ansi"}]
)
def test_options_are_validated(backend, option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        backend.parallel(**option)
    with pytest.raises(TypeError, match="no_such_option"):
        backend.parallel(no_such_option=1)


# --- seeds ------------------------------------------------------------------------------------------------------------


def trace(env: Any, count: int, seed: int | None, backend: Backend) -> list[float]:
    rewards = []
    for _, seen, _, result in episodes(env, count, backend.fight, seed=seed):
        rewards += [seen[agent]["observation"].sum() for agent in seen] + list(result[1].values())
    return rewards


def test_a_seed_fixes_this_episode_and_the_ones_after_it(backend):
    env, other = backend.parallel(), backend.parallel()
    first = trace(env, 2, 5, backend)
    assert trace(env, 2, 5, backend) == first
    assert trace(other, 2, 5, backend) == first
    assert trace(env, 1, 6, backend) != first[: len(first) // 2]
    assert trace(env, 1, None, backend) == trace_after(other, 6, backend)
    for unusual in (-1, 2**40):
        env.reset(seed=unusual)


def trace_after(env: Any, seed: int, backend: Backend) -> list[float]:
    """The second episode after a reset with ``seed``."""
    trace(env, 1, seed, backend)
    return trace(env, 1, None, backend)


# --- the same, as arrays ----------------------------------------------------------------------------------------------


@both_deaths
def test_a_vector_environment_plays_what_parallel_ones_play(backend, death):
    copies = 3
    venv = backend.vector(copies, death=death)
    with pytest.raises(RuntimeError, match=r"reset\(\)"):
        venv.step(np.full((copies, 3), backend.idle))
    envs = [backend.parallel(death=death) for _ in range(copies)]
    agents, rng = venv.possible_agents, np.random.default_rng(0)
    assert agents == tuple(envs[0].possible_agents)
    assert venv.env_id == backend.env_id
    assert venv.discrete
    assert venv.num_agents == venv.max_num_agents == 3
    assert venv.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert venv.unwrapped is venv
    width, actions_n = venv.observation_space(agents[0]).shape[0], int(venv.action_space(agents[0]).n)
    observations, infos = venv.reset(seed=7)
    assert set(infos) == {"present", "alive", "action_mask", "state"}
    assert infos["present"].all()
    views = [env.reset(seed=7 + i) for i, env in enumerate(envs)]
    ended, illegal_refused = np.zeros(copies, int), 0
    for t in range(130):
        assert observations.shape == (*infos["alive"].shape, width) == (copies, 3, width)
        assert observations.dtype == np.float32
        assert infos["action_mask"].shape == (copies, 3, actions_n)
        for i, (env, (seen, said)) in enumerate(zip(envs, views, strict=True)):
            assert_allclose(env.state(), infos["state"][i], **close)
            for k, agent in enumerate(agents):
                assert infos["present"][i, k] == (agent in env.agents)
                if agent in env.agents:
                    assert_allclose(seen[agent]["observation"], observations[i, k], **close)
                    assert_array_equal(seen[agent]["action_mask"], infos["action_mask"][i, k])
                    assert said[agent]["alive"] == infos["alive"][i, k]
                else:
                    assert not observations[i, k].any()
                    assert not infos["alive"][i, k]
                    assert np.flatnonzero(infos["action_mask"][i, k]).tolist() == [backend.idle_dead]
        masks = infos["action_mask"]
        actions = np.where(masks, rng.random(masks.shape), -1).argmax(-1)
        if not masks.all() and t % 10 == 0:
            copy, k, action = np.argwhere(~masks)[0]
            bad = actions.copy()
            bad[copy, k] = action
            with pytest.raises(ValueError, match=rf"'{agents[k]}' in sub-environment {copy}"):
                venv.step(bad)
            illegal_refused += 1
        observations, rewards, terminations, truncations, infos = venv.step(actions)
        assert set(infos) >= {
            "present",
            "alive",
            "action_mask",
            "final_obs",
            "_final_obs",
            "final_alive",
            "broken",
            "battle_won",
            "state",
            "final_state",
        }
        assert not infos["broken"].any()
        done = (terminations | truncations).all(axis=1)
        assert_array_equal(infos["_final_obs"], done)
        for i, env in enumerate(envs):
            present = list(env.agents)
            seen, paid, terminated, truncated, said = env.step({agent: actions[i, agents.index(agent)] for agent in present})
            for k, agent in enumerate(agents):
                if agent not in present:
                    assert terminations[i, k]
                    assert rewards[i, k] == 0
                    continue
                assert paid[agent] == pytest.approx(rewards[i, k], abs=1e-4)
                assert terminated[agent] == terminations[i, k]
                assert truncated[agent] == truncations[i, k]
                assert_allclose(seen[agent]["observation"], infos["final_obs"][i, k], **close)
                assert said[agent]["alive"] == infos["final_alive"][i, k]
                assert said[agent]["battle_won"] == infos["battle_won"][i]
            assert_allclose(env.state(), infos["final_state"][i], **close)
            assert (not env.agents) == done[i]
            if done[i]:
                seen, said = env.reset()
                ended[i] += 1
            views[i] = seen, said
    assert (ended >= 1).all()
    assert illegal_refused
    with pytest.raises(ValueError, match=r"integers of shape \(3, 3\)"):
        venv.step(np.full((2, 2), backend.idle))


def test_copies_and_their_number(backend):
    for wrong in (0, -1, 2.0):
        with pytest.raises(ValueError, match="num_envs"):
            backend.vector(wrong)
    assert dm2.envs.default_num_envs(backend.env_id) >= 1
