"""The QMIX example: what it learns from, worked out by hand, and the whole program, small."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import dm2_wrappers as dm2
from tests.helpers.tiny_envs import StateEnv, TinyEnv

pytest.importorskip("torchrl", reason="QMIX needs the extra torchrl: pip install 'dm2-wrappers[torchrl]'")

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ["--env", "smax:3m", "--num-envs", "4", "--eval-every", "64", "--eval-episodes", "4", "--final-episodes", "4"]
SMALL += ["--learning-starts", "16", "--batch-size", "8", "--buffer-size", "96", "--epsilon-steps", "100"]
SMALL += ["--n-steps", "3", "--update-every", "2"]


@pytest.fixture(scope="module")
def q():
    import qmix_torchrl

    return qmix_torchrl


@pytest.fixture
def venv():
    return dm2.vectorize(lambda: TinyEnv(masks=True), 2)  # 2 agents, at most 3 features, 3 actions


def linear(x, params, name):
    return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def numbers(params):
    return {key: value.detach().double().numpy() for key, value in params.flatten_keys(".").items()}


def agent_values(observations, params, path="module.0.module.layers.params"):
    """Q values [B, K, A] of observations [B, K, D] by the layers' formulas."""
    number = np.broadcast_to(np.eye(observations.shape[1]), (*observations.shape[:2], observations.shape[1]))
    x = np.concatenate([observations, number], axis=-1)
    for layer in (0, 2):
        x = np.maximum(linear(x, params, f"{path}.{layer}"), 0)
    return linear(x, params, f"{path}.4")


def mixed(values, states, params):
    """Q_tot [B] of the agents' values [B, K] in states [B, S] by the formulas of the QMIX paper."""
    first = np.abs(linear(states, params, "module.hyper_w_1")).reshape(len(values), values.shape[1], -1)
    hidden = np.einsum("bk,bke->be", values, first) + linear(states, params, "module.hyper_b_1")
    hidden = np.where(hidden > 0, hidden, np.exp(np.minimum(hidden, 0)) - 1)
    last = np.abs(linear(states, params, "module.hyper_w_final"))
    bias = linear(np.maximum(linear(states, params, "module.V.0"), 0), params, "module.V.2")[:, 0]
    return (hidden * last).sum(axis=1) + bias


def random_batch(q, rng, size):
    """Transitions with one action illegal for everybody, some after an end, some after a time limit."""
    masks = rng.random((2, size, 2, 3)).argsort(axis=-1) > 0
    done = rng.random((size, 1)) < 0.6
    arrays = {
        "agents": {
            "observation": rng.normal(size=(size, 2, 3)).astype(np.float32),
            "action": masks[0].argmax(axis=-1),
            "action_mask": masks[0],
        },
        "state": rng.normal(size=(size, 6)).astype(np.float32),
        "next": {
            "agents": {"observation": rng.normal(size=(size, 2, 3)).astype(np.float32), "action_mask": masks[1]},
            "state": rng.normal(size=(size, 6)).astype(np.float32),
            "reward": rng.normal(size=(size, 1)).astype(np.float32),
            "done": done,
            "terminated": done & (rng.random((size, 1)) < 0.5),
        },
        "steps_to_next_obs": rng.integers(1, 4, (size, 1)),
        "broken": np.zeros(size, bool),
    }
    return q.TensorDict(arrays, batch_size=size)


def test_the_loss_is_double_q_learning_with_masks_and_bootstraps_at_time_limits_only(q, venv):
    torch.manual_seed(0)
    qmix = q.QMIX(venv, 6, q.Args(batch_size=64, learning_rate=0.05, tau=1e-3, gamma=0.9))
    rng = np.random.default_rng(0)
    qmix.buffer.extend(random_batch(q, rng, 64))
    for _ in range(5):  # away from the target networks
        qmix.learn()
    states = qmix.buffer[:]["state"].numpy()
    assert_allclose(qmix.state_scale[0], states.mean(axis=0), atol=1e-6)
    assert_allclose(qmix.state_scale[1], states.std(axis=0, ddof=1), rtol=1e-5)
    qmix.state_scale = torch.full((6,), 0.5), torch.full((6,), 2.0)
    batch = random_batch(q, rng, 64)
    qmix.buffer.sample = lambda: batch.clone()
    online, target = (numbers(getattr(qmix.loss, f"{name}local_value_network_params")) for name in ("", "target_"))
    mixer, target_mixer = (numbers(getattr(qmix.loss, f"{name}mixer_network_params")) for name in ("", "target_"))
    assert not np.allclose(mixer["module.V.0.weight"], target_mixer["module.V.0.weight"], atol=1e-3)

    data = {key: value.numpy() for key, value in batch.flatten_keys("/").items()}
    states, next_states = (np.clip((data[key] - 0.5) / 2.0, -5, 5) for key in ("state", "next/state"))
    following = data["next/agents/observation"]
    legal = np.where(data["next/agents/action_mask"], agent_values(following, online), -np.inf)
    best, unmasked = legal.argmax(axis=-1), agent_values(following, online).argmax(axis=-1)
    its_own = np.where(data["next/agents/action_mask"], agent_values(following, target), -np.inf).argmax(axis=-1)
    assert (best != unmasked).any()  # each rule matters in this batch
    assert (best != its_own).any()
    chosen = np.take_along_axis(agent_values(following, target), best[..., None], axis=-1)[..., 0]
    discount = np.where(data["next/terminated"], 0, 0.9 ** data["steps_to_next_obs"])[:, 0]
    wanted = data["next/reward"][:, 0] + discount * mixed(chosen, next_states, target_mixer)
    taken = np.take_along_axis(agent_values(data["agents/observation"], online), data["agents/action"][..., None], axis=-1)
    loss = np.mean((mixed(taken[..., 0], states, mixer) - wanted) ** 2)
    assert qmix.learn() == pytest.approx(loss, rel=1e-4)

    # And the target networks have moved by tau towards the online ones.
    after, moved = numbers(qmix.loss.mixer_network_params), numbers(qmix.loss.target_mixer_network_params)
    key = "module.V.0.weight"
    assert_allclose(moved[key], target_mixer[key] + 1e-3 * (after[key] - target_mixer[key]), atol=1e-7)


def test_every_network_learns_and_acting_uses_what_was_learned(q, venv):
    torch.manual_seed(0)
    qmix = q.QMIX(venv, 6, q.Args(batch_size=32, extra_layer=True))
    names = dict(qmix.network.named_parameters())
    assert sum("weight" in name for name in names) == 4  # 64, 64, 64 and the values
    before = {name: value.detach().clone() for name, value in names.items()}
    qmix.buffer.extend(random_batch(q, np.random.default_rng(0), 32))
    qmix.learn()
    for name, value in names.items():
        assert not torch.equal(value, before[name]), name
    parameters = list(qmix.loss.parameters())
    assert len(parameters) == 8 + 10  # the agents' network once for all, the mixer's five layers
    assert all(parameter.grad is not None for parameter in parameters)


def test_agents_with_the_same_observation_differ_by_their_number(q, venv):
    for shared in (True, False):
        torch.manual_seed(0)
        network = q.QMIX(venv, 6, q.Args(share_params=shared)).network
        values = network(torch.ones(4, 2, 3))
        assert not torch.allclose(values[:, 0], values[:, 1])


def test_only_legal_actions_are_played(q, venv):
    rng = np.random.default_rng(0)
    masks = rng.random((500, 2, 3)).argsort(axis=-1) > 0
    masks[0] = [[False, False, True], [True, False, False]]  # one choice, as the dead have
    observations = rng.normal(size=(500, 2, 3)).astype(np.float32)
    qmix = q.QMIX(venv, 6, q.Args())
    greedy = q.Policy(qmix)(observations, {"action_mask": masks})
    values = agent_values(observations, numbers(qmix.loss.local_value_network_params))
    assert_array_equal(greedy, np.where(masks, values, -np.inf).argmax(axis=-1))
    assert (greedy != values.argmax(axis=-1)).any()

    assert_array_equal(q.explore(greedy, masks, 0.0, rng), greedy)
    random = q.explore(greedy, masks, 1.0, rng)
    assert np.take_along_axis(masks, random[..., None], axis=-1).all()
    # Of two legal actions each is drawn about half the time, of one always that.
    assert_array_equal(random[0], [2, 0])
    assert abs((random == greedy)[1:].mean() - 0.5) < 0.06
    some = q.explore(greedy, masks, 0.4, rng)
    assert abs((some != greedy)[1:].mean() - 0.2) < 0.05


def play(q, venv, rng, steps):
    """Joint steps at random, as transitions and as they were."""
    observations, infos = venv.reset(seed=0)
    for _ in range(steps):
        actions = q.explore(np.zeros(infos["action_mask"].shape[:2], int), infos["action_mask"], 1.0, rng)
        result = venv.step(actions)
        yield q.transitions(observations, infos, actions, result), observations, infos, actions, result
        observations, infos = result[0], result[-1]


def test_transitions_hold_what_followed_the_action_and_time_limits_are_no_terminations(q):
    venv = dm2.envs.smax.vector_env("3m", 3, max_steps=7)
    terminated = truncated = 0
    for step, observations, infos, actions, result in play(q, venv, np.random.default_rng(0), 60):
        shown, rewards, terminations, truncations, after = result
        assert_array_equal(step["agents", "observation"], observations)
        assert_array_equal(step["agents", "action"], actions)
        assert_array_equal(step["agents", "action_mask"], infos["action_mask"])
        assert_array_equal(step["state"], infos["state"])
        assert_array_equal(step["next", "agents", "observation"], after["final_obs"])
        assert_array_equal(step["next", "agents", "action_mask"], after["final_action_mask"])
        assert_array_equal(step["next", "state"], after["final_state"])
        assert_array_equal(step["next", "reward"][:, 0], rewards[:, 0])
        assert_array_equal(step["next", "terminated"][:, 0], terminations[:, 0])
        assert_array_equal(step["next", "done"][:, 0], (terminations | truncations)[:, 0])
        terminated, truncated = terminated + terminations[:, 0].sum(), truncated + truncations[:, 0].sum()
        assert (shown == after["final_obs"]).all(axis=(1, 2)).tolist() == (~step["next", "done"][:, 0]).tolist()
    assert truncated > 10


def test_transitions_of_environments_that_say_less(q):
    venv = dm2.vectorize(lambda: TinyEnv(masks=True, limit=3, truncates=True, lifetimes=(None, 1)), 1)
    steps = list(play(q, venv, np.random.default_rng(0), 6))
    for t, (step, observations, infos, _, result) in enumerate(steps):
        ends = t % 3 == 2
        assert step["next", "done"].item() == ends
        assert not step["next", "terminated"].any()  # agent 1's death is not the team's end
        assert_array_equal(step["state"], observations.reshape(1, -1))
        assert_array_equal(step["next", "state"], result[-1]["final_obs"].reshape(1, -1))
        assert_array_equal(step["next", "agents", "action_mask"], (infos if ends else result[-1])["action_mask"])


def team_rewards(episode):
    return [float(step["next", "reward"]) for step in episode]


def test_look_ahead_sums_rewards_up_to_the_end_and_values_what_followed_them(q):
    gamma, n = 0.5, 3
    venv = dm2.vectorize(lambda: StateEnv(masks=True, limit=5, random_limit=True, broken=(2,)), 2)
    steps = [step for step, *_ in play(q, venv, np.random.default_rng(0), 60)]
    cut = broken = 0
    for t in range(len(steps) - n + 1):
        seen = q.look_ahead(steps[t : t + n], gamma)
        rows = iter(seen)
        for copy in range(2):
            path = [step[copy] for step in steps[t : t + n]]
            path = path[: next((i + 1 for i, step in enumerate(path) if step["next", "done"]), n)]
            if path[-1]["broken"]:
                broken += 1
                continue
            row, last = next(rows), path[-1]
            cut += len(path) < n
            discounts = gamma ** np.arange(len(path))
            assert float(row["next", "reward"]) == pytest.approx(float(discounts @ team_rewards(path)))
            assert int(row["steps_to_next_obs"]) == len(path)
            assert_array_equal(row["agents", "observation"], path[0]["agents", "observation"])
            assert_array_equal(row["agents", "action"], path[0]["agents", "action"])
            for key in ("done", "terminated", "state", ("agents", "observation"), ("agents", "action_mask")):
                key = ("next", *([key] if isinstance(key, str) else key))
                assert_array_equal(row[key], last[key])
        assert next(rows, None) is None
    assert cut > 20
    assert broken > 2
    assert_array_equal(q.look_ahead(steps[:1], gamma)["next", "reward"], steps[0]["next", "reward"])


def run(q, *options):
    """What the command line does, in this process: JAX compiles once."""
    q.main(q.tyro.cli(q.Args, args=[*SMALL, *map(str, options)]))


def evaluations(folder):
    with (folder / "evaluations.csv").open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("num_envs", [64, 4, 5])
def test_gradient_steps_per_environment_step_do_not_depend_on_the_number_of_sub_environments(q, num_envs):
    counted = [q.gradient_steps(step, step + num_envs, 32) for step in range(0, 640, num_envs)]
    assert sum(counted) == 640 // 32
    assert max(counted) - min(counted) <= 1  # spread over the joint steps


@pytest.mark.parametrize("name", ["n_steps", "update_every", "eval_every", "num_envs"])
def test_counts_are_checked_before_anything_starts(q, name, tmp_path):
    with pytest.raises(SystemExit, match=f"--{name.replace('_', '-')} must be at least 1, got 0"):
        q.main(q.Args(run=tmp_path / "run", **{name: 0}))
    assert not (tmp_path / "run").exists()


def test_a_run_makes_the_gradient_steps_that_are_due(q, tmp_path, monkeypatch):
    made, learn = [], q.QMIX.learn
    monkeypatch.setattr(q.QMIX, "learn", lambda self: made.append(len(self.buffer)) or learn(self))
    small = {"eval_episodes": 1, "final_episodes": 1, "batch_size": 4, "buffer_size": 96, "learning_starts": 20}
    q.main(q.Args(env="smax:3m", num_envs=4, steps=64, update_every=8, run=tmp_path / "run", **small))
    assert made == [24, 32, 40, 48, 56, 64]  # every 8 steps, from step 20 on


def test_a_run_trains_evaluates_plots_records_and_resumes_as_if_undisturbed(q, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(q, "--steps", 192, "--run", whole, "--record", 6, "--levels", 0.0)
    header, *rows = evaluations(whole)
    assert header[:3] == ["step", "win_rate", "win_rate_se"]
    assert [int(row[0]) for row in rows] == [0, 64, 128, 192]
    files = {path.name for path in whole.iterdir()}
    assert {"config.json", "curve.png", "final.json", "checkpoint.pt", "demos.npz"} <= files
    demos = dm2.Demonstrations.load(whole / "demos.npz")
    assert len(demos) == 6
    assert demos.metadata["policy"]["train_steps"] == 192
    assert str(tmp_path) not in json.dumps(demos.metadata)  # no paths of the machine that recorded
    (at_level,) = whole.glob("demos_win*.npz")
    assert dm2.Demonstrations.load(at_level).metadata["policy"]["train_steps"] == 0

    run(q, "--steps", 64, "--run", parts)
    run(q, "--steps", 192, "--run", parts)
    assert evaluations(parts) == evaluations(whole)
    saved = [torch.load(folder / "checkpoint.pt", weights_only=True)["qmix"]["loss"] for folder in (whole, parts)]
    for key, value in saved[0].items():
        assert torch.equal(value, saved[1][key]), key

    damaged = (parts / "checkpoint.pt").read_bytes()[:-5000]
    (parts / "checkpoint.pt").write_bytes(damaged)
    with pytest.raises(SystemExit, match=r"Cannot continue from .*checkpoint.pt, which is damaged"):
        run(q, "--steps", 256, "--run", parts)


def test_only_levels_ends_when_all_are_recorded(q, tmp_path):
    with pytest.raises(SystemExit, match="give --levels, and --record EPISODES"):
        q.main(q.Args(only_levels=True, levels=[0.5], run=tmp_path / "none"))
    args = {"env": "smax:3m", "num_envs": 4, "eval_episodes": 4, "final_episodes": 4, "record": 3}
    run = q.main(q.Args(**args, only_levels=True, levels=[0.0], record_path=tmp_path / "x.npz", run=tmp_path / "run"))
    (file,) = tmp_path.glob("x*.npz")  # of the level, not of the end
    assert file.name.startswith("x_win")
    assert [line.split(",")[0] for line in (run / "evaluations.csv").read_text().splitlines()] == ["step", "0"]


def test_help():
    command = [sys.executable, str(EXAMPLES / "qmix_torchrl.py"), "--help"]
    assert "usage" in subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


def test_the_team_reward_is_the_mean_of_the_agents_that_are_present(q):
    env = dm2.vectorize(lambda: TinyEnv((3, 3), lifetimes=(None, 1), limit=3, masks=True), 1)
    observations, infos = env.reset(seed=0)
    rewards = []
    for _ in range(3):
        actions = np.argmax(infos["action_mask"] * np.arange(1, 4), axis=-1)
        result = env.step(actions)
        step = q.transitions(observations, infos, actions, result)
        present = infos["present"][0]
        assert float(step["next", "reward"][0]) == result[1][0][present].mean() > 0
        rewards.append(present.sum())
        observations, infos = result[0], result[-1]
    assert rewards == [2, 1, 1]
