"""How a call of `learn` ends, by a callback's stop or by an error, and how the next one goes on."""

import numpy as np
import pytest
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners
from tests.helpers.sb3_teams import OPTIONS, SMALL, venv
from tests.helpers.tiny_envs import FailingEnv, TinyEnv


def test_when_one_agents_callback_says_stop_all_stop_and_can_go_on():
    class Stop(BaseCallback):
        def _on_step(self):
            return self.num_timesteps < 30

    ended = []

    class Note(BaseCallback):
        def _on_step(self):
            return True

        def _on_training_end(self):
            ended.append(self.num_timesteps)

    team = IndependentLearners(PPO, venv(), seed=0, n_steps=6, batch_size=6, **SMALL)
    team.learn(90, callback={"agent_0": Note(), "agent_1": Stop()})
    assert team.models["agent_1"].num_timesteps == 30
    assert len(ended) == 1
    team.learn(18, reset_num_timesteps=False)
    assert team.num_timesteps > 30


class StopAt(BaseCallback):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def _on_step(self):
        return self.num_timesteps < self.steps


class SeesItsObservations(BaseCallback):
    """Checks that the learner acts on what the environment shows: feature 0 counts the episode's steps."""

    def __init__(self, team, agent):
        super().__init__()
        self.team, self.index, self.steps = team, team.agents.index(agent), 0

    def _on_step(self):
        before = self.team._lockstep.last_step.observations[:, self.index, : self.model._last_obs.shape[1]]
        np.testing.assert_array_equal(self.model._last_obs, before)
        self.steps += 1
        return True


@pytest.mark.parametrize("total", [9, 12, 18, 90])
@pytest.mark.parametrize("algorithm", [PPO, DQN])
@pytest.mark.parametrize("stopping", [("agent_0",), ("agent_1",), ("agent_0", "agent_1")])
def test_after_a_callbacks_stop_nobody_acts_on_old_observations(algorithm, total, stopping):
    kwargs = {PPO: {"n_steps": 6, "batch_size": 6}, DQN: {"learning_starts": 100, "buffer_size": 100, "train_freq": 4}}
    team = IndependentLearners(algorithm, venv(), seed=0, **kwargs[algorithm], **SMALL)
    team.learn(total, callback={agent: StopAt(12) for agent in stopping})
    assert team.num_timesteps == 12 or total == 9
    seen = {agent: SeesItsObservations(team, agent) for agent in team.agents}
    team.learn(18, callback=seen, reset_num_timesteps=False)
    assert seen["agent_0"].steps >= 6


def test_a_run_that_ends_with_whole_rollouts_goes_on_in_its_episodes():
    team = IndependentLearners(PPO, venv(limit=100, random_limit=False), seed=0, n_steps=6, batch_size=6, **SMALL)
    team.learn(18).learn(18, reset_num_timesteps=False)
    assert (team._lockstep.observations[:, 0, 0] == 12).all()


def test_an_error_in_reset_is_not_hidden_by_callbacks_that_have_not_started():
    class NoReset(TinyEnv):
        def reset(self, seed=None, options=None):
            raise ZeroDivisionError("the simulator does not start")

    class Note(BaseCallback):
        def _on_step(self):
            return True

        def _on_training_end(self):
            ended.append(self.num_timesteps)

    ended = []
    team = IndependentLearners(PPO, NoReset(**OPTIONS), seed=0, n_steps=6, batch_size=6, **SMALL)
    with pytest.raises(ZeroDivisionError, match="does not start"):
        team.learn(18, callback={"agent_1": Note()}, progress_bar=True)
    assert ended == []


def test_an_agents_error_stops_the_run_with_its_name():
    class Fail(BaseCallback):
        def _on_step(self):
            raise ZeroDivisionError("bad callback")

    team = IndependentLearners(PPO, venv(), seed=0, n_steps=6, batch_size=6, **SMALL)
    with pytest.raises(ZeroDivisionError) as caught:
        team.learn(18, callback={"agent_1": Fail()})
    assert "agent_1" in caught.value.__notes__[0]
    team.learn(18)


def test_an_environments_error_reaches_the_caller():
    env = dm2.vectorize(lambda: FailingEnv(fail_at=9), 1)
    with pytest.raises(ZeroDivisionError, match="fell over"):
        IndependentLearners(PPO, env, seed=0, n_steps=6, batch_size=6, **SMALL).learn(90)
