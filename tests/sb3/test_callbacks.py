"""Callbacks as SB3's users pass them, and agents without a step to learn from."""

import numpy as np
import pytest
import torch
from sb3_contrib import TRPO, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
)

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners
from dm2_wrappers.sb3.callbacks import PauseWithoutSteps
from tests.helpers.sb3_teams import ON_POLICY, SMALL, assert_equal_weights, matcher, venv, weights
from tests.helpers.tiny_envs import TinyEnv

DQN_OPTIONS = {"learning_starts": 4, "buffer_size": 99, "batch_size": 4, **SMALL}


class At(BaseCallback):
    """Calls a function once, in a given step."""

    def __init__(self, step, function):
        super().__init__()
        self.step, self.function = step, function

    def _on_step(self):
        if self.n_calls == self.step:
            self.function()
        return True


class ComesAndGoes(TinyEnv):
    """Agent 1 is there in the steps of ``there`` only; an episode lasts ``limit`` steps."""

    def __init__(self, there=(), **options):
        super().__init__(**{"sizes": (3, 3), "limit": 6, **options})
        self.there = set(there)

    def reset(self, seed=None, options=None):
        observations, infos = super().reset(seed, options)
        self.agents = self._now()
        return {a: observations[a] for a in self.agents}, {a: infos[a] for a in self.agents}

    def step(self, actions):
        acted = list(self.agents)
        self.agents = list(self.possible_agents)
        absent = self.action_spaces["agent_1"].low * 0 if self.continuous else 0
        observations, rewards, terminations, truncations, infos = super().step({"agent_1": absent, **actions})
        over = not self.agents
        self.agents = [] if over else self._now()
        if not over:
            terminations["agent_1"] = "agent_1" in acted and "agent_1" not in self.agents
        keys = set(acted) | set(self.agents)
        return tuple({a: d[a] for a in d if a in keys} for d in (observations, rewards, terminations, truncations, infos))

    def _now(self):
        return ["agent_0", *(["agent_1"] if self.t in self.there else [])]


@pytest.mark.parametrize("algorithm", [PPO, A2C, TRPO, MaskablePPO, RecurrentPPO, DQN, SAC])
def test_a_learner_whose_agent_was_never_there_stays_as_it_was(algorithm):
    on_policy = {"n_steps": 6, **({} if algorithm is A2C else {"batch_size": 6})}
    options = on_policy if algorithm not in (DQN, SAC) else {"learning_starts": 2, "buffer_size": 50, "batch_size": 4}
    env = dm2.vectorize(lambda: ComesAndGoes(continuous=algorithm is SAC), 1)
    team = IndependentLearners(algorithm, env, seed=0, **options, **SMALL)
    before = {agent: {n: v.clone() for n, v in state.items()} for agent, state in weights(team).items()}
    team.learn(18)
    assert_equal_weights({"agent_1": before["agent_1"]}, {"agent_1": weights(team)["agent_1"]})
    assert not team.models["agent_1"].policy.optimizer.state if hasattr(team.models["agent_1"].policy, "optimizer") else True
    assert any(not torch.equal(v, weights(team)["agent_0"][n]) for n, v in before["agent_0"].items())
    assert getattr(team.models["agent_1"], "gradient_steps", 1) == 1


def test_a_learner_that_rests_for_want_of_steps_is_saved_as_one_that_learns(tmp_path):
    options = {**SMALL, "learning_starts": 0, "buffer_size": 50, "batch_size": 4, "train_freq": 6, "gradient_steps": 3}

    class AtTheEnd(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_end(self):
            team.save(tmp_path / "team")
            raise ZeroDivisionError

    team = IndependentLearners(DQN, dm2.vectorize(ComesAndGoes, 1), seed=0, **options)
    with pytest.raises(ZeroDivisionError):
        team.learn(6, {"agent_1": AtTheEnd()})
    for one in (team, IndependentLearners.load(tmp_path / "team", dm2.vectorize(ComesAndGoes, 1))):
        assert isinstance(one.models["agent_1"], DQN)
        one.learn(6, reset_num_timesteps=False)
        assert [type(model) for model in one.models.values()] == [DQN, DQN]
        assert one.models["agent_1"].gradient_steps == 3
        assert (one.models["agent_0"]._n_updates > 0, one.models["agent_1"]._n_updates) == (True, 0)


@pytest.mark.parametrize("then", ["on_rollout_start", "on_training_end"])
def test_a_learner_whose_loop_did_not_come_to_train_learns_the_next_time(then):
    model, pause = DQN("MlpPolicy", "CartPole-v1", buffer_size=10), PauseWithoutSteps()
    pause.init_callback(model)
    pause.on_rollout_end()  # the buffer is empty
    assert type(model) is not DQN
    model.train(1, 4)  # as a loop of the user's own may call it
    pause.on_rollout_end()
    getattr(pause, then)()
    assert type(model) is DQN


def test_a_recurrent_agent_that_comes_back_begins_an_episode():
    env = dm2.vectorize(lambda: ComesAndGoes(there=(0, 1, 4, 5)), 1)
    team = IndependentLearners(RecurrentPPO, env, seed=0, n_steps=12, batch_size=12, **SMALL)
    for model in team.models.values():
        model.train = lambda: None
    team.learn(12)
    first, second = (model.rollout_buffer for model in team.models.values())
    # It acts in steps 0, 1, 4 and 5 of each episode. It is done after step 1 and starts again in step 4.
    assert second.present[:, 0].tolist() == [True, True, False, False, True, True] * 2
    assert second.episode_starts[:, 0].tolist() == [1, 0, 1, 0, 1, 0] * 2
    assert first.episode_starts[:, 0].tolist() == [1, 0, 0, 0, 0, 0] * 2
    # The observation two steps later is the same as at the start but for its own step: the state is the initial one.
    model = team.models["agent_1"]
    states = [second.hidden_states_pi[t] for t in range(12)]
    assert states[0].any() == np.bool_(False)
    value = model.policy.predict_values(
        torch.as_tensor(second.observations[4]),
        tuple(torch.zeros(1, 1, model.policy.lstm_actor.hidden_size) for _ in range(2)),
        torch.ones(1),
    )
    assert value.item() == pytest.approx(second.values[4, 0], abs=1e-5)


@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_an_agent_that_leaves_is_done_once(algorithm):
    options = {"n_steps": 6, "batch_size": 6, **SMALL} if algorithm is PPO else DQN_OPTIONS
    env = venv(1, lifetimes=(None, 2), absorb=False, limit=4, random_limit=False)
    team = IndependentLearners(algorithm, env, seed=0, **options)
    team.learn(400, callback=lambda agent: StopTrainingOnMaxEpisodes(5) if agent == "agent_1" else None)
    assert team.num_timesteps == 4 * 4 + 2  # the fifth time that agent 1 leaves, in step 2 of the fifth episode


def test_training_after_whole_episodes_of_an_agent_that_leaves_early():
    env = venv(1, lifetimes=(None, 2), absorb=False, limit=4, random_limit=False)
    options = {**DQN_OPTIONS, "train_freq": (2, "episode"), "learning_starts": 1}
    team = IndependentLearners(DQN, env, seed=0, **options)
    trained = {agent: [] for agent in team.agents}
    for agent, model in team.models.items():
        model.train = lambda agent=agent, model=model, **_: trained[agent].append(model.num_timesteps)
    team.learn(16)
    assert trained == {"agent_0": [8, 16], "agent_1": [6, 14]}
    with pytest.raises(ValueError, match=r"train_freq of agent 'agent_0' is in episodes, .* there are 3"):
        IndependentLearners(DQN, venv(), **options)


def test_wins_of_episodes_that_an_agent_left_early_count_in_its_success_rate():
    env = venv(1, lifetimes=(None, 2), absorb=False, limit=4, random_limit=False)
    team = IndependentLearners(PPO, env, seed=0, n_steps=12, batch_size=12, **SMALL).learn(12)
    # Every second episode is won, beginning with the first.
    for model in team.models.values():
        assert [float(won) for won in model.ep_success_buffer] == [1.0, 0.0, 1.0]
        assert model.logger.name_to_value.get("rollout/success_rate", 2 / 3) == pytest.approx(2 / 3)


def test_sb3s_checkpoints_with_their_replay_buffers(tmp_path):
    team = IndependentLearners(DQN, venv(1), seed=0, **DQN_OPTIONS)
    team.learn(16, callback=lambda agent: CheckpointCallback(8, f"{tmp_path}/{agent}", save_replay_buffer=True))
    saved = tmp_path / "agent_1" / "rl_model_replay_buffer_16_steps.pkl"
    other = IndependentLearners(DQN, venv(1), seed=1, **DQN_OPTIONS)
    other.models["agent_1"].load_replay_buffer(saved)
    mine, theirs = (t.models["agent_1"].replay_buffer for t in (team, other))
    # SB3 calls back before it stores the step; the last row's death is paid for in later steps.
    assert theirs.pos == 9
    np.testing.assert_array_equal(theirs.observations[:8], mine.observations[:8])
    np.testing.assert_array_equal(theirs.rewards[:8], mine.rewards[:8])
    other.learn(20)
    assert theirs.pos > mine.pos
    other.models["agent_1"].replay_buffer = ReplayBuffer(9, mine.observation_space, mine.action_space)
    with pytest.raises(ValueError, match="replay buffer of agent 'agent_1' is a ReplayBuffer that was not saved"):
        other.learn(20)
    other.models["agent_1"].load_replay_buffer(tmp_path / "agent_0" / "rl_model_replay_buffer_16_steps.pkl")
    with pytest.raises(ValueError, match="loaded for agent 'agent_1' holds other observations"):
        other.learn(20)


def test_a_callback_may_save_and_what_it_may_not_do_is_one_sentence(tmp_path):
    team = IndependentLearners(PPO, venv(), seed=0, matcher=matcher(), coefficient=0.5, **SMALL, **ON_POLICY[PPO])
    streams = []

    def save():
        streams.append(torch.get_rng_state())
        team.save(tmp_path / "team")

    team.learn(36, callback={"agent_1": At(9, save)})
    loaded = IndependentLearners.load(tmp_path / "team", venv())
    assert loaded.num_timesteps == 27
    # The stream of the agent whose turn it was is the one of that moment, not of its last turn's end.
    assert torch.equal(loaded._lockstep.streams["agent_1"].torch, streams[0])
    loaded.learn(18)
    for name, call in {
        "restart_episodes": team.restart_episodes,
        "restore": lambda: team.restore(tmp_path / "team"),
        "learn": lambda: team.learn(18),
    }.items():
        with pytest.raises(RuntimeError, match=rf"{name}\(\) was called while learn\(\) is under way"):
            team.learn(18, callback={"agent_0": At(2, call)})
        team.learn(18)


def test_evaluating_alone_in_the_training_environment_is_refused():
    team = IndependentLearners(PPO, venv(), seed=0, **SMALL, **ON_POLICY[PPO])
    view = team.models["agent_0"].get_env()
    for make in (
        lambda agent: EvalCallback(view),
        lambda agent: [EveryNTimesteps(5, EvalCallback(view))],
    ):
        with pytest.raises(ValueError, match=r"EvalCallback of agent 'agent_0' .* call team\.evaluate\(other_env\)"):
            team.learn(18, callback=make)
    with pytest.raises(RuntimeError, match=r"'agent_0' is learning in this environment, so a callback must not reset it"):
        team.learn(18, callback=lambda agent: At(2, team.models[agent].get_env().reset))
    team.learn(18)


def test_a_learners_own_environment_is_refused():
    from stable_baselines3.common.vec_env import VecNormalize

    team = IndependentLearners(PPO, venv(), seed=0, **SMALL, **ON_POLICY[PPO])
    view = team.models["agent_1"].get_env()
    team.models["agent_1"].set_env(VecNormalize(view))
    with pytest.raises(ValueError, match=r"agent 'agent_1' was given the environment VecNormalize with set_env\(\)"):
        team.learn(18)
    for call in (lambda: IndependentLearners(PPO, VecNormalize(view)), lambda: IndependentLearners(PPO, view)):
        with pytest.raises(TypeError, match="takes a PettingZoo ParallelEnv or a MultiAgentVectorEnv, got SB3's"):
            call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"algorithm": "PPO"}, r"algorithm of agent 'agent_0' must be .* such as stable_baselines3\.PPO, got 'PPO'"),
        ({"policy": "MlpPolcy"}, r"policy of agent 'agent_0' must be 'MlpPolicy', or a class .* got 'MlpPolcy'"),
        ({"policy": "MlpLstmPolicy"}, r"policy of agent 'agent_0' must be 'MlpPolicy'"),
        ({"policy": 5}, r"policy of agent 'agent_0' must be 'MlpPolicy'"),
        ({"policy": dict}, r"policy of agent 'agent_0' must be 'MlpPolicy'"),
        ({"policy": "CnnPolicy"}, r"observations are flattened into one vector: use 'MlpPolicy'"),
    ],
)
def test_wrong_algorithms_and_policies_are_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        IndependentLearners(arguments.pop("algorithm", PPO), venv(), **arguments)


def test_a_loaded_team_goes_on_counting_and_a_fresh_one_counts_like_sb3(tmp_path):
    team = IndependentLearners(PPO, venv(), seed=0, **SMALL, **ON_POLICY[PPO]).learn(18)
    team.save(tmp_path / "team")
    assert team.learn(18).num_timesteps == 18
    assert IndependentLearners.load(tmp_path / "team", venv()).learn(18).num_timesteps == 36
    assert IndependentLearners.load(tmp_path / "team", venv()).learn(18, reset_num_timesteps=True).num_timesteps == 18


def test_load_takes_a_wrappers_matcher_and_coefficients(tmp_path):
    team = IndependentLearners(PPO, venv(), seed=0, matcher=matcher(), coefficient=0.5, **SMALL, **ON_POLICY[PPO])
    team.learn(18).save(tmp_path / "team")
    own = matcher()
    wrapped = dm2.DM2VectorEnv(venv(), own, coefficient=0.1, env_coefficient=0.2)
    loaded = IndependentLearners.load(tmp_path / "team", wrapped)
    assert (loaded.matcher, loaded.coefficient, loaded.env_coefficient) == (own, 0.1, 0.2)
    observations = np.random.default_rng(0).normal(size=(9, 2, 4)).astype(np.float32)
    np.testing.assert_array_equal(own.rewards(observations), team.matcher.rewards(observations))
