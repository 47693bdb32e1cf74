"""SMAC's environment on a double of ``StarCraft2Env``: what must be handled and cannot be asked of every backend."""

from __future__ import annotations

import gc
import os
import random
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pettingzoo import ParallelEnv

import dm2_wrappers as dm2
from dm2_wrappers.envs import smac
from dm2_wrappers.envs.smac import install as smac_install
from dm2_wrappers.envs.smac import units as smac_units
from dm2_wrappers.envs.smac.render import old_shuffle
from tests.helpers.processes import children, gone, offspring
from tests.helpers.smac_double import MAPS, ConnectError, StarCraft2Env

NO_OP, STOP, EAST = 0, 1, 4


linux = pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks Linux for the processes that a worker has started")


def double(**attributes):
    """The double's class with other class attributes."""
    return type("StarCraft2Env", (StarCraft2Env,), attributes)


def make(map_name="3m", attributes=None, **options):
    return smac.parallel_env(map_name, simulator=double(**(attributes or {})), **options)


def stop_all(env):
    alive = dict(zip(env.possible_agents, env._alive, strict=True))
    return {agent: STOP if alive[agent] else NO_OP for agent in env.agents}


def play(env, steps):
    """Do nothing for so many steps; what the last one gave."""
    for _ in range(steps):
        result = env.step(stop_all(env))
    return result


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- names ------------------------------------------------------------------------------------------------------------


def test_names_count_within_a_type_wherever_its_units_stand():
    assert smac_units.number(["marine", "medivac", "marine", "medivac"]) == (
        "marine_0",
        "medivac_0",
        "marine_1",
        "medivac_1",
    )


@pytest.mark.parametrize(
    ("map_name", "map_type", "n", "expected"),
    [
        ("5m_vs_6m", "marines", 5, "marine marine marine marine marine"),
        ("3s_vs_4z", "stalkers", 3, "stalker stalker stalker"),
        ("2s3z", "stalkers_and_zealots", 5, "stalker stalker zealot zealot zealot"),
        ("1c3s5z", "colossi_stalkers_zealots", 9, "colossus stalker stalker stalker" + " zealot" * 5),
        ("MMM2", "MMM", 10, "marauder marauder" + " marine" * 7 + " medivac"),
        ("bane_vs_bane", "bane", 24, "baneling " * 4 + "zergling " * 20),
        ("2s3z", "stalkers_and_zealots", 6, "agent " * 6),  # another map of that name
        ("my_map", "stalkers_and_zealots", 2, "agent agent"),
        ("my_map", "my_type", 2, "agent agent"),
    ],
)
def test_unit_types_of_maps(map_name, map_type, n, expected):
    assert smac_units.ally_types(map_name, map_type, n) == expected.split()


def test_agents_are_named_before_starcraft_runs():
    env = make("2s3z")
    assert env.possible_agents == ["stalker_0", "stalker_1", "zealot_0", "zealot_1", "zealot_2"]
    assert env.game.starts == 0
    env.reset()
    # The game's units are in another order; SMAC sorts them by type, as the names have them.
    assert [env.game.smac.agents[k].unit_type for k in range(5)] == [2005, 2005, 2006, 2006, 2006]
    assert make("mine").possible_agents == ["agent_0", "agent_1"]
    mine = make("mine")
    mine.reset()


def test_units_of_other_types_than_the_names_say_are_refused(monkeypatch):
    monkeypatch.setitem(MAPS["2s3z"], "allies", [2005, 2006, 2006, 2006, 2006])
    env = make("2s3z")
    with pytest.raises(RuntimeError, match=r"units are stalker_0, zealot_0.*but stalker_0, stalker_1"):
        env.reset()
    assert env.agents == []


# --- observations -----------------------------------------------------------------------------------------------------


def test_last_action_and_agent_id_follow_smacs_features():
    env, bare = make(seed=1), make(seed=1, agent_id=False, last_action=False)
    only_id, only_last = make(seed=1, last_action=False), make(seed=1, agent_id=False)
    views = [each.reset()[0] for each in (env, bare, only_id, only_last)]
    for actions in (None, [EAST, STOP, 3], [STOP, EAST, EAST]):
        if actions is not None:
            joint = dict(zip(env.possible_agents, actions, strict=True))
            views = [each.step(joint)[0] for each in (env, bare, only_id, only_last)]
        for k, agent in enumerate(env.possible_agents):
            full, own, with_id, with_last = (view[agent]["observation"] for view in views)
            last = np.zeros(9) if actions is None else np.eye(9)[actions[k]]
            assert_array_equal(own, bare.game.smac.get_obs_agent(k))
            assert_array_equal(full, np.concatenate([own, last, np.eye(3)[k]]))
            assert_array_equal(with_id, np.concatenate([own, np.eye(3)[k]]))
            assert_array_equal(with_last, np.concatenate([own, last]))
    observations, _ = env.reset()
    assert not observations["marine_0"]["observation"][-12:-3].any()  # of the episode before


def test_with_smacs_own_tactics_the_last_action_is_the_one_that_was_played():
    env = make(heuristic_ai=True)
    env.reset()
    observations = env.step(stop_all(env))[0]
    assert np.argmax(observations["marine_0"]["observation"][-12:-3]) == 5  # the double's highest legal one: west


@pytest.mark.parametrize(
    "options",
    [
        {"obs_timestep_number": True},
        {"obs_instead_of_state": True, "obs_timestep_number": True},
        {"state_last_action": False},
    ],
)
def test_sizes_are_what_smac_really_gives(options):
    env = make(max_steps=4, **options)
    observations, _ = env.reset()
    for _ in range(4):
        assert env.state_space.contains(env.state())
        for agent, seen in observations.items():
            assert env.observation_space(agent).contains(seen)
        observations = play(env, 1)[0]
    if options.get("obs_timestep_number"):
        own = observations["marine_0"]["observation"][: env._own_size]
        assert own[-1] == 1.0


def test_state_is_smacs():
    env = make()
    with pytest.raises(RuntimeError, match=r"call reset\(\)"):
        env.state()
    env.reset()
    play(env, 2)
    assert_array_equal(env.state(), env.game.smac.get_state())


# --- the paper's options ----------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_papers_runs():
    game = make("5m_vs_6m").game.smac
    assert (game.difficulty, game.episode_limit, game.reward_scale, game.reward_scale_rate) == ("7", 70, True, 20)
    assert make("5m_vs_6m", difficulty="3", reward_scale_rate=10).game.smac.reward_scale_rate == 10


@pytest.mark.parametrize(
    "option",
    [{"difficulty": "10"}, {"difficulty": 7}, {"timeout": 0}, {"timeout": float("inf")}, {"max_steps": 2.5}],
    ids=str,
)
def test_options_are_validated(option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        make(**option)


def test_continuing_episode_is_not_a_choice():
    with pytest.raises(ValueError, match="continuing_episode cannot be chosen"):
        make(continuing_episode=False)


def test_what_is_missing_is_looked_for_at_once(monkeypatch):
    asked = []
    monkeypatch.setattr(smac_install, "load", lambda: asked.append("load") or StarCraft2Env)
    monkeypatch.setattr(smac_install, "check_map", lambda name: asked.append(f"map {name}"))
    monkeypatch.setattr(smac_install, "check_starcraft", lambda name: asked.append(f"starcraft {name}"))
    assert dm2.envs.parallel_env("smac:3m").env_id == "smac:3m"
    assert asked == ["load", "map 3m", "starcraft 3m"]

    def lacking(name):
        raise FileNotFoundError("no StarCraft here")

    monkeypatch.setattr(smac_install, "check_starcraft", lacking)
    with pytest.raises(FileNotFoundError, match="no StarCraft here"):
        dm2.envs.vector_env("smac:3m", 2)


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_draw_is_a_termination_without_a_win():
    env = make()
    env.reset()
    process = env.game.smac._sc2_proc
    process.fight = process.units.clear
    observations, _, terminations, truncations, infos = env.step(stop_all(env))
    assert all(terminations.values())
    assert not any(truncations.values())
    assert not any(info["battle_won"] or info["alive"] or info["broken"] for info in infos.values())
    assert all(np.flatnonzero(seen["action_mask"]).tolist() == [NO_OP] for seen in observations.values())


def test_at_the_end_nothing_but_standing_still_is_legal():
    env = make(max_steps=2, attributes={"passive": True})
    env.reset()
    observations = play(env, 2)[0]
    assert all(np.flatnonzero(seen["action_mask"]).tolist() == [STOP] for seen in observations.values())


# --- StarCraft dies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("death", ["absorb", "remove"])
def test_a_dead_starcraft_ends_the_episode_as_broken_and_is_started_anew_at_the_reset(death):
    env = make(attributes={"crash_after": (5, 0)}, death=death)
    env.reset()
    before = play(env, 4)[0]
    state = env.state()
    observations, rewards, terminations, truncations, infos = env.step(stop_all(env))
    assert rewards == dict.fromkeys(env.possible_agents, 0.0)
    assert not any(terminations.values())
    assert all(truncations.values())
    for agent, info in infos.items():
        assert info == {"alive": True, "battle_won": False, "broken": True}
        assert_array_equal(observations[agent]["observation"], before[agent]["observation"])
    assert_array_equal(env.state(), state)
    assert env.agents == []
    # Nothing is left, and nothing was started behind our back.
    assert [is_running(pid) for pid in env.game.smac.pids] == [False]
    with pytest.raises(RuntimeError, match=r"call reset\(\)"):
        env.step({})
    with pytest.raises(RuntimeError, match="needs a running StarCraft"):
        env.save_replay()

    _, infos = env.reset()
    assert all(info == {"alive": True, "battle_won": False, "broken": False} for info in infos.values())
    assert env.agents == env.possible_agents
    assert env.game.starts == len(env.game.smac.pids) == 2
    assert not any(info["broken"] for info in play(env, 6)[4].values())


def test_those_who_had_left_are_not_truncated():
    env = make(attributes={"crash_after": (2, 0)}, death="remove")
    env.reset()
    process = env.game.smac._sc2_proc
    tag = env.game.smac.agents[1].tag
    process.fight = lambda: process.hit(next(unit for unit in process.units if unit.tag == tag), 1000)
    terminations = env.step(stop_all(env))[2]
    assert terminations == {"marine_0": False, "marine_1": True, "marine_2": False}
    truncations = env.step(stop_all(env))[3]
    assert truncations == {"marine_0": True, "marine_2": True}


def test_a_starcraft_that_dies_between_two_episodes_breaks_none():
    # Three steps of the first episode, and a request of the reset.
    env = make(attributes={"crash_after": (4, 0), "passive": True}, max_steps=3)
    env.reset()
    assert not any(info["broken"] for info in play(env, 3)[4].values())
    env.reset()
    assert env.game.starts == 2
    assert all(play(env, 3)[3].values())


@pytest.mark.parametrize("attributes", [{}, {"spawn_delay": 1}, {"crash_after": (3, 2, 9, 0)}], ids=str)
def test_the_reward_scale_does_not_drift(attributes):
    env = make(attributes=attributes, max_steps=4)
    for _ in range(5):
        env.reset()
        # Three enemies: 10 for each death, 45 of health each, 200 for the win.
        assert env.game.smac.max_reward == 3 * 10 + 3 * 45 + 200
        while env.agents:
            env.step(stop_all(env))
    assert env.game.starts == (4 if "crash_after" in attributes else 1)


def test_a_reset_in_the_first_episode_goes_on_with_the_same_starcraft():
    env = make()
    for _ in range(3):
        env.reset()
        play(env, 1)
    assert env.game.starts == 1
    assert env.game.smac.max_reward == 365


def test_a_start_that_fails_is_tried_again():
    env = make(attributes={"fail_launches": (1, 2)})
    env.reset()
    assert env.game.smac.attempts == 3
    assert env.game.smac.max_reward == 365
    env = make(attributes={"fail_launches": (1, 2, 3)})
    with pytest.raises(RuntimeError, match=r"did not start in 3 attempts: ConnectError: Failed to connect") as error:
        env.reset()
    assert isinstance(error.value.__cause__.__cause__, ConnectError)
    assert env.agents == []
    env.reset()  # perhaps it works now
    assert env.game.smac.attempts == 4


def test_a_mistake_in_the_options_is_not_tried_again():
    def wrong(self):
        self.attempts += 1
        raise KeyError("difficulty")

    env = make(attributes={"_launch": wrong})
    with pytest.raises(KeyError, match="difficulty"):
        env.reset()
    assert env.game.smac.attempts == 1


def test_units_that_never_come_are_not_waited_for_without_end():
    env = make(attributes={"spawn_delay": -1}, timeout=0.3)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="did not start in 3 attempts"):
        env.reset()
    assert time.monotonic() - began >= 0.9
    assert len(env.game.smac.pids) == 3
    assert not any(is_running(pid) for pid in env.game.smac.pids)


def test_the_timeout_reaches_pysc2(monkeypatch):
    flags = SimpleNamespace(sc2_timeout=360, __contains__=lambda name: True)

    class Flags(SimpleNamespace):
        def __contains__(self, name):
            return hasattr(self, name)

    flags = Flags(sc2_timeout=360)
    monkeypatch.setitem(__import__("sys").modules, "absl.flags", SimpleNamespace(FLAGS=flags))
    make(timeout=7.2).reset()
    assert flags.sc2_timeout == 8


# --- seeds ------------------------------------------------------------------------------------------------------------


def test_starcraft_gets_the_seed_at_its_start_and_another_after_it_died():
    seeds = []
    for _ in range(2):
        env = make(attributes={"crash_after": (2, 2, 0)}, seed=4)
        seeds.append([])
        for _ in range(3):
            env.reset()
            seeds[-1].append(env.game.smac._seed)
            play(env, 2)
    assert seeds[0] == seeds[1]
    assert seeds[0][0] == 4
    assert len(set(seeds[0])) == 3
    env.reset(seed=4)
    assert env.game.smac._seed == 4
    assert env.game.starts == 4  # a seed needs a start
    env.reset(seed=-1)
    assert env.game.smac._seed == 2**32 - 1


def test_without_a_seed_it_is_random():
    assert make().game._seed != make().game._seed


# --- closing ----------------------------------------------------------------------------------------------------------


def test_close_ends_starcraft_for_good():
    env = make(render_mode="rgb_array")
    env.reset()
    (pid,) = env.game.smac.pids
    assert is_running(pid)
    env.close()
    assert not is_running(pid)
    env.close()
    for use in (env.reset, lambda: env.step({}), env.render, env.save_replay):
        with pytest.raises(RuntimeError, match="closed"):
            use()
    assert env.agents == []
    make().close()  # one that never ran


def test_a_forgotten_environment_ends_its_starcraft():
    env = make()
    env.reset()
    (pid,) = env.game.smac.pids
    del env
    gc.collect()
    assert not is_running(pid)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_step_leaves_nothing_and_the_next_reset_starts_anew(interruption, monkeypatch):
    env = make()
    env.reset()
    process = env.game.smac._sc2_proc

    def interrupted(count):
        raise interruption

    process.step = interrupted
    with pytest.raises(interruption):
        env.step(stop_all(env))
    assert not is_running(process.popen.pid)
    with pytest.raises(RuntimeError, match=r"call reset\(\)"):
        env.step({})
    env.reset()
    play(env, 2)


# --- pictures and replays ---------------------------------------------------------------------------------------------


def test_render_is_smacs(monkeypatch):
    env = make(render_mode="rgb_array")
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.render()
    env.reset()
    play(env, 2)
    assert env.render().shape == (20, 30, 3)
    assert (env.render() == 2).all()
    silent = make()
    silent.reset()
    with pytest.raises(RuntimeError, match="needs render_mode"):
        silent.render()


def test_a_window_is_drawn_at_each_step():
    drawn = []
    env = make(attributes={"render": lambda self, mode: drawn.append(mode), "crash_after": (3,)}, render_mode="human")
    env.reset()
    play(env, 2)
    assert env.render() is None
    assert drawn == ["human"] * 4
    play(env, 1)  # broken: there is nothing to draw any more
    assert len(drawn) == 4


def test_save_replay(tmp_path):
    env = make(replay_dir=str(tmp_path), replay_prefix="mine")
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.save_replay()
    env.reset()
    play(env, 3)
    env.save_replay()
    assert [path.name for path in tmp_path.iterdir()] == ["mine_3.SC2Replay"]


def test_the_shuffle_that_pysc2_wants():
    original, numbers = random.shuffle, list(range(6))
    with old_shuffle():
        random.shuffle(numbers, lambda: 0.5)
        random.shuffle([1, 2, 3])
    # From the end, each changes places with the one in the middle of those up to it.
    assert numbers == [0, 5, 1, 4, 2, 3]
    assert random.shuffle is original


# --- the same in several processes ------------------------------------------------------------------------------------


def vector(num_envs=2, attributes=None, **options):
    return smac.vector_env("3m", num_envs, simulator=double(**(attributes or {})), progress_bar=False, **options)


def idle(observations, infos):
    return np.where(infos["alive"], STOP, NO_OP)


CRASHES = {"crash_after": (14, 14, 14, 14, 14, 14), "passive": True}


def test_a_vector_environments_broken_episodes_are_counted_and_the_others_go_on():
    with vector(attributes=CRASHES, max_steps=10) as venv:
        observations, infos = venv.reset(seed=3)
        ends = []
        for t in range(1, 30):
            before = observations
            observations, rewards, terminations, truncations, infos = venv.step(idle(observations, infos))
            if truncations.any():
                ends.append((t, infos["broken"].tolist()))
            for i in np.flatnonzero(infos["broken"]):
                assert truncations[i].all()
                assert not terminations[i].any()
                assert not rewards[i].any()
                assert_array_equal(infos["final_obs"][i], before[i])
                assert not infos["battle_won"][i]
                assert infos["alive"][i].all()  # of the next episode
        # A reset within a game is a request, too: 10 steps, the reset, and the third step after it.
        assert ends == [(10, [False] * 2), (13, [True] * 2), (23, [False] * 2), (26, [True] * 2)]
        assert venv.broken_episodes == 4


def test_broken_episodes_are_neither_recorded_nor_evaluated_nor_trained_on():
    from sb3_contrib import MaskablePPO

    with vector(attributes=CRASHES, max_steps=10) as venv:
        demos = dm2.Demonstrations.record(venv, idle, 6, seed=0)
        assert venv.broken_episodes >= 2
        assert len(demos) == 6
        assert demos.observations("marine_0").shape[0] == 6 * 10  # each of its full length

        matcher = dm2.DistributionMatcher(demos, updates=1, seed=0)
        team = dm2.sb3.IndependentLearners(
            MaskablePPO, venv, matcher=matcher, coefficient=0.1, seed=0, n_steps=26, batch_size=52, device="cpu"
        )
        team.learn(2 * 26)
        assert matcher._recorded.transitions.counts.tolist() == [2 * 20] * 3
        for model in team.models.values():
            assert model.rollout_buffer.broken.sum(axis=0).tolist() == [6, 6]
            assert [end["l"] for end in model.ep_info_buffer] == [10] * 4
        assert team.evaluate(venv, episodes=4, seed=1)["length"] == 10


@linux
def test_a_worker_that_is_killed_takes_its_starcraft_along():
    with vector() as venv:
        venv.reset()
        pids = children(venv)
        starcrafts = [pid for worker in pids for pid in offspring(worker)]
        assert len(starcrafts) == 2
        os.kill(pids[0], signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"worker 0 .* ended without an answer"):
            venv.step(np.full((2, 3), STOP))
    assert all(gone(pid) for pid in [*pids, *starcrafts])


@linux
def test_a_worker_that_is_told_to_stop_closes_its_starcraft():
    with vector(num_envs=1) as venv:
        venv.reset()
        (pid,) = children(venv)
        (starcraft,) = offspring(pid)
        os.kill(pid, signal.SIGTERM)
        assert gone(starcraft)


def test_options_of_a_vector_environment_are_checked_before_any_process_starts():
    with pytest.raises(ValueError, match="death must be"):
        vector(death="none")
    with pytest.raises(TypeError, match="no_such_option"):
        vector(no_such_option=1)


def test_an_unavailable_action_of_a_living_agent_becomes_stop_and_of_a_dead_one_no_op():
    """SMAC would refuse the no-op of a living agent."""
    with vector(num_envs=1, invalid_action="noop") as venv, vector(num_envs=1) as twin:
        for each in (venv, twin):
            each.reset(seed=3)
        seen = []
        for _ in range(40):
            alive = venv._alive.copy()
            seen += alive.ravel().tolist()
            mine, theirs = venv.step(np.full((1, 3), 99)), twin.step(np.where(alive, STOP, NO_OP))
            assert_array_equal(mine[0], theirs[0])
            assert_array_equal(mine[1], theirs[1])
        assert set(seen) == {True, False}


def test_seeds_of_a_vector_environment_and_the_bar(capsys):
    options = {"simulator": StarCraft2Env}
    with (
        smac.vector_env("3m", 2, seed=5, **options) as one,
        smac.vector_env("3m", 2, progress_bar=False, **options) as other,
    ):
        first = one.reset()[0]
        assert "starting StarCraft (smac:3m)" in capsys.readouterr().err
        assert_array_equal(first, other.reset(seed=5)[0])
        assert not np.array_equal(first, one.reset()[0])
        assert capsys.readouterr().err == ""


def test_it_is_a_parallel_env():
    assert isinstance(make(), ParallelEnv)
