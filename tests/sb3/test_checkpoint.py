import io
import json
import subprocess
import sys
import textwrap
import time
import zipfile

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO
from torch import nn

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners
from tests.helpers.sb3_teams import SMALL, assert_equal_weights, demonstrations, matcher, venv, weights

KWARGS = {**SMALL, "n_steps": 6, "batch_size": 6}


def trained(tmp_path, **options):
    options = {"matcher": matcher(), "coefficient": 0.5, **options}
    team = IndependentLearners(PPO, venv(), seed=0, **options, **KWARGS).learn(36)
    team.save(tmp_path / "team")
    return team


def test_two_loads_go_on_bit_for_bit_alike(tmp_path):
    trained(tmp_path)
    teams = [IndependentLearners.load(tmp_path / "team", venv()) for _ in range(2)]
    for team in teams:
        team.learn(36, reset_num_timesteps=False)
        assert team.num_timesteps == 72
    assert_equal_weights(*(weights(team) for team in teams))
    observations = np.random.default_rng(0).normal(size=(9, 2, 4)).astype(np.float32)
    np.testing.assert_array_equal(*(team.matcher.rewards(observations) for team in teams))


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (PPO, KWARGS),
        (MaskablePPO, KWARGS),
        (RecurrentPPO, {**KWARGS, "policy": "MlpLstmPolicy"}),
        (DQN, {**SMALL, "learning_starts": 5, "buffer_size": 500, "update_every": 10}),
        (DQN, {**SMALL, "learning_starts": 5, "buffer_size": 500, "update_every": 22}),
    ],
)
def test_an_interrupted_run_goes_on_as_one_that_restarts_its_episodes(tmp_path, algorithm, options):
    # Which episodes are won goes by their number since the environment was made, which no seed sets back.
    env = venv(wins=False)
    team = IndependentLearners(algorithm, env, seed=0, matcher=matcher(), coefficient=0.5, **options).learn(36)
    team.save(tmp_path / "team")
    team.restart_episodes()
    team.learn(36, reset_num_timesteps=False)
    loaded = IndependentLearners.load(tmp_path / "team", env)
    loaded.learn(36, reset_num_timesteps=False)
    assert_equal_weights(weights(team), weights(loaded))
    observations = np.random.default_rng(0).normal(size=(9, 2, 4)).astype(np.float32)
    np.testing.assert_array_equal(team.matcher.rewards(observations), loaded.matcher.rewards(observations))


def test_saving_does_not_change_when_the_discriminators_are_updated(tmp_path):
    options = {
        **SMALL,
        "learning_starts": 5,
        "buffer_size": 500,
        "update_every": 30,
        "matcher": matcher(),
        "coefficient": 0.5,
    }
    team, updated = IndependentLearners(DQN, venv(), seed=0, **options), []
    update = team.matcher.update
    team.matcher.update = lambda: updated.append(team.num_timesteps) or update()
    for _ in range(6):
        team.learn(12, reset_num_timesteps=False)
        team.save(tmp_path / "team")
        team.restart_episodes()
    assert len(updated) == team.num_timesteps // 30 == 2
    with zipfile.ZipFile(tmp_path / "team.zip") as file:
        assert json.loads(file.read("team.json"))["steps_since_update"] == 12


def test_the_value_of_being_dead_comes_back(tmp_path):
    team = trained(tmp_path)
    loaded = IndependentLearners.load(tmp_path / "team", venv())
    values = [team.models[agent].rollout_buffer.dead_value for agent in team.agents]
    assert values[1] != 0.0  # agent 1 dies in its third step
    assert values == [loaded.models[agent].rollout_buffer.dead_value for agent in team.agents]


def test_a_loaded_team_logs_beside_the_old_log(tmp_path):
    trained(tmp_path, log_dir=tmp_path / "log")
    loaded = IndependentLearners.load(tmp_path / "team", venv(), log_dir=tmp_path / "log")
    loaded.learn(18, reset_num_timesteps=False)
    names = sorted(path.name for path in (tmp_path / "log" / "agent_0").glob("*.csv"))
    assert names == ["progress.csv", "progress_from_36.csv"]
    assert all(path.stat().st_size for path in (tmp_path / "log" / "agent_0").glob("*.csv"))


def test_everything_comes_back(tmp_path):
    team = trained(tmp_path, env_coefficient=0.5)
    loaded = IndependentLearners.load(tmp_path / "team.zip", venv())
    assert_equal_weights(weights(team), weights(loaded))
    for name in ("coefficient", "env_coefficient", "mode", "update_every", "seed", "num_timesteps"):
        assert getattr(loaded, name) == getattr(team, name)
    assert len(loaded.matcher.demonstrations) == len(team.matcher.demonstrations)
    observations = np.random.default_rng(0).normal(size=(9, 2, 4)).astype(np.float32)
    np.testing.assert_array_equal(team.matcher.rewards(observations), loaded.matcher.rewards(observations))
    for agent in team.agents:
        mine, theirs = (t.models[agent].policy.optimizer.state_dict()["state"] for t in (team, loaded))
        assert all(torch.equal(mine[i]["exp_avg"], theirs[i]["exp_avg"]) for i in mine)
        assert torch.equal(team._lockstep.streams[agent].torch, loaded._lockstep.streams[agent].torch)


def test_the_environment_starts_from_a_seed_made_of_seed_and_step(tmp_path):
    trained(tmp_path)
    seeds = []
    for _ in range(2):
        env = venv()
        reset = env.reset
        env.reset = lambda *, seed=None, options=None, reset=reset: seeds.append(seed) or reset(seed=seed)
        IndependentLearners.load(tmp_path / "team", env).learn(18, reset_num_timesteps=False)
    assert seeds[0] == seeds[1]
    assert seeds[0] not in (None, 0)


def test_recurrent_teams_come_back(tmp_path):
    team = IndependentLearners(RecurrentPPO, venv(), seed=0, policy="MlpLstmPolicy", **KWARGS).learn(18)
    team.save(tmp_path / "team")
    loaded = IndependentLearners.load(tmp_path / "team", venv()).learn(18, reset_num_timesteps=False)
    assert loaded.matcher is None
    assert loaded.num_timesteps == 36


def test_a_checkpoint_of_other_agents_or_sizes_is_refused(tmp_path):
    trained(tmp_path)
    for other in ({"sizes": (4, 3, 3), "lifetimes": None}, {"sizes": (4, 9)}):
        with pytest.raises(ValueError, match=r"has the agents and observation sizes .*'agent_1': 3.*the environment has"):
            IndependentLearners.load(tmp_path / "team", venv(**other))


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        IndependentLearners.load(tmp_path / "nothing", venv())
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        IndependentLearners.load(tmp_path / "text", venv())
    team = trained(tmp_path)
    team.models["agent_0"].save(tmp_path / "model")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        IndependentLearners.load(tmp_path / "model", venv())
    whole = (tmp_path / "team.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a checkpoint"):
        IndependentLearners.load(tmp_path / "half", venv())
    spoilt = bytearray(whole)
    spoilt[len(spoilt) // 2] ^= 0xFF
    (tmp_path / "spoilt.zip").write_bytes(spoilt)
    with pytest.raises(ValueError, match="damaged"):
        IndependentLearners.load(tmp_path / "spoilt", venv())


def rewritten(old, new, entry, change):
    """The same archive but for one entry."""
    with zipfile.ZipFile(old) as source, zipfile.ZipFile(new, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, change(data) if name == entry else data)


def test_an_algorithm_that_is_none_is_refused(tmp_path):
    trained(tmp_path)
    rewritten(
        tmp_path / "team.zip",
        tmp_path / "new.zip",
        "team.json",
        lambda data: json.dumps({**json.loads(data), "algorithms": ["os:system"] * 2}),
    )
    with pytest.raises(ValueError, match="which is not a Stable-Baselines3 algorithm"):
        IndependentLearners.load(tmp_path / "new", venv())


def test_a_checkpoint_of_an_older_version_is_refused_in_a_sentence(tmp_path):
    def without_streams(data):
        state = torch.load(io.BytesIO(data), weights_only=True)
        del state["action_streams"]
        torch.save(state, changed := io.BytesIO())
        return changed.getvalue()

    trained(tmp_path)
    rewritten(tmp_path / "team.zip", tmp_path / "older.zip", "state.pt", without_streams)
    with pytest.raises(ValueError, match=r"lacks action_streams; train again"):
        IndependentLearners.load(tmp_path / "older", venv())


def test_networks_of_the_users_own_need_their_matcher_again(tmp_path):
    def own():
        return matcher(module=lambda agent, size: nn.Sequential(nn.Linear(size, 5), nn.ReLU(), nn.Linear(5, 1)))

    team = trained(tmp_path, matcher=own())
    with pytest.raises(ValueError, match="pass matcher="):
        IndependentLearners.load(tmp_path / "team", venv())
    loaded = IndependentLearners.load(tmp_path / "team", venv(), matcher=own())
    observations = np.random.default_rng(0).normal(size=(9, 2, 4)).astype(np.float32)
    np.testing.assert_array_equal(team.matcher.rewards(observations), loaded.matcher.rewards(observations))


def test_a_failing_save_leaves_the_old_file_and_no_rubbish(tmp_path):
    team = trained(tmp_path)
    before = (tmp_path / "team.zip").read_bytes()
    team.models["agent_1"].save = lambda stream: 1 / 0
    with pytest.raises(ZeroDivisionError):
        team.save(tmp_path / "team")
    assert (tmp_path / "team.zip").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["team.zip"]


def test_killing_the_process_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    program = f"""
        from stable_baselines3 import PPO
        from tests.sb3.test_checkpoint import KWARGS, venv, matcher
        from dm2_wrappers.sb3 import IndependentLearners
        team = IndependentLearners(PPO, venv(), seed=0, matcher=matcher(), coefficient=0.5, **KWARGS).learn(18)
        team.save({str(tmp_path / "team")!r})
        print("saved", flush=True)
        while True:
            team.save({str(tmp_path / "team")!r})
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline().strip() == b"saved"
        for _ in range(5):
            time.sleep(0.037)
            assert IndependentLearners.load(tmp_path / "team", venv()).num_timesteps == 18
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert IndependentLearners.load(tmp_path / "team", venv()).num_timesteps == 18


def test_demonstrations_are_not_shared_by_accident_between_checkpoints(tmp_path):
    first = trained(tmp_path)
    second = trained(tmp_path, matcher=dm2.DistributionMatcher(first.matcher.demonstrations.subset(3), seed=0))
    loaded = IndependentLearners.load(tmp_path / "team", venv())
    assert len(loaded.matcher.demonstrations) == len(second.matcher.demonstrations) == 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "nowhere"}, ValueError, "device 'nowhere' cannot be used here"),
        ({"workers": -1}, ValueError, "workers must be"),
        ({"log_dir": 3}, TypeError, "log_dir must be the path of a folder, got 3"),
    ],
)
def test_wrong_options_of_load_are_not_blamed_on_the_file(tmp_path, options, error, message):
    trained(tmp_path)
    with pytest.raises(error, match=f"^{message}"):
        IndependentLearners.load(tmp_path / "team", venv(), **options)


def test_a_log_without_tensorboard_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    trained(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match="tensorboard"):
        IndependentLearners.load(tmp_path / "team", venv(), log_dir=tmp_path / "log")


def test_numpys_numbers_are_saved_like_pythons(tmp_path):
    third = np.float32(0.3)
    for coefficient in (third, {"agent_0": third, "agent_1": np.int64(1)}):
        demos = dm2.DistributionMatcher(demonstrations(), updates=1, batch_size=8, seed=np.int64(0))
        options = {"env_coefficient": np.float32(0.5), "update_every": np.int64(18), "seed": np.int64(3)}
        team = IndependentLearners(
            PPO, venv(), matcher=demos, coefficient=coefficient, n_steps=6, batch_size=6, **options, **SMALL
        )
        team.save(tmp_path / "team")
        loaded = IndependentLearners.load(tmp_path / "team", venv())
        assert (loaded.env_coefficient, loaded.update_every, loaded.seed) == (0.5, 18, 3)
        expected = float(third) if coefficient is third else {"agent_0": float(third), "agent_1": 1.0}
        assert loaded.coefficient == team.coefficient == expected
    with pytest.raises(ValueError, match=r"seed must be None or an integer, got 1\.5"):
        dm2.DistributionMatcher(demonstrations(), seed=1.5)
