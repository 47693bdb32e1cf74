"""SMAX: the wrapped environment against PettingZoo's own tests, against itself, and against a plain loop over JaxMARL.

Environments with the same scenario, copies and SMAX options share what they compile, so most tests use 3m in one copy
or in three.
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pettingzoo.test import parallel_api_test, parallel_seed_test

import dm2_wrappers as dm2
from dm2_wrappers.envs import smax
from dm2_wrappers.envs.smax import render

STOP, FIRST_ATTACK = 4, 5
close = {"rtol": 1e-5, "atol": 1e-5}


def random_actions(masks, rng):
    """A random legal action for each mask [..., A]."""
    return np.where(masks, rng.random(masks.shape), -1).argmax(-1)


def attack_or_advance(infos):
    """Attack the first legal target; with none in range walk towards the enemy."""
    attacks = infos["action_mask"][..., FIRST_ATTACK:]
    advance = np.where(infos["alive"], 1, STOP)
    return np.where(attacks.any(-1), FIRST_ATTACK + attacks.argmax(-1), advance)


def stop_all(env):
    return dict.fromkeys(env.agents, STOP)


def place(venv, sides):
    """Put the units of these sides (0 allies, 1 enemies) on the deadly wall of every copy."""
    units = venv._state.state
    on_wall = jnp.isin(units.unit_teams, jnp.array(sides))[..., None]
    venv._state = venv._state.replace(state=units.replace(unit_positions=jnp.where(on_wall, 0.0, units.unit_positions)))


# --- PettingZoo's tests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("death", ["absorb", "remove"])
def test_pettingzoo_api(death):
    parallel_api_test(smax.parallel_env("3m", death=death, invalid_action="noop"), num_cycles=150)


@pytest.mark.parametrize("death", ["absorb", "remove"])
def test_pettingzoo_seed(death):
    parallel_seed_test(lambda: smax.parallel_env("3m", death=death, invalid_action="noop"), num_cycles=60)


# --- the same episode, however it is played ---------------------------------------------------------------------------


@pytest.mark.parametrize("death", ["absorb", "remove"])
@pytest.mark.parametrize("copies", [1, 3])
def test_parallel_and_vector_play_the_same(copies, death):
    venv = smax.vector_env("3m", copies, death=death)
    envs = [smax.parallel_env("3m", death=death) for _ in range(copies)]
    rng = np.random.default_rng(0)
    observations, infos = venv.reset(seed=7)
    views = [env.reset(seed=7 + i) for i, env in enumerate(envs)]
    ended = np.zeros(copies, int)
    for _ in range(110):
        for i, (env, (seen, said)) in enumerate(zip(envs, views, strict=True)):
            assert_allclose(env.state(), infos["state"][i], **close)
            for k, agent in enumerate(venv.possible_agents):
                if agent in env.agents:
                    assert_allclose(seen[agent]["observation"], observations[i, k], **close)
                    assert_array_equal(seen[agent]["action_mask"], infos["action_mask"][i, k])
                    assert said[agent]["alive"] == infos["alive"][i, k]
        actions = random_actions(infos["action_mask"], rng)
        observations, rewards, terminations, truncations, infos = venv.step(actions)
        done = (terminations | truncations).all(axis=1)
        for i, env in enumerate(envs):
            present = list(env.agents)
            joint = {agent: actions[i, env.possible_agents.index(agent)] for agent in present}
            seen, paid, terminated, truncated, said = env.step(joint)
            assert list(seen) == list(paid) == list(terminated) == list(truncated) == list(said) == present
            for k, agent in enumerate(env.possible_agents):
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
                assert said[agent]["broken"] is False
            assert_allclose(env.state(), infos["final_state"][i], **close)
            assert (not env.agents) == done[i]
            if done[i]:
                assert np.abs(observations[i] - infos["final_obs"][i]).max() > 0.01  # the next episode has begun
                seen, said = env.reset()
                ended[i] += 1
            else:
                assert_array_equal(observations[i], infos["final_obs"][i])
            views[i] = seen, said
    assert (ended >= 2).all()


def test_against_a_plain_loop_over_jaxmarl():
    from jaxmarl.environments.smax import HeuristicEnemySMAX, map_name_to_scenario

    oracle = HeuristicEnemySMAX(scenario=map_name_to_scenario("3m"))
    env = smax.parallel_env("3m")
    rng = np.random.default_rng(1)

    def compare(seen, observations, state):
        masks = oracle.get_avail_actions(state)
        for agent in env.possible_agents:
            assert_allclose(seen[agent]["observation"], observations[agent], **close)
            assert_array_equal(seen[agent]["action_mask"], masks[agent])
        assert_allclose(env.state(), observations["world_state"], **close)

    key, reset_key = jax.random.split(jax.random.key(11))
    observations, state = oracle.reset(reset_key)
    seen, _ = env.reset(seed=11)
    episodes = 0
    while episodes < 3:
        compare(seen, observations, state)
        actions = {agent: int(random_actions(seen[agent]["action_mask"], rng)) for agent in env.agents}
        key, step_key, reset_key = jax.random.split(key, 3)
        observations, state, rewards, dones, _ = oracle.step_env(step_key, state, actions)
        seen, paid, terminations, truncations, infos = env.step(actions)
        allies, enemies = np.split(np.asarray(state.state.unit_alive), [3])
        for k, agent in enumerate(env.possible_agents):
            assert paid[agent] == pytest.approx(10 * float(rewards[agent]), abs=1e-4)
            assert infos[agent]["alive"] == allies[k]
            assert infos[agent]["battle_won"] == (allies.any() and not enemies.any())
            assert (terminations[agent] or truncations[agent]) == bool(dones["__all__"])
            assert truncations[agent] == (bool(dones["__all__"]) and allies.any() and enemies.any())
        if dones["__all__"]:
            for agent in env.possible_agents:
                assert_allclose(seen[agent]["observation"], observations[agent], **close)
            observations, state = oracle.reset(reset_key)
            seen, _ = env.reset()
            episodes += 1


def test_seeds():
    one, other = smax.vector_env("3m", 3, seed=5), smax.vector_env("3m", 3)
    first, again = one.reset(), other.reset(seed=5)
    assert_array_equal(first[0], again[0])
    rng = np.random.default_rng(0)
    for _ in range(40):
        actions = random_actions(first[1]["action_mask"], rng)
        first, again = one.step(actions), other.step(actions)
        for left, right in zip(first[:4], again[:4], strict=True):
            assert_array_equal(left, right)
        first = (first[0], first[4])
    assert_array_equal(one.reset()[0], other.reset()[0])  # the stream goes on, the same in both
    assert not np.array_equal(one.reset()[0], one.reset(seed=5)[0])
    assert not np.array_equal(other.reset(seed=6)[0], other.reset(seed=5)[0])
    assert_array_equal(one.reset(seed=6)[0][:2], one.reset(seed=5)[0][1:])  # copy i is seeded with seed + i
    assert_array_equal(one.reset(seed=[6, 7, 5])[0], one.reset(seed=5)[0][[1, 2, 0]])
    one.reset(seed=-1), one.reset(seed=2**40)
    with pytest.raises(ValueError, match="one for each of 3 sub-environments, got 2"):
        one.reset(seed=[1, 2])
    assert not np.array_equal(smax.vector_env("3m", 3).reset()[0], smax.vector_env("3m", 3).reset()[0])


# --- how episodes end -------------------------------------------------------------------------------------------------


def test_time_limit_is_a_truncation():
    env = smax.parallel_env("3m", max_steps=3)
    env.reset(seed=0)
    for step in range(3):
        _, _, terminations, truncations, infos = env.step(stop_all(env))
        assert not any(terminations.values())
        assert all(truncations.values()) == any(truncations.values()) == (step == 2)
        assert not infos["ally_0"]["battle_won"]
    assert env.agents == []
    with pytest.raises(RuntimeError, match=r"call reset\(\)"):
        env.step({})


def test_what_would_be_legal_after_a_time_limit():
    """As in the same battles with more time: there it is what the agents are shown."""
    short, long = (smax.vector_env("3m", 3, max_steps=limit) for limit in (6, 40))
    infos, _ = short.reset(seed=3)[1], long.reset(seed=3)
    for step in range(6):
        actions = attack_or_advance(infos)
        *_, terminations, truncations, infos = short.step(actions)
        longer = long.step(actions)[-1]
        assert not terminations.any()
        assert truncations.all() == (step == 5)
        assert_array_equal(infos["final_action_mask"], longer["action_mask"])
    assert infos["final_action_mask"][..., FIRST_ATTACK:].any()  # unlike at the start of the next one
    assert not infos["action_mask"][..., FIRST_ATTACK:].any()


def test_the_default_time_limit_is_jaxmarls():
    venv = smax.vector_env("3m", 1)
    venv.reset(seed=0)
    state = venv._state.state
    # Just before the limit; nobody is in range of anybody, so nothing else ends the episode.
    venv._state = venv._state.replace(state=state.replace(step=jnp.full_like(state.step, 99)))
    stop = np.full((1, 3), STOP)
    assert not venv.step(stop)[3].any()
    _, _, terminations, truncations, _ = venv.step(stop)
    assert truncations.all()
    assert not terminations.any()


def test_wins_are_reported_and_pay_twenty():
    venv = smax.vector_env("3m", 3)
    _, infos = venv.reset(seed=0)
    returns, episodes = np.zeros(3), []
    for _ in range(80):
        _, rewards, terminations, _, infos = venv.step(attack_or_advance(infos))
        returns += rewards[:, 0]
        done = terminations.all(axis=1)
        episodes += [(bool(infos["battle_won"][i]), returns[i]) for i in np.flatnonzero(done)]
        assert not infos["battle_won"][~done].any()
        returns[done] = 0
    won, lost = [r for win, r in episodes if win], [r for win, r in episodes if not win]
    assert len(won) >= 2
    assert len(lost) >= 2
    assert_allclose(won, 20, rtol=1e-5)  # all the enemies' health, and as much again for the win
    assert max(lost) < 10


@pytest.mark.parametrize(("on_the_wall", "won", "reward"), [([1], True, 20), ([0, 1], False, 10), ([0], False, 0)])
def test_win_draw_and_loss(on_the_wall, won, reward):
    env = smax.parallel_env("3m")
    env.reset(seed=0)
    place(env._vector, on_the_wall)
    _, rewards, terminations, truncations, infos = env.step(stop_all(env))
    assert all(info["battle_won"] == won for info in infos.values())
    assert_allclose(list(rewards.values()), reward, rtol=1e-5)
    assert all(terminations.values())
    assert not any(truncations.values())


# --- death ------------------------------------------------------------------------------------------------------------


def test_the_dead_absorbed_or_removed():
    absorb, remove = smax.vector_env("3m", 3), smax.vector_env("3m", 3, death="remove")
    rng = np.random.default_rng(3)
    observations, infos = absorb.reset(seed=3)
    assert_array_equal(remove.reset(seed=3)[0], observations)
    rewarded = 0
    for _ in range(100):
        actions, before = random_actions(infos["action_mask"], rng), infos["alive"]
        observations, rewards, terminations, truncations, infos = absorb.step(actions)
        other_observations, other_rewards, other_terminations, other_truncations, other_infos = remove.step(actions)
        done = (terminations | truncations).all(axis=1)
        dead = ~infos["alive"]
        assert (observations[dead] == 0).all()
        assert (infos["final_obs"][~infos["final_alive"]] == 0).all()
        only_stop = np.arange(absorb.action_space("ally_0").n) == STOP
        assert (infos["action_mask"][dead] == only_stop).all()
        assert_array_equal(rewards, np.repeat(rewards[:, :1], 3, axis=1))  # the team's, dead or alive
        assert_array_equal(terminations.any(axis=1) | truncations.any(axis=1), done)
        rewarded += int((~before & (rewards > 0)).sum())

        assert_array_equal(other_observations, observations)
        assert_array_equal(other_rewards, np.where(before, rewards, 0))  # paid for the step in which it dies
        assert_array_equal(other_terminations, terminations | ~infos["final_alive"])
        assert_array_equal(other_truncations, truncations & infos["final_alive"])
        assert_array_equal((other_terminations | other_truncations).all(axis=1), done)
        assert_array_equal(other_infos["alive"], infos["alive"])
    assert rewarded


def test_a_removed_agent_is_gone():
    env = smax.parallel_env("3m", death="remove")
    env.reset(seed=0)
    units = env._vector._state.state
    corner = units.unit_positions.at[0, 1].set(0.0)
    env._vector._state = env._vector._state.replace(state=units.replace(unit_positions=corner))
    observations, _, terminations, truncations, infos = env.step(stop_all(env))
    assert terminations == {"ally_0": False, "ally_1": True, "ally_2": False}
    assert not any(truncations.values())
    assert not infos["ally_1"]["alive"]
    assert not observations["ally_1"]["observation"].any()
    assert env.agents == ["ally_0", "ally_2"]
    with pytest.raises(ValueError, match="expected one action for each of"):
        env.step(dict.fromkeys(env.possible_agents, STOP))
    assert list(env.step(stop_all(env))[1]) == ["ally_0", "ally_2"]
    env.reset()
    assert env.agents == env.possible_agents


# --- actions ----------------------------------------------------------------------------------------------------------


def test_an_illegal_action_is_refused_and_changes_nothing():
    env, twin = smax.parallel_env("3m"), smax.parallel_env("3m")
    env.reset(seed=0), twin.reset(seed=0)
    for wrong in (FIRST_ATTACK, -1, 8, 1000):  # the enemy is out of range; there are eight actions
        with pytest.raises(ValueError, match=rf"action {wrong} of agent 'ally_1' .* \[0, 1, 2, 3, 4\]"):
            env.step({"ally_0": 1, "ally_1": wrong, "ally_2": 1})
    with pytest.raises(ValueError, match="expected one action for each of"):
        env.step({"ally_0": 1, "ally_1": 1})
    with pytest.raises(ValueError, match="actions must be integers"):
        env.step({"ally_0": 1.0, "ally_1": 1.0, "ally_2": 1.0})
    for _ in range(3):
        one, other = env.step(dict.fromkeys(env.agents, 1)), twin.step(dict.fromkeys(env.agents, 1))
        assert one[1:] == other[1:]
        for agent in env.agents:
            assert_array_equal(one[0][agent]["observation"], other[0][agent]["observation"])


def test_vector_actions_of_the_wrong_shape_or_type():
    venv = smax.vector_env("3m", 3)
    with pytest.raises(RuntimeError, match=r"call reset\(\)"):
        venv.step(np.full((3, 3), STOP))
    venv.reset(seed=0)
    for wrong in (np.full((3, 2), STOP), np.full(9, STOP), np.full((3, 3), float(STOP)), np.ones((3, 3), bool)):
        with pytest.raises(ValueError, match=r"integers of shape \(3, 3\)"):
            venv.step(wrong)
    illegal = np.full((3, 3), STOP)
    illegal[2, 1] = FIRST_ATTACK
    with pytest.raises(ValueError, match="'ally_1' in sub-environment 2"):
        venv.step(illegal)
    venv.step(np.full((3, 3), STOP, np.uint8))


def test_noop_stops_instead():
    env, twin = smax.parallel_env("3m", invalid_action="noop"), smax.parallel_env("3m")
    env.reset(seed=0), twin.reset(seed=0)
    one = env.step({"ally_0": 1, "ally_1": FIRST_ATTACK, "ally_2": 99})
    other = twin.step({"ally_0": 1, "ally_1": STOP, "ally_2": STOP})
    for agent in env.agents:
        assert_array_equal(one[0][agent]["observation"], other[0][agent]["observation"])


# --- options, scenarios, spaces ---------------------------------------------------------------------------------------


def test_reward_scale():
    one, ten = smax.vector_env("3m", 3, reward_scale=1), smax.vector_env("3m", 3)
    (_, infos), _ = one.reset(seed=0), ten.reset(seed=0)
    total = 0.0
    for _ in range(12):
        actions = attack_or_advance(infos)
        _, rewards, _, _, infos = one.step(actions)
        scaled = ten.step(actions)[1]
        assert scaled.dtype == rewards.dtype == np.float32
        assert_allclose(scaled, 10 * rewards, rtol=1e-6)
        total += rewards.sum()
    assert total > 0


@pytest.mark.parametrize(
    "options",
    [
        {"death": "none"},
        {"invalid_action": "ignore"},
        {"reward_scale": float("nan")},
        {"max_steps": 0},
        {"max_steps": 2.5},
        {"action_type": "continuous"},
        {"render_mode": "ansi"},
    ],
    ids=str,
)
def test_options_are_validated(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        smax.parallel_env("3m", **options)


def test_unknown_options_and_copies():
    with pytest.raises(TypeError, match="walls_cause_deth"):
        smax.parallel_env("3m", walls_cause_deth=False)
    for wrong in (0, -1, 2.0):
        with pytest.raises(ValueError, match="num_envs"):
            smax.vector_env("3m", wrong)


def test_options_reach_jaxmarl():
    env = smax.vector_env("3m", 1, walls_cause_death=False, unit_type_attacks=jnp.ones(6))
    assert env.smax.walls_cause_death is False
    assert env.smax.unit_type_attacks[0] == 1
    assert smax.vector_env("3m", 1).smax.walls_cause_death is True


def test_an_unknown_scenario_lists_the_nearest():
    with pytest.raises(ValueError, match=r"'5m_vs_5m'; the nearest are .*5m_vs_6m"):
        smax.parallel_env("5m_vs_5m")
    with pytest.raises(ValueError, match=r"'5m_vs_7m'.*5m_vs_6m"):
        dm2.envs.vector_env("smax:5m_vs_7m", 2)
    with pytest.raises(ValueError, match="unknown backend 'smaxx'"):
        dm2.envs.parallel_env("smaxx:3m")


@pytest.mark.parametrize("scenario", smax.scenarios())
def test_every_scenario_can_be_made(scenario):
    env = smax.parallel_env(scenario)
    assert env.env_id == env.metadata["name"] == f"smax:{scenario}"
    assert len(env.possible_agents) == env._vector.smax.num_allies


@pytest.mark.parametrize(
    ("scenario", "agents", "actions", "types"),
    [
        ("3s_vs_4z", 3, 9, [2] * 3 + [3] * 4),
        ("8m_vs_9m", 8, 14, [0] * 17),
        ("2s3z", 5, 10, [2, 2, 3, 3, 3] * 2),
        ("smacv2_5_units", 5, 10, None),
    ],
)
def test_reset_of_other_scenarios(scenario, agents, actions, types):
    venv = dm2.envs.vector_env(scenario, 1)
    observations, infos = venv.reset(seed=0)
    assert observations.shape == (1, agents, *venv.observation_space("ally_0").shape)
    assert observations.dtype == np.float32
    assert infos["action_mask"].shape == (1, agents, actions)
    assert infos["alive"].all()
    assert np.isfinite(observations).all()
    if types is not None:
        assert_array_equal(venv._state.state.unit_types[0], types)


def test_observations_stay_in_their_space():
    env = smax.parallel_env("3m")
    rng = np.random.default_rng(0)
    seen, _ = env.reset(seed=0)
    assert env.state_space.contains(env.state())
    for _ in range(60):
        for agent in env.agents:
            assert env.observation_space(agent).contains(seen[agent])
        actions = {agent: int(random_actions(seen[agent]["action_mask"], rng)) for agent in env.agents}
        seen, *_ = env.step(actions)
        if not env.agents:
            seen, _ = env.reset()


def test_state_before_reset():
    with pytest.raises(RuntimeError, match=r"reset\(\)"):
        smax.parallel_env("3m").state()


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_render_to_an_array():
    env = smax.parallel_env("3m", render_mode="rgb_array")
    with pytest.raises(RuntimeError, match=r"reset\(\) first"):
        env.render()
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (640, 640, 3)
    assert frame.dtype == np.uint8
    colours = {tuple(map(int, colour)) for colour in frame.reshape(-1, 3)}
    assert {(86, 180, 233), (230, 159, 0)} <= colours  # both teams are to be seen
    env.step(dict.fromkeys(env.agents, 1))
    assert not np.array_equal(env.render(), frame)
    env.close()


def test_a_frame_shows_health_shots_and_the_dead():
    pytest.importorskip("pygame", reason="the extra smax is not installed")
    units = {
        "positions": np.array([[4.0, 16.0], [4.0, 8.0], [20.0, 16.0], [20.0, 8.0]]),
        "health": np.array([0.75, 0.0, 0.25, 1.0]),
        "radius": np.full(4, 0.5),
        "team": np.array([0, 0, 1, 1]),
        "alive": np.array([True, False, True, True]),
        "target": np.array([2, -1, -1, 1]),
    }
    frame = render.draw(units, 32, 32)
    assert frame.shape == (640, 640, 3)
    at = lambda x, y: tuple(frame[640 - round(20 * y), round(20 * x)])  # noqa: E731  20 pixels per unit of length
    assert at(4, 16) == render.TEAMS[0]
    assert at(20, 16) == render.TEAMS[1]
    assert at(4, 8) == render.DEAD  # a cross, without a bar
    assert at(12, 16) == render.TEAMS[0]  # the shot of the first ally
    assert at(12, 8) == render.TEAMS[1]  # the shot that killed the second one
    assert at(12, 12) == render.BACKGROUND or at(12, 12) == render.GRID

    def bar(x, y):
        row = frame[640 - round(20 * y) - 10 - 5, round(20 * x) - 10 : round(20 * x) + 10]
        colors = [tuple(pixel) for pixel in row]
        return [colors.count(color) for color in (render.HEALTHY, render.HURT, render.LOST)]

    assert bar(4, 16) == [15, 0, 5]
    assert bar(20, 16) == [0, 5, 15]
    assert bar(20, 8) == [20, 0, 0]
    assert bar(4, 8) == [0, 0, 0]


def test_units_say_who_shot_whom():
    venv = smax.vector_env("3m", 1)
    _, infos = venv.reset(seed=0)
    assert (venv.units()["target"] == -1).all()
    hit = 0
    for _ in range(30):
        mask = infos["action_mask"][0]
        actions = [
            FIRST_ATTACK + np.flatnonzero(m[FIRST_ATTACK:])[0] if m[FIRST_ATTACK:].any() else (1 if m[1] else STOP)
            for m in mask
        ]
        before = venv.units()
        *_, infos = venv.step(np.array([actions]))
        if infos["_final_obs"][0]:
            break
        units = venv.units()
        for k, target in enumerate(units["target"]):
            if target >= 0:
                assert units["team"][target] != units["team"][k]
                hit += units["health"][target] < before["health"][target]
            if target >= 0 and k < 3:
                assert target == 3 + actions[k] - FIRST_ATTACK
    assert hit > 5


def test_render_needs_a_mode():
    env = smax.parallel_env("3m")
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="render_mode='rgb_array'"):
        env.render()


def test_a_window_without_a_display_is_refused(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(RuntimeError, match="needs a display"):
        smax.parallel_env("3m", render_mode="human").reset(seed=0)


def test_a_window_opens_and_closes(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = smax.parallel_env("3m", render_mode="human")
    env.reset(seed=0)
    env.step(stop_all(env))
    assert env.render() is None
    env.close()
    env.close()


# --- a missing extra --------------------------------------------------------------------------------------------------


def draw():
    env = smax.parallel_env("3m", render_mode="rgb_array")
    env.reset(seed=0)
    env.render()


@pytest.mark.parametrize(
    ("missing", "use"),
    [
        ("jaxmarl.environments.smax.smax_env", smax.scenarios),
        ("jaxmarl.environments.smax.smax_env", lambda: smax.parallel_env("10m_vs_12m")),
        ("pygame", draw),
    ],
    ids=["scenarios", "parallel_env", "render"],
)
def test_a_missing_extra_names_the_command(monkeypatch, missing, use):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install 'dm2-wrappers\[smax\]'"):
        use()


# --- JAX's process-wide modes -----------------------------------------------------------------------------------------

MODES = {
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_default_prng_impl": "rbg",
}


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_same_battles_in_every_mode_of_jax(when):
    """Modes that are set before the environment is made, or in mid-episode."""

    def battle(switch=None):
        if switch == "before":
            turn_on()
        venv = smax.vector_env("3m", 3)
        observations, infos = venv.reset(seed=4)
        seen = [observations]
        for t in range(12):
            if switch == "after" and t == 5:
                turn_on()
            actions = np.where(infos["action_mask"], np.arange(8), -1).argmax(-1)
            observations, rewards, *_, infos = venv.step(actions)
            seen += [observations, rewards, infos["state"]]
        return [*seen, venv.units()["positions"]]

    def turn_on():
        for mode, value in MODES.items():
            jax.config.update(mode, value)

    expected = battle()
    original = {mode: getattr(jax.config, mode) for mode in MODES}
    try:
        found = battle(when)
    finally:
        for mode, value in original.items():
            jax.config.update(mode, value)
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        assert_array_equal(one, other)
