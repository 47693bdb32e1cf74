"""A team's options: taken over from wrappers, and refused in one sentence."""

import warnings
from functools import partial

import pytest
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners
from tests.helpers.sb3_teams import OPTIONS, SMALL, matcher, venv
from tests.helpers.tiny_envs import TinyEnv


def test_a_wrapped_environment_brings_its_matcher_along():
    wrapped = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=0.25)
    team = IndependentLearners(PPO, wrapped, seed=0, n_steps=6, batch_size=6, **SMALL)
    assert (team.mode, team.coefficient, team.matcher) == ("exact", 0.25, wrapped.matcher)
    team.learn(12)
    assert team.env.num_envs == 1


def test_a_wrappers_options_are_taken_over_and_not_given_twice():
    demos = matcher()
    wrapped = dm2.DM2VectorEnv(venv(), demos, coefficient=0.25, env_coefficient=0.5, update_every=100)
    team = IndependentLearners(PPO, wrapped, n_steps=6, batch_size=6, **SMALL)
    assert (team.env, team.matcher, team.coefficient) == (wrapped.env, demos, 0.25)
    assert (team.env_coefficient, team.update_every) == (0.5, 100)
    single = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), demos, coefficient=0.25)
    assert IndependentLearners(PPO, single, n_steps=6, batch_size=6, update_every=50, **SMALL).update_every == 50
    assert IndependentLearners(PPO, single, n_steps=6, batch_size=6, **SMALL).update_every == 4096
    twice = {"matcher": demos, "coefficient": 1.0, "env_coefficient": 1.0, "update_every": 4096}
    for name, value in twice.items():
        with pytest.raises(ValueError, match=f"DM2VectorEnv has {name} already: give them to the wrapper or to"):
            IndependentLearners(PPO, wrapped, **{name: value})
    with pytest.raises(ValueError, match="DM2ParallelEnv has matcher, coefficient already"):
        IndependentLearners(PPO, single, matcher=demos, coefficient=1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "sometimes"}, "mode must be"),
        ({"matcher": "M"}, "needs a coefficient"),
        ({"coefficient": 0.3}, "needs a matcher"),
        ({"matcher": "M", "coefficient": -1.0}, "coefficient must be"),
        ({"matcher": "M", "coefficient": float("nan")}, "coefficient must be"),
        ({"env_coefficient": -1.0}, "env_coefficient must be"),
        ({"after_death": "heaven"}, "after_death must be"),
        ({"update_every": 0}, "update_every must be an integer of at least 1, got 0"),
        ({"update_every": 2.5}, "update_every must be an integer of at least 1, got 2.5"),
        ({"seed": 1.5}, "seed must be None or an integer, got 1.5"),
        ({"env_coefficient": "1"}, "env_coefficient must be a finite number of at least 0, got '1'"),
        ({"log_dir": "logs", "tensorboard_log": "logs"}, "log_dir or tensorboard_log, not both"),
    ],
)
def test_options_are_checked(change, message):
    if change.get("matcher"):
        change = {**change, "matcher": matcher()}
    with pytest.raises(ValueError, match=message):
        IndependentLearners(PPO, venv(), n_steps=6, batch_size=6, **SMALL, **change)


def test_unlike_n_steps_in_an_exact_run_are_refused():
    algorithms = {agent: partial(PPO, n_steps=n) for agent, n in (("agent_0", 6), ("agent_1", 12))}
    with pytest.raises(ValueError, match="same n_steps"):
        IndependentLearners(algorithms, venv(), matcher=matcher(), coefficient=0.3, batch_size=6, **SMALL)
    with pytest.raises(ValueError, match="needs on-policy"):
        IndependentLearners(DQN, venv(), matcher=matcher(), coefficient=0.3, mode="exact", **SMALL)


def test_wrong_agents_are_refused():
    with pytest.raises(ValueError, match="one algorithm for each"):
        IndependentLearners({"agent_0": PPO}, venv())
    with pytest.raises(ValueError, match="algorithm class"):
        IndependentLearners(dict, venv())
    with pytest.raises(ValueError, match="features"):
        IndependentLearners(PPO, venv(sizes=(4, 9)), matcher=matcher(), coefficient=0.3)
    team = IndependentLearners(PPO, venv(), n_steps=6, batch_size=6, **SMALL)
    with pytest.raises(ValueError, match="unknown agents"):
        team.learn(18, callback={"nobody": None})

    class Nothing(BaseCallback):
        def _on_step(self):
            return True

    with pytest.raises(ValueError, match="belongs to one learner"):
        team.learn(18, callback=Nothing())


def test_what_sb3_asserts_names_the_agent():
    for algorithm, options, message in (
        (DQN, {"continuous": True}, r"DQN cannot learn for agent 'agent_0', whose actions are Box.*only supports"),
        (partial(SAC, buffer_size=9), {}, r"SAC cannot learn for agent 'agent_0', .*Discrete\(3\).*supports"),
        (partial(PPO, n_steps=1), {}, "PPO cannot learn for agent 'agent_0', .* must be greater than 1"),
    ):
        with pytest.raises(ValueError, match=message):
            IndependentLearners(algorithm, TinyEnv(**options), device="cpu")


def test_numbers_of_steps_and_folders_that_are_none(tmp_path):
    team = IndependentLearners(PPO, TinyEnv(), device="cpu", n_steps=8, batch_size=8)
    for value in (float("nan"), float("inf"), None, "many", "16", True):
        with pytest.raises(ValueError, match="total_timesteps must be a number of environment steps, got"):
            team.learn(value)
    with pytest.raises(TypeError, match="log_dir must be the path of a folder, got 3"):
        IndependentLearners(PPO, TinyEnv(), device="cpu", log_dir=3)
    (tmp_path / "file").touch()
    for log_dir in (tmp_path / "file", str(tmp_path / "file")):
        with pytest.raises(ValueError, match=r"log_dir must be the path of a folder, but '.*file' is a file"):
            IndependentLearners(PPO, TinyEnv(), device="cpu", log_dir=log_dir)


def test_learning_for_less_than_an_agents_rollout_warns():
    algorithms = {
        "agent_0": partial(DQN, learning_starts=5, buffer_size=100, train_freq=1),
        "agent_1": partial(PPO, n_steps=8, batch_size=8),
    }
    team = IndependentLearners(algorithms, venv(), seed=0, **SMALL)
    message = r"total_timesteps=20 ends after 21 steps, before the first rollout of agent_1 \(24 steps\)"
    with pytest.warns(UserWarning, match=message):
        team.learn(20)
    assert team.models["agent_1"]._n_updates == 0
    assert [model._last_obs for model in team.models.values()] == [None, None]  # agent 1 was amid a rollout
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        team.learn(22)
        IndependentLearners(PPO, venv(), seed=0, n_steps=6, batch_size=6, **SMALL).learn(1)
    assert team.models["agent_1"]._n_updates > 0


@pytest.mark.parametrize(
    "name",
    ["env", "log_dir", "matcher", "env_coefficient", "mode", "order", "convergence", "update_every", "relabel", "workers"],
)
def test_options_that_would_have_no_effect_later_are_not_changed(name):
    team = IndependentLearners(PPO, venv(), matcher=matcher(), coefficient=0.3, n_steps=6, batch_size=6, **SMALL)
    before = getattr(team, name)
    with pytest.raises(AttributeError, match=f"{name} cannot be changed once IndependentLearners is made"):
        setattr(team, name, before)
    callback = dm2.sb3.SharedPolicyDM2(matcher(), coefficient=0.3)
    if hasattr(callback, name):
        with pytest.raises(AttributeError, match=f"{name} cannot be changed once SharedPolicyDM2 is made"):
            setattr(callback, name, before)


def test_what_learn_takes_is_checked():
    team = IndependentLearners(PPO, venv(), n_steps=6, batch_size=6, **SMALL)
    for options, message in (
        ({"reset_num_timesteps": "no"}, "reset_num_timesteps must be True or False, got 'no'"),
        ({"progress_bar": 1}, "progress_bar must be True or False, got 1"),
        ({"log_interval": 0}, "log_interval must be an integer of at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            team.learn(18, **options)
    team.learn(18, log_interval=None, reset_num_timesteps=None)
    assert team.num_timesteps == 18
