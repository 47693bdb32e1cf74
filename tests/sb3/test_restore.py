"""`restore`: a checkpoint taken over by a team that the program built, without unpickling anything."""

import io
import json
import pickle
import warnings
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sb3_contrib import TRPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.policies import ActorCriticPolicy

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners
from tests.attack.checkpoints import attack, entries, team_of, write
from tests.helpers.sb3_teams import ON_POLICY, SMALL, assert_equal_weights, demonstrations, matcher, venv, weights
from tests.helpers.tiny_envs import TinyEnv

OF_TRPO = {"n_steps": 6, "batch_size": 6}
OF_TURNS = {**OF_TRPO, "order": "turn", "convergence": dm2.Convergence(0.05, 3, 9)}
ON_POLICY = {**ON_POLICY, TRPO: OF_TRPO, None: OF_TURNS}
OFF_POLICY = {"learning_starts": 5, "buffer_size": 500, "update_every": 18, "batch_size": 4}


def built(algorithm, env, seed=0, **options):
    """Which episodes are won depends on the environment's age, which no seed resets: it reports no wins."""
    options = {**SMALL, **ON_POLICY.get(algorithm, OFF_POLICY), **options}
    return IndependentLearners(algorithm, env, seed=seed, matcher=matcher(), coefficient=0.5, **options)


def assert_equal_teams(first, second):
    assert_equal_weights(weights(first), weights(second))
    for agent, model in first.models.items():
        other = second.models[agent]
        optimizers = [m.policy.optimizer.state_dict()["state"] for m in (model, other)]
        assert optimizers[0].keys() == optimizers[1].keys()
        for i, values in optimizers[0].items():
            for name, value in values.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(optimizers[1][i][name])), (agent, i, name)
        for name in ("num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate"):
            assert getattr(model, name, None) == getattr(other, name, None), name
        if hasattr(model, "replay_buffer"):
            buffers = [m.replay_buffer.state_dict()["arrays"] for m in (model, other)]
            for name, rows in buffers[0].items():
                assert torch.equal(rows, buffers[1][name]), name
    observations = np.random.default_rng(0).normal(size=(9, 2, 4)).astype(np.float32)
    np.testing.assert_array_equal(first.matcher.rewards(observations), second.matcher.rewards(observations))


@pytest.mark.parametrize("algorithm", [PPO, RecurrentPPO, DQN])
def test_a_restored_team_equals_the_saved_one_and_trains_on_like_a_loaded_one(algorithm, tmp_path):
    env = venv(wins=False)
    team = built(algorithm, env).learn(36)
    team.save(tmp_path / "team")
    used = built(algorithm, env, seed=9).learn(18)  # other weights, counters, buffers and streams
    restored = used.restore(tmp_path / "team")
    assert_equal_teams(team, restored)
    restored.learn(36)
    loaded = IndependentLearners.load(tmp_path / "team", env).learn(36)
    assert restored.num_timesteps == loaded.num_timesteps == 72
    assert_equal_teams(restored, loaded)


@pytest.mark.parametrize("changed", ["padded_observations", "alive", "actions", "offsets", None])
def test_other_demonstrations_are_not_taken_for_the_saved_ones(changed, tmp_path):
    demos = demonstrations()
    options = {**SMALL, "n_steps": 6, "batch_size": 6, "seed": 0, "coefficient": 0.5}

    def team_with(own):
        return IndependentLearners(PPO, venv(), matcher=dm2.DistributionMatcher(own, seed=0), **options)

    team_with(demos).save(tmp_path / "team")
    if changed is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            team_with(demos.subset(len(demos))).restore(tmp_path / "team")  # equal, and another object
        return
    other = getattr(demos, changed).copy()
    if changed == "offsets":
        other = np.delete(other, 1, axis=1)
        own = replace(demos, offsets=other, won=demos.won[:, 1:])
    else:
        other[0] = ~other[0] if changed == "alive" else other[0] + 1
        own = replace(demos, **{changed: other})
    with pytest.warns(UserWarning, match="learned from other demonstrations than this one has"):
        team_with(own).restore(tmp_path / "team")


def test_a_team_with_variables_outside_its_networks_is_restored(tmp_path):
    def make():
        env = dm2.vectorize(lambda: TinyEnv(sizes=(3, 3), actions=(1, 2), continuous=True), 2)
        return IndependentLearners(SAC, env, seed=0, learning_starts=4, batch_size=4, buffer_size=100, **SMALL)

    team = make().learn(24)
    team.save(tmp_path / "team")
    restored = make().restore(tmp_path / "team")
    saved = [model.log_ent_coef.detach() for model in team.models.values()]
    assert saved[0].item() != 0.0
    assert saved == [model.log_ent_coef.detach() for model in restored.models.values()]
    loaded = IndependentLearners.load(tmp_path / "team", team.env)
    restored = IndependentLearners(SAC, team.env, seed=0, learning_starts=4, batch_size=4, buffer_size=100, **SMALL)
    restored.restore(tmp_path / "team")
    assert_equal_weights(weights(loaded.learn(24)), weights(restored.learn(24)))


class PartlyTrained(ActorCriticPolicy):
    """A policy with a layer that nothing uses, and one that does not learn."""

    def _build(self, lr_schedule):
        super()._build(lr_schedule)
        self.unused = torch.nn.Linear(2, 2)
        self.mlp_extractor.policy_net[0].requires_grad_(False)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)


@pytest.mark.parametrize(
    ("algorithm", "options", "trained"),
    [(TRPO, {}, "critic alone"), (None, {}, "critic alone"), (PPO, {"policy": PartlyTrained}, "all but four")],
    ids=["TRPO", "Algorithm 2", "frozen and unused layers"],
)
def test_a_team_that_trains_a_part_of_its_parameters_is_restored_and_goes_on_as_if_not_stopped(
    algorithm, options, trained, tmp_path
):
    def make(seed):
        return built(algorithm, venv(wins=False), seed, **options)

    team = make(0).learn(54)
    moments = team.models["agent_0"].policy.optimizer.state
    parameters = list(team.models["agent_0"].policy.parameters())
    assert len(moments) == {"critic alone": 4, "all but four": len(parameters) - 4}[trained]
    team.save(tmp_path / "team")
    team.restart_episodes()  # as a loaded team does
    teams = [make(0), make(9).learn(18)]
    for other in teams:
        assert_equal_teams(team, other.restore(tmp_path / "team"))
    team.learn(54, reset_num_timesteps=False)
    for other in teams:
        assert_equal_teams(team, other.learn(54))
        for model in other.models.values():
            assert len(model.policy.optimizer.state) == len(moments)
    own = teams[1].restore(tmp_path / "team").learn(54)  # its own checkpoint, again
    assert_equal_teams(team, own)


def learner_with(parts, edit):
    """The checkpoint's entries with the second agent's optimizer changed."""
    with zipfile.ZipFile(io.BytesIO(parts["agents/1.zip"])) as archive:
        inner = {name: archive.read(name) for name in archive.namelist()}
    state = torch.load(io.BytesIO(inner["policy.optimizer.pth"]), weights_only=True)
    edit(state)
    torch.save(state, data := io.BytesIO())
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        for name, content in {**inner, "policy.optimizer.pth": data.getvalue()}.items():
            archive.writestr(name, content)
    return {**parts, "agents/1.zip": file.getvalue()}


def first(state):
    return next(iter(state["state"].values()))


@pytest.mark.parametrize("used", [False, True], ids=["new team", "team that has learned"])
@pytest.mark.parametrize(
    "edit",
    [
        lambda state: state["state"].update({99: first(state)}),
        lambda state: state["state"].update({-1: first(state)}),
        lambda state: state["state"].update({"0": first(state)}),
        lambda state: state["state"].update({True: first(state)}),
        lambda state: state["state"].update({1: first(state)}),  # those of another shape
        lambda state: state["state"].update({0: None}),
        lambda state: first(state).pop("exp_avg"),
        lambda state: [each.pop("exp_avg") for each in state["state"].values()],
        lambda state: state["state"].update({i: {"square_avg": each["exp_avg"]} for i, each in state["state"].items()}),
        lambda state: state["param_groups"][0]["params"].pop(),
        lambda state: state["param_groups"][0].update(params=[torch.zeros(2)]),
        lambda state: state["param_groups"][0].pop("params"),
    ],
)
def test_a_damaged_or_foreign_optimizer_is_refused_and_nothing_changes(edit, used, tmp_path):
    built(TRPO, venv()).learn(36).save(tmp_path / "team")
    write(tmp_path / "damaged.zip", learner_with(entries(tmp_path / "team.zip"), edit))
    team, twin = (built(TRPO, venv(), 5) for _ in range(2))
    for each in (team, twin) if used else ():
        each.learn(18)
    message = r"damaged\.zip' cannot be used or is damaged: its policy\.optimizer does not have the form of this one's Adam$"
    with pytest.raises(ValueError, match=message):
        team.restore(tmp_path / "damaged")
    assert_equal_teams(twin, team)
    assert len(team.models["agent_0"].policy.optimizer.state) == (4 if used else 0)


def test_the_state_of_another_optimizer_is_refused_by_a_team_that_has_not_learned(tmp_path):
    def with_optimizer(kind):
        return built(PPO, venv(), policy_kwargs={"net_arch": [8], "optimizer_class": kind})

    with_optimizer(torch.optim.RMSprop).learn(18).save(tmp_path / "team")
    for kind in (torch.optim.Adam, torch.optim.SGD):
        with pytest.raises(ValueError, match=f"policy.optimizer does not have the form of this one's {kind.__name__}"):
            with_optimizer(kind).restore(tmp_path / "team")
    with_optimizer(torch.optim.RMSprop).restore(tmp_path / "team").learn(18)


class Bomb:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_nothing_in_a_hostile_learner_runs(tmp_path):
    team = team_of(PPO).learn(18)
    team.save(tmp_path / "team")
    bomb = pickle.dumps(Bomb(tmp_path / "ran"))
    parts = entries(tmp_path / "team.zip")
    with zipfile.ZipFile(io.BytesIO(parts["agents/0.zip"])) as archive:
        inner = {name: archive.read(name) for name in archive.namelist()}
    import base64

    data = json.loads(inner["data"])
    data["policy_class"][":serialized:"] = base64.b64encode(bomb).decode()
    write(tmp_path / "agent.zip", {**inner, "data": json.dumps(data).encode()})
    write(tmp_path / "hostile.zip", {**parts, "agents/0.zip": (tmp_path / "agent.zip").read_bytes()})
    restored = team_of(PPO).restore(tmp_path / "hostile")
    assert not (tmp_path / "ran").exists()
    assert_equal_weights(weights(team), weights(restored))
    write(tmp_path / "agent.zip", {**inner, "policy.pth": bomb})
    write(tmp_path / "hostile.zip", {**parts, "agents/0.zip": (tmp_path / "agent.zip").read_bytes()})
    with pytest.raises(ValueError, match=r"hostile\.zip' cannot be used or is damaged: UnpicklingError"):
        team_of(PPO).restore(tmp_path / "hostile")
    write(tmp_path / "hostile.zip", {**parts, "state.pt": bomb})
    with pytest.raises(ValueError, match=r"hostile\.zip' cannot be used or is damaged: UnpicklingError"):
        team_of(PPO).restore(tmp_path / "hostile")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm": A2C}, "has the algorithms .*PPO.*this team has .*A2C"),
        ({"policy_kwargs": {"net_arch": [9]}}, r"other networks than this one: policy .* has shape"),
        ({"env_coefficient": 0.5}, r"was saved with env_coefficient=1\.0 and not 0\.5; build the team with"),
        ({"matcher": None}, "it has a matcher and this team has none"),
        ({"matcher": {"hidden": (5, 5)}}, r"was saved with hidden=\[64, 64\] and not \[5, 5\]"),
        ({"mode": "online"}, "was saved with mode='exact' and not 'online'"),
        ({"sizes": (4, 9)}, "has the agents and observation sizes"),
    ],
)
def test_another_team_is_refused_and_stays_as_it_was(tmp_path, change, message):
    team_of(PPO).learn(18).save(tmp_path / "team")
    change = dict(change)
    algorithm, sizes = change.pop("algorithm", PPO), change.pop("sizes", (4, 3))
    options = {**SMALL, **ON_POLICY[algorithm], "coefficient": 0.5, **change}
    own = options.pop("matcher", {})
    if own is None:
        del options["coefficient"]
    else:
        demos = demonstrations(sizes=sizes)
        options["matcher"] = dm2.DistributionMatcher(demos, **{"updates": 2, "batch_size": 8, "seed": 0, **own})
    other = IndependentLearners(algorithm, venv(sizes=sizes), seed=5, **options).learn(18)
    before = weights(other)
    with pytest.raises(ValueError, match=message):
        other.restore(tmp_path / "team")
    assert_equal_weights(before, weights(other))
    assert (other.num_timesteps, other.seed) == (18, 5)


def test_the_stream_of_another_generator_is_refused_before_anything_changes(tmp_path):
    team = team_of(PPO).learn(18)
    team.save(tmp_path / "team")
    parts = entries(tmp_path / "team.zip")
    state = torch.load(io.BytesIO(parts["state.pt"]), weights_only=True)
    other_kind = np.random.SFC64(0).state
    other_kind["state"]["state"] = other_kind["state"]["state"].tolist()
    state["action_streams"]["agent_1"] = json.dumps(other_kind)
    torch.save(state, data := io.BytesIO())
    write(tmp_path / "other.zip", {**parts, "state.pt": data.getvalue()})
    other = team_of(PPO).learn(36)
    before = weights(other)
    with pytest.raises(ValueError, match="its action stream is of the generator 'SFC64', but this one's is 'PCG64'"):
        other.restore(tmp_path / "other")
    assert_equal_weights(before, weights(other))
    assert other.num_timesteps == 36


def test_a_damaged_matcher_state_leaves_the_matcher_as_it_was(tmp_path):
    team = team_of(PPO).learn(18)
    team.save(tmp_path / "team")
    parts = entries(tmp_path / "team.zip")
    state = torch.load(io.BytesIO(parts["state.pt"]), weights_only=True)
    state["matcher"]["streams"] = ["{}"] * 2
    torch.save(state, data := io.BytesIO())
    write(tmp_path / "damaged.zip", {**parts, "state.pt": data.getvalue()})
    other = team_of(PPO).learn(36)
    observations = np.random.default_rng(0).normal(size=(9, 2, 4)).astype(np.float32)
    before = other.matcher.rewards(observations)
    with pytest.raises(ValueError, match=r"damaged\.zip"):
        other.restore(tmp_path / "damaged")
    np.testing.assert_array_equal(before, other.matcher.rewards(observations))


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [("hidden", [10**9, 10**9], "hidden is invalid"), ("updates", 10**12, "updates and batch_size is invalid")],
)
def test_a_hostile_matchers_options_allocate_nothing(tmp_path, option, value, name):
    team_of(PPO).save(tmp_path / "team")
    parts = entries(tmp_path / "team.zip")
    facts = json.loads(parts["team.json"])
    facts["matcher"][option] = value
    write(tmp_path / "team.zip", {**parts, "team.json": json.dumps(facts).encode()})
    with pytest.raises(ValueError, match=name):
        IndependentLearners.load(tmp_path / "team", venv())


def test_damaged_checkpoints_are_refused_in_one_sentence():
    faults, counts = attack(24)
    assert faults == []
    assert counts["refused"] > 10


def test_a_checkpoint_is_compressed(tmp_path):
    team_of(PPO).learn(180).save(tmp_path / "team")
    with zipfile.ZipFile(tmp_path / "team.zip") as archive:
        state = archive.getinfo("state.pt")
    assert state.compress_size < 0.9 * state.file_size


def test_the_actions_of_a_partial_are_not_shared_between_agents():
    from stable_baselines3 import TD3
    from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise

    env = dm2.vectorize(lambda: TinyEnv(sizes=(3, 3), actions=1, continuous=True), 2)
    noise = OrnsteinUhlenbeckActionNoise(np.zeros(1), np.ones(1))
    maker = partial(TD3, action_noise=noise, learning_starts=4, batch_size=4, buffer_size=100)
    team = IndependentLearners(dict.fromkeys(env.possible_agents, maker), env, seed=0, device="cpu")
    first, second = (model.action_noise for model in team.models.values())
    assert first is not second
    assert noise not in (first, second)


def test_a_loaded_team_has_action_noise_for_the_new_number_of_sub_environments(tmp_path):
    from stable_baselines3 import TD3
    from stable_baselines3.common.noise import NormalActionNoise

    def env(n):
        return dm2.vectorize(lambda: TinyEnv(sizes=(3, 3), actions=1, continuous=True), n)

    noise = NormalActionNoise(np.zeros(1), np.ones(1))
    options = {"learning_starts": 4, "batch_size": 4, "buffer_size": 100, "action_noise": noise, **SMALL}
    IndependentLearners(TD3, env(2), seed=0, **options).learn(12).save(tmp_path / "team")
    loaded = IndependentLearners.load(tmp_path / "team", env(3)).learn(12)
    assert [model.action_noise.n_envs for model in loaded.models.values()] == [3, 3]


@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_the_newest_episodes_of_which_sb3_logs_means_are_restored(algorithm, tmp_path):
    def build():
        return built(algorithm, venv(wins=True))

    saved = build()
    saved.learn(60)
    saved.save(tmp_path / "team")
    newest = [[episode["r"] for episode in model.ep_info_buffer] for model in saved.models.values()]
    successes = [list(model.ep_success_buffer) for model in saved.models.values()]
    assert all(newest)
    assert all(successes)
    used = build()
    used.learn(120)
    for team in (build().restore(tmp_path / "team"), used.restore(tmp_path / "team")):
        assert [[episode["r"] for episode in model.ep_info_buffer] for model in team.models.values()] == newest
        assert [list(model.ep_success_buffer) for model in team.models.values()] == successes
        team.learn(6)
        assert len(team.models["agent_0"].ep_info_buffer) >= len(newest[0])
