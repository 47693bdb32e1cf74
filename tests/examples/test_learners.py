"""The one-file examples of other learners: each trains exactly, plays legally, and repeats itself."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

import dm2_wrappers as dm2
from tests.helpers.tiny_envs import TinyEnv

# Example -> the packages that it needs.
EXAMPLES = {
    "cleanrl_style": (),
    "ippo_torchrl": ("torchrl",),
    "shared_policy_supersuit": ("sb3_contrib", "supersuit"),
    "ippo_skrl": ("skrl",),
    "tianshou_lockstep": ("tianshou",),
    "ippo_agilerl": ("agilerl",),
    "ippo_benchmarl": ("benchmarl",),
}


def train_of(name):
    pytest.importorskip("mpe2")
    for package in EXAMPLES[name]:
        pytest.importorskip(package)
    return importlib.import_module(name).train


@pytest.mark.parametrize("name", EXAMPLES)
def test_trains_in_the_exact_order_and_plays_available_actions(name, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # Tianshou would compile for a minute what runs for a millisecond

    def make_env():
        return TinyEnv(sizes=(4, 3), lifetimes=(None, 3), limit=5, masks=True)

    demos = dm2.Demonstrations.record(make_env(), lambda seen: dict.fromkeys(seen, 0), 8, seed=0)
    runs = []
    for _ in range(2):
        matcher = dm2.DistributionMatcher(demos, updates=2, batch_size=8, hidden=(8, 8), seed=0)
        calls = spy(matcher)
        options = {"coefficient": 0.5, "env_coefficient": 1.0, "steps": 32, "seed": 3, "num_envs": 2, "num_steps": 8}
        policy = train_of(name)(make_env, lambda matcher=matcher: matcher, **options)
        # Two rollouts of 2 x 8 steps: recorded, learned from, then paid.
        assert [what for what, _ in calls] == ["record", "update", "rewards"] * 2
        first = next(live.reshape(-1, 2).sum(0).tolist() for what, live in calls if what == "record")
        assert first == [16, 12]  # 8 steps are an episode of 5, in which the second agent lives for 3, and 3 more steps
        env = make_env()
        torch.manual_seed(0)
        observations, _ = env.reset(seed=1)
        taken = []
        while env.agents:
            actions = policy({agent: observations[agent] for agent in env.agents})
            assert set(actions) == set(env.agents)
            assert all(observations[agent]["action_mask"][action] for agent, action in actions.items())
            taken.append(actions)
            observations, *_ = env.step(actions)
        runs.append((taken, matcher.state_dict()["discriminators"]))
    assert runs[0][0] == runs[1][0]
    assert str(runs[0][1]) == str(runs[1][1])


def spy(matcher):
    """A list of what will be asked of the matcher, with who was alive where it is recorded."""
    calls = []
    record, update, rewards = matcher.record, matcher.update, matcher.rewards

    def recorded(observations, alive, **options):
        calls.append(("record", np.asarray(alive)))
        return record(observations, alive, **options)

    def updated():
        calls.append(("update", None))
        return update()

    def paid(*args):
        calls.append(("rewards", None))
        return rewards(*args)

    matcher.record, matcher.update, matcher.rewards = recorded, updated, paid
    return calls


def test_the_program_prints_a_table(capsys):
    learners = importlib.import_module("_learners")
    args = learners.Args(steps=200, demonstrations=2, evaluation_episodes=2)
    means = learners.run(train_of("cleanrl_style"), args)
    assert set(means) == {"random", "trained"}
    assert np.isfinite([*means.values()]).all()
    assert "trained, c = 1" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--env must be mpe or smax:SCENARIO"):
        learners.environment(learners.Args(env="chess"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"coefficient": -1.0}, "coefficient must be a finite number of at least 0, got -1.0"),
        ({"env_coefficient": -1.0}, "env_coefficient must be a finite number of at least 0, got -1.0"),
        ({"steps": 0}, "steps"),
        ({"demonstrations": 0}, "demonstrations"),
        ({"evaluation_episodes": 0}, "evaluation.episodes"),
    ],
)
def test_wrong_options_are_one_sentence_before_anything_is_made(options, sentence):
    learners = importlib.import_module("_learners")
    with pytest.raises(SystemExit, match=sentence):
        learners.run(lambda *args, **kwargs: pytest.fail("it trained"), learners.Args(**options))
