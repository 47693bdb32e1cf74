"""Teams learn the same whatever PyTorch's process-wide modes are, which belong to the user's program."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

import dm2_wrappers as dm2
from tests.helpers.tiny_envs import TinyEnv


def env():
    return TinyEnv((4, 3), limit=6)


@pytest.fixture(scope="module")
def demos():
    rng = np.random.default_rng(0)
    return dm2.Demonstrations.record(env(), lambda seen: {agent: int(rng.integers(3)) for agent in seen}, 4, seed=0)


def everything(demos, folder):
    """Clone, learn, save, load, learn on, evaluate and predict; what comes out."""
    matcher = dm2.DistributionMatcher(demos, seed=0, updates=2, batch_size=16)
    options = {"n_steps": 8, "batch_size": 16, "n_epochs": 1, "seed": 0}
    team = dm2.sb3.IndependentLearners(PPO, dm2.vectorize(env, 2), matcher=matcher, coefficient=0.3, **options)
    dm2.sb3.pretrain(team, demos, epochs=1)
    team.learn(32)
    team.save(folder / "team")
    again = dm2.sb3.IndependentLearners.load(folder / "team", dm2.vectorize(env, 2))
    again.learn(32, reset_num_timesteps=False)
    team.restore(folder / "team")
    parameters = [[p for model in one.models.values() for p in model.policy.parameters()] for one in (team, again)]
    weights = [np.concatenate([each.detach().numpy().ravel() for each in of_team]) for of_team in parameters]
    seen, _ = env().reset(seed=1)
    return weights, again.evaluate(dm2.vectorize(env, 2), 4, seed=1), again.predict(seen, deterministic=True)


@contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "mode", [float64, torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", dtype=torch.bfloat16)]
)
def test_learning_does_not_depend_on_the_programs_modes(demos, tmp_path, mode):
    usual = everything(demos, tmp_path)
    with mode():
        other = everything(demos, tmp_path)
    for one, two in zip(usual[0], other[0], strict=True):
        assert two.dtype == np.float32
        np.testing.assert_array_equal(one, two)
    assert usual[1:] == other[1:]
