"""Genuine SMAC with whatever StarCraft II it finds, Blizzard's or a stand-in: ``make test-smac``.

EPISODES (3) is how many episodes of each of the paper's maps are played, STEPS (1200) how many joint steps of four copies
whose StarCrafts keep dying.
"""

from __future__ import annotations

import inspect
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import dm2_wrappers as dm2
from dm2_wrappers.envs import smac
from dm2_wrappers.envs.smac import install as smac_install
from dm2_wrappers.vector import MultiAgentVectorEnv
from tests.helpers import genuine_smac, smac_double
from tests.helpers.processes import children, gone, offspring

pytestmark = [
    pytest.mark.smac,
    pytest.mark.skipif(genuine_smac.missing() is not None, reason=str(genuine_smac.missing())),
]

EPISODES = int(os.environ.get("EPISODES", "3"))
STEPS = int(os.environ.get("STEPS", "1200"))
CRASH_EVERY = 500  # steps of one StarCraft
STOP, NO_OP, EAST, FIRST_ATTACK = 1, 0, 4, 6


def random_actions(masks, rng):
    return np.where(masks, rng.random(masks.shape), -1).argmax(-1)


def starcraft(env):
    return env.game.smac._sc2_proc.pid


def maps():
    if genuine_smac.missing():
        return []
    from smac.env.starcraft2.maps.smac_maps import get_smac_map_registry

    return [name for name in get_smac_map_registry() if (smac_install.maps() / f"{name}.SC2Map").is_file()]


# --- the double is like the genuine one -------------------------------------------------------------------------------


def test_the_double_has_the_genuine_interface():
    genuine = smac_install.load()
    theirs = inspect.signature(genuine.__init__).parameters
    for name, parameter in inspect.signature(smac_double.StarCraft2Env.__init__).parameters.items():
        assert theirs[name].default == parameter.default, name
    one, other = genuine(map_name="3m"), smac_double.StarCraft2Env(map_name="3m")
    own = {"pids", "attempts"}
    helpers = {"observe", "order", "_apart", "__init__"}
    assert set(vars(other)) - own <= set(vars(one))
    methods = {name for name in vars(smac_double.StarCraft2Env) if callable(getattr(other, name))}
    assert methods - helpers <= set(dir(one))
    for name in ("n_agents", "n_enemies", "n_actions", "episode_limit", "map_type", "max_reward"):
        assert getattr(one, name) == getattr(other, name), name
    for name in methods - helpers:
        mine = list(inspect.signature(getattr(other, name)).parameters)
        assert len(mine) == len(inspect.signature(getattr(one, name)).parameters), name


# --- maps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", maps())
def test_names_are_those_of_the_maps_units(name):
    env = smac.parallel_env(name)
    try:
        observations, _ = env.reset()  # compares every agent's name with its unit's type
        assert not any(agent.startswith("agent_") for agent in env.agents)
        for agent, seen in observations.items():
            assert env.observation_space(agent).contains(seen)
        assert env.state_space.contains(env.state())
    finally:
        env.close()


@pytest.mark.parametrize("name", ["3m", "5m_vs_6m", "3s_vs_4z", "2s3z"])
def test_many_episodes(name):
    """Half of them by chance, half shooting whatever is in range; what is promised is looked at in every step."""
    env, rng = smac.parallel_env(name, seed=1), np.random.default_rng(0)
    limit = smac_install.load()(map_name=name).episode_limit
    scales, wins, lengths = set(), 0, []
    try:
        for episode in range(EPISODES):
            observations, infos = env.reset()
            assert env.agents == env.possible_agents
            total = length = 0
            while env.agents:
                masks = np.stack([seen["action_mask"] for seen in observations.values()]).astype(bool)
                actions = random_actions(masks, rng)
                if episode % 2:
                    shots = masks[:, FIRST_ATTACK:]
                    actions = np.where(shots.any(1), FIRST_ATTACK + shots.argmax(1), np.where(masks[:, EAST], EAST, actions))
                observations, rewards, terminations, truncations, infos = env.step(
                    dict(zip(env.agents, map(int, actions), strict=True))
                )
                total, length = total + rewards[env.possible_agents[0]], length + 1
                assert len(set(rewards.values())) == 1
                for agent, seen in observations.items():
                    assert env.observation_space(agent).contains(seen)
                    alive = infos[agent]["alive"]
                    assert seen["observation"].any() == alive
                    if not alive:
                        assert np.flatnonzero(seen["action_mask"]).tolist() == [NO_OP]
                assert not any(info["broken"] for info in infos.values())
            over = {(terminations[agent], truncations[agent]) for agent in terminations}
            won = infos[env.possible_agents[0]]["battle_won"]
            assert over in ({(True, False)}, {(False, True)})
            assert (over == {(False, True)}) <= (length == limit)
            assert not (won and over == {(False, True)})
            if name in ("3m", "5m_vs_6m"):  # no shields that grow back
                assert total == pytest.approx(20.0, abs=1e-4) if won else total < 20.0
            wins, lengths = wins + won, [*lengths, length]
            scales.add(env.game.smac.max_reward)
        assert len(scales) == env.game.starts == 1
        assert max(lengths) <= limit
    finally:
        env.close()
    print(f"\n{name}: {EPISODES} episodes, {sum(lengths)} steps, {wins} won")


# --- StarCraft dies and hangs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_a_starcraft_that_dies_or_hangs(how):
    env = smac.parallel_env("3m", timeout=5)
    wait = dict.fromkeys(env.possible_agents, STOP)
    try:
        env.reset()
        scale, first = env.game.smac.max_reward, starcraft(env)
        env.step(wait)
        os.kill(first, how)
        began = time.monotonic()
        _, _, terminations, truncations, infos = env.step(wait)
        assert time.monotonic() - began < 20
        assert all(truncations.values())
        assert not any(terminations.values())
        assert all(info["broken"] for info in infos.values())
        assert gone(first)
        env.reset()
        assert starcraft(env) != first
        assert env.game.smac.max_reward == scale
        assert not env.step(wait)[4][env.possible_agents[0]]["broken"]
    finally:
        env.close()


class Log(MultiAgentVectorEnv):
    """Notes, apart from everybody else, what each copy's episodes were and whether they broke."""

    def __init__(self, venv, on_step):
        self.venv, self.on_step = venv, on_step
        self.num_envs, self.possible_agents, self.env_id = venv.num_envs, venv.possible_agents, venv.env_id
        self.observation_spaces, self.action_spaces = venv.observation_spaces, venv.action_spaces
        self.steps, self.good, self.broken = 0, [], []
        self.running = [[] for _ in range(self.num_envs)]

    def reset(self, *, seed=None, options=None):
        self.observations, infos = self.venv.reset(seed=seed, options=options)
        self.running = [[] for _ in range(self.num_envs)]
        return self.observations, infos

    def step(self, actions):
        self.steps += 1
        self.on_step(self.steps)
        for i, trail in enumerate(self.running):
            trail.append(self.observations[i].copy())
        result = self.venv.step(actions)
        self.observations = result[0]
        for i in np.flatnonzero((result[2] | result[3]).all(axis=1)):
            (self.broken if result[4]["broken"][i] else self.good).append(np.stack(self.running[i]))
            self.running[i] = []
        return result


def test_four_copies_survive_starcrafts_that_keep_dying_and_record_nothing_of_broken_episodes(monkeypatch):
    # The stand-in dies by itself; Blizzard's is killed.
    stand_in = b"fake_sc2" in smac_install.program().read_bytes()[:4096]
    monkeypatch.setenv("FAKE_SC2_CRASH_AFTER_STEPS", str(CRASH_EVERY))
    monkeypatch.setenv("FAKE_SC2_CRASH_WHICH", "all")
    seen_starcrafts = set()

    def on_step(t):
        running = [pid for worker in children(venv) for pid in offspring(worker)]
        seen_starcrafts.update(running)
        if not stand_in and t % CRASH_EVERY == 0:
            for pid in running:
                os.kill(pid, signal.SIGKILL)

    venv = smac.vector_env("3m", 4, seed=1, timeout=30)
    log, rng, recorded = Log(venv, on_step), np.random.default_rng(0), []
    try:
        policy = lambda observations, infos: random_actions(infos["action_mask"], rng)  # noqa: E731
        while log.steps < STEPS:
            demos = dm2.Demonstrations.record(log, policy, 40)
            recorded += np.split(demos.padded_observations, demos.offsets[0, 1:-1])
        workers = children(venv)
        ports = [port_of(pid) for worker in workers for pid in offspring(worker)]
        assert len(ports) == 4
    finally:
        venv.close()
    assert all(gone(pid) for pid in [*workers, *seen_starcrafts])
    for port in ports:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections of late do not count
            free.bind(("127.0.0.1", port))
            free.listen()
    assert len(log.broken) == venv.broken_episodes >= 4 * (STEPS // CRASH_EVERY)
    assert len(seen_starcrafts) >= venv.broken_episodes
    good = {episode.tobytes() for episode in log.good}
    assert all(episode.tobytes() in good for episode in recorded)
    # Nor any step of a broken one: its observations after the first are nobody else's.
    steps_of_broken = {step.tobytes() for episode in log.broken for step in episode[1:]}
    steps_of_good = {step.tobytes() for episode in log.good for step in episode}
    steps = {step.tobytes() for episode in recorded for step in episode}
    assert not steps & (steps_of_broken - steps_of_good)
    print(
        f"\n{log.steps} joint steps of 4 copies: {len(log.good)} episodes, {len(log.broken)} broken, {len(recorded)} "
        f"recorded, {len(seen_starcrafts)} StarCrafts"
    )


def port_of(pid):
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return int(words[words.index(b"-port") + 1])


# --- nothing is left --------------------------------------------------------------------------------------------------

PROGRAM = """
import signal
from dm2_wrappers.envs import smac

def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may be ignored
    venv = smac.vector_env("3m", 2, progress_bar=False)
    _, infos = venv.reset()
    print(*[process.pid for process in venv.workers.processes], flush=True)
    while True:
        _, _, _, _, infos = venv.step(infos["action_mask"].argmax(-1))

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["ctrl-c", "terminated", "killed"])
def test_a_program_that_is_stopped_leaves_no_process(tmp_path, how):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    program = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        workers = [int(pid) for pid in program.stdout.readline().split()]
        assert len(workers) == 2
        starcrafts = [pid for worker in workers for pid in offspring(worker)]
        assert len(starcrafts) == 2
        time.sleep(0.5)
        program.send_signal(how)
        program.wait(30)
        assert all(gone(pid, 15) for pid in [*workers, *starcrafts])
    finally:
        program.kill()
        program.communicate()


@pytest.mark.parametrize("end", ["", "del env", "raise SystemExit(3)", "env.close()"])
def test_a_parallel_environment_leaves_no_process(tmp_path, end):
    script = tmp_path / "program.py"
    script.write_text(
        "from dm2_wrappers.envs import smac\nenv = smac.parallel_env('3m')\nenv.reset()\n"
        f"print(env.game.smac._sc2_proc.pid, flush=True)\n{end}\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == (3 if "3" in end else 0), done.stderr
    assert gone(int(done.stdout))


# --- learning ---------------------------------------------------------------------------------------------------------


def test_dm2_trains_on_what_was_recorded_here():
    from sb3_contrib import MaskablePPO

    rng = np.random.default_rng(0)
    with smac.vector_env("3m", 2, seed=3) as venv:
        demos = dm2.Demonstrations.record(venv, lambda _, infos: random_actions(infos["action_mask"], rng), 4)
        assert demos.metadata["env_id"] == "smac:3m"
        matcher = dm2.DistributionMatcher(demos, updates=2, seed=0)
        team = dm2.sb3.IndependentLearners(
            MaskablePPO, venv, matcher=matcher, coefficient=0.3, seed=0, n_steps=64, batch_size=64, device="cpu"
        )
        before = [parameter.clone() for parameter in team.models["marine_0"].policy.parameters()]
        team.learn(256)
        assert team.num_timesteps == 256
        after = list(team.models["marine_0"].policy.parameters())
        assert not all((one == other).all() for one, other in zip(before, after, strict=True))
        assert set(team.evaluate(venv, 2)) >= {"win_rate", "return", "length"}
    assert_array_equal(demos.observations("marine_0").shape[1], venv.observation_sizes[0])
