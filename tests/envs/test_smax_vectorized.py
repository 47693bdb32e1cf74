"""SMAX battles as a vector environment: seeds, ends, deaths, actions and options."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dm2_wrappers.envs import smax
from tests.helpers.smax_battles import FIRST_ATTACK, STOP, random_actions


def attack_or_advance(infos):
    """Attack the first legal target; with none in range walk towards the enemy."""
    attacks = infos["action_mask"][..., FIRST_ATTACK:]
    advance = np.where(infos["alive"], 1, STOP)
    return np.where(attacks.any(-1), FIRST_ATTACK + attacks.argmax(-1), advance)


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


# --- actions ----------------------------------------------------------------------------------------------------------


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


# --- options ----------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("seed", [2.7, True, "x"])
def test_seeds_are_integers(seed):
    for make in (smax.parallel_env, lambda name, **options: smax.vector_env(name, 1, **options)):
        with pytest.raises(ValueError, match="seed must be"):
            make("3m", seed=seed)
        env = make("3m")
        with pytest.raises(ValueError, match="seed must be"):
            env.reset(seed=seed)
        env.reset(seed=0, options={})
        for _ in range(2):
            with pytest.raises(TypeError, match=r"the options of reset\(\) must be a dict"):
                env.reset(options=3)


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
