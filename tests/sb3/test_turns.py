"""Algorithm 2 with SB3 learners: one agent's turn to learn after the other's."""

import json
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from sb3_contrib import TRPO, MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners
from tests.helpers.sb3_teams import ON_POLICY, SMALL, assert_equal_weights, matcher, venv, weights

FEW = dm2.Convergence(tolerance=0.05, window=2, most=6)
ROLLOUT = 18  # 6 steps of 3 sub-environments


def team_of(algorithm=PPO, env=None, **options):
    options = {**SMALL, **ON_POLICY.get(algorithm, ON_POLICY[PPO]), "convergence": FEW, **options}
    if algorithm in (TRPO, None):
        del options["n_epochs"]
    options = {"matcher": matcher(), "coefficient": 0.5, "seed": 3, **options}
    return IndependentLearners(algorithm, env or venv(), order="turn", **options)


def changed(before, after):
    return [a for a in before if any(not torch.equal(value, after[a][name]) for name, value in before[a].items())]


@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO, RecurrentPPO, TRPO])
def test_only_the_agent_whose_turn_it_is_learns(algorithm):
    team = team_of(algorithm)
    for learned in ("agent_0", "agent_1", "agent_0"):
        before, rewards = weights(team), team.matcher.rewards(np.ones((1, 2, 4), np.float32))
        team.learn(ROLLOUT, reset_num_timesteps=False)
        assert changed(before, weights(team)) == [learned]
        moved = team.matcher.rewards(np.ones((1, 2, 4), np.float32)) != rewards
        assert moved.tolist() == [[learned == "agent_0", learned == "agent_1"]]
        assert f"minibatches/{learned}" in team.matcher.metrics
        assert {type(model) for model in team.models.values()} == {algorithm}
    # All loops count environment steps.
    assert {model.num_timesteps for model in team.models.values()} == {3 * ROLLOUT}


class Payments(BaseCallback):
    """Keeps what the agent's rollout was paid, and what it should have been paid after its discriminator's update."""

    def __init__(self, team, agent, kept):
        super().__init__()
        self.team, self.agent, self.kept = team, agent, kept

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        buffer, k = self.model.rollout_buffer, self.team.agents.index(self.agent)
        observations = np.zeros((*buffer.rewards.shape, 2, 4), np.float32)
        observations[:, :, k, : buffer.observations.shape[2]] = buffer.observations
        alive = np.zeros(observations.shape[:3], bool)
        alive[:, :, k] = buffer.live
        gail = self.team.matcher.rewards(observations, alive)[:, :, k]
        self.kept.append((self.agent, buffer.rewards - buffer.env_rewards, 0.5 * gail, buffer.dead_value))


def test_the_agent_is_paid_by_its_updated_discriminator_and_the_others_are_not_paid():
    # Terminations, so SB3 adds no bootstrap.
    team, kept = team_of(env=venv(truncates=False)), []
    team.learn(3 * ROLLOUT, {agent: Payments(team, agent, kept) for agent in team.agents})
    paid_agents = [agent for agent, paid, *_ in kept if np.abs(paid).max() > 1e-6]
    assert [agent for agent, *_ in kept] == ["agent_0", "agent_1"] * 3
    assert paid_agents == ["agent_0", "agent_1", "agent_0"]
    for _, paid, expected, _ in kept:
        if paid.any():
            np.testing.assert_allclose(paid, expected, atol=1e-5)
    # Agent 1 dies in its episodes. What being dead is worth comes from its own turn, the second rollout, alone.
    values = [value for agent, *_, value in kept if agent == "agent_1"]
    assert values[0] == 0.0 != values[1]
    assert values[2] == values[1]


def test_a_run_is_deterministic_and_resumes_bit_for_bit_in_the_middle_of_a_sweep(tmp_path):
    env = venv(wins=False)
    team = team_of(env=env).learn(3 * ROLLOUT)
    team.save(tmp_path / "team")
    team.restart_episodes()
    team.learn(2 * ROLLOUT, reset_num_timesteps=False)
    restored = team_of(env=env).restore(tmp_path / "team")
    loaded = IndependentLearners.load(tmp_path / "team", env)
    assert (loaded.order, loaded.convergence) == ("turn", FEW)
    for other in (loaded, restored):
        before = weights(other)
        other.learn(ROLLOUT)
        assert changed(before, weights(other)) == ["agent_1"]  # three rollouts were agent 0's, agent 1's, agent 0's
        other.learn(ROLLOUT)
        assert_equal_weights(weights(team), weights(other))
    again = team_of().learn(3 * ROLLOUT)
    assert_equal_weights(weights(again), weights(team_of().learn(3 * ROLLOUT)))


def test_a_checkpoint_from_before_turns_existed_loads(tmp_path):
    options = {**SMALL, **ON_POLICY[PPO]}
    IndependentLearners(PPO, venv(), matcher=matcher(), coefficient=0.5, seed=3, **options).save(tmp_path / "new")
    with zipfile.ZipFile(tmp_path / "new.zip") as new, zipfile.ZipFile(tmp_path / "old.zip", "w") as old:
        for entry in new.namelist():
            data = new.read(entry)
            if entry == "team.json":
                facts = json.loads(data)
                del facts["turn"], facts["options"]["order"], facts["options"]["convergence"], facts["options"]["relabel"]
                del facts["steps_since_update"]
                data = json.dumps(facts).encode()
            old.writestr(entry, data)
    team = IndependentLearners.load(tmp_path / "old", venv())
    assert (team.order, team.relabel) == ("simultaneous", False)
    with pytest.raises(ValueError, match="order='simultaneous' and not 'turn'"):
        team_of().restore(tmp_path / "new")


class SaveAtRolloutEnd(BaseCallback):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        self.model.save(self.path)


def test_a_model_that_is_saved_while_it_waits_for_its_turn_is_an_ordinary_one(tmp_path):
    team = team_of()
    team.learn(ROLLOUT, {"agent_1": SaveAtRolloutEnd(tmp_path / "model")})
    model = PPO.load(tmp_path / "model")
    assert type(model) is PPO
    assert "train" not in vars(model)


class Stop(BaseCallback):
    def _on_step(self):
        return True

    def _on_rollout_end(self):
        raise KeyboardInterrupt


def test_an_interrupted_turn_leaves_no_learner_that_cannot_learn():
    team = team_of()
    with pytest.raises(KeyboardInterrupt):
        team.learn(ROLLOUT, {"agent_1": Stop()})
    before = weights(team)
    team.learn(2 * ROLLOUT)
    assert changed(before, weights(team)) == ["agent_0", "agent_1"]
    assert {type(model) for model in team.models.values()} == {PPO}


def test_without_an_algorithm_the_learners_are_trpo():
    team = team_of(None)
    assert {type(model) for model in team.models.values()} == {TRPO}
    assert "turn by turn" in repr(team)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"algorithm": DQN}, ValueError, r"order='turn' needs on-policy algorithms, such as TRPO or PPO, and \['DQN'\] are"),
        (
            {"mode": "online"},
            ValueError,
            "after its discriminator has converged: use mode='exact'",
        ),
        ({"matcher": None, "coefficient": None}, ValueError, "pass matcher= and coefficient="),
        ({"order": "random"}, ValueError, "order must be 'simultaneous' or 'turn', got 'random'"),
        ({"order": "simultaneous", "convergence": FEW}, ValueError, "convergence is for order='turn'"),
        ({"convergence": {"window": 2}}, TypeError, "convergence must be a dm2.Convergence"),
        ({"order": "simultaneous", "algorithm": None}, ValueError, "name an algorithm"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, error, message):
    chosen = {"algorithm": PPO, "order": "turn", "matcher": matcher(), "coefficient": 0.5, **options}
    learner = {} if chosen["algorithm"] is DQN else {"n_steps": 6, "batch_size": 6}
    with pytest.raises(error, match=message):
        IndependentLearners(chosen.pop("algorithm"), venv(), **chosen, **SMALL, **learner)


def test_different_n_steps_are_refused():
    algorithms = {"agent_0": partial(PPO, n_steps=6), "agent_1": partial(PPO, n_steps=12)}
    with pytest.raises(ValueError, match="the same n_steps"):
        IndependentLearners(algorithms, venv(), order="turn", matcher=matcher(), coefficient=1.0, batch_size=6)
