"""Environments of packages that are not installed by default; skipped without them: `make check-environments`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import dm2_wrappers as dm2
from dm2_wrappers.envs import from_gymnasium

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
pytest.importorskip("mpe2")
import environments
from _environments import ENVIRONMENTS

# How far of the way from a random team to the experts a team must come, in the steps of the example, which are few.
LEARNS = {"foraging": 0.15, "predators": 0.03, "navigation": 0.5, "pursuit": 0.4}


def need(name):
    if not environments.installed(ENVIRONMENTS[name]):
        pytest.skip(f"needs {', '.join(ENVIRONMENTS[name].packages)}: make check-environments")


@pytest.fixture(params=["pursuit", "pistonball", "foraging", "predators", "navigation"])
def name(request):
    need(request.param)
    return request.param


def test_environment_passes_our_checks(name):
    dm2.testing.check_dm2_env(ENVIRONMENTS[name].make())


def test_wrapper_pays_both_rewards(name):
    environment = ENVIRONMENTS[name]
    single = environment.make()
    demos = dm2.Demonstrations.record(single, environment.experts(single), 2, seed=0)
    matcher = dm2.DistributionMatcher(demos, seed=0, **environment.matcher)
    env = dm2.DM2ParallelEnv(single, matcher, coefficient=0.5)
    env.reset(seed=1)
    for _ in range(5):
        actions = {agent: env.action_space(agent).sample() for agent in env.agents}
        _, rewards, _, _, infos = env.step(actions)
        for agent, reward in rewards.items():
            assert reward == pytest.approx(infos[agent]["env_reward"] + 0.5 * infos[agent]["gail_reward"])
        if not env.agents:
            break
    metrics = env.update()
    assert np.isfinite(metrics["loss"])


@pytest.mark.parametrize("name", LEARNS)
def test_team_learns_from_the_experts_alone(name):
    need(name)
    assert environments.run(name) > LEARNS[name]


@pytest.mark.parametrize("name", ["Foraging-8x8-3p-2f-coop-v3", "rware-tiny-2ag-v2"])
def test_multi_agent_gymnasium_packages(name):
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("lbforaging" if name.startswith("Foraging") else "rware")

    def make():
        return from_gymnasium(gymnasium.make(name, disable_env_checker=True), multi_agent=True)

    dm2.testing.check_dm2_env(make())
    venv = dm2.vectorize(make, 2)
    observations, _ = venv.reset(seed=0)
    own = gymnasium.make(name, disable_env_checker=True)
    expected, _ = own.reset(seed=1)  # sub-environment 1
    np.testing.assert_array_equal(observations[1], np.stack(expected))
    actions = [1] * len(expected)
    stepped, rewards, *_ = venv.step(np.array([actions, actions]))
    expected, own_rewards, *_ = own.step(actions)
    np.testing.assert_array_equal(stepped[1], np.stack(expected))
    np.testing.assert_allclose(rewards[1], own_rewards)


def test_pistonball_is_blind_without_render_mode():
    """Why the example passes a render mode: without it, PettingZoo draws nothing after the reset."""
    pytest.importorskip("pymunk")
    from pettingzoo.butterfly import pistonball_v6

    changes = {}
    for mode in (None, "rgb_array"):
        env = pistonball_v6.parallel_env(n_pistons=5, continuous=False, render_mode=mode)
        first, _ = env.reset(seed=0)
        first = {agent: image.copy() for agent, image in first.items()}
        for _ in range(5):
            observations, *_ = env.step(dict.fromkeys(env.agents, 2))
        changes[mode] = any((observations[agent] != first[agent]).any() for agent in observations)
    assert changes == {None: False, "rgb_array": True}
