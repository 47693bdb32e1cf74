"""StarCraft, played by a double, is started, seeded, closed, and started anew after it has died."""

from __future__ import annotations

import gc
import os
import time
from types import SimpleNamespace

import pytest
from numpy.testing import assert_array_equal

from tests.helpers.smac_double import ConnectError
from tests.helpers.smac_envs import make, play, stop_all

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


# --- starts -----------------------------------------------------------------------------------------------------------


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


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


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
