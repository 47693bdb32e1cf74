"""Kill RLlib's env runners at random moments and see that training goes on and that nothing is learned from twice.

    python -m tests.attack.rllib_processes 3

For 0 and for 2 learner processes, a team is trained with two env runners, one of which is killed (SIGKILL) while it
plays, the given number of times. Each observation carries a number of its own. The matcher must never hear one twice, it
must hear all steps that the learners get, and in the end both runners must be alive.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import ray
from gymnasium import spaces

import dm2_wrappers as dm2
from tests.helpers.line_env import LineEnv


class NumberedEnv(LineEnv):
    """The line, with a number in the last feature of every observation that no other one has."""

    def __init__(self):
        super().__init__()
        self.observation_spaces = {agent: spaces.Box(-1, 1, (3,), np.float32) for agent in self.possible_agents}
        self.rng = np.random.default_rng(int.from_bytes(os.urandom(8)))

    def step(self, actions):
        time.sleep(0.002)  # so that a kill hits a runner that plays
        return super().step(actions)

    def _observations(self):
        seen = super()._observations()
        return {a: np.array([*o, self.rng.random(dtype=np.float32)], np.float32) for a, o in seen.items()}


def matcher() -> dm2.DistributionMatcher:
    experts = [{agent: np.zeros((6, 3), np.float32) for agent in ("left", "right")}]
    return dm2.DistributionMatcher(dm2.Demonstrations.from_episodes(experts), updates=2, batch_size=32, seed=0)


def build(learners: int):
    config = dm2.rllib.DM2PPOConfig().environment(NumberedEnv)
    config.env_runners(num_env_runners=2, num_envs_per_env_runner=2, sample_timeout_s=300)
    config.learners(num_learners=learners).fault_tolerance(restart_failed_env_runners=True)
    size = 512 // max(1, learners)
    config.training(train_batch_size_per_learner=size, minibatch_size=size, num_epochs=1)
    config.rl_module(model_config={"fcnet_hiddens": [8], "vf_share_layers": False})
    config.debugging(seed=0, log_level="ERROR")
    return config.distribution_matching(matcher, coefficient=1.0).build_algo()


def pids(algorithm) -> list[int]:
    return algorithm.env_runner_group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)


def wait_for_both(algorithm) -> list[int]:
    """Train on until both runners are alive, as RLlib looks for restarted ones between two iterations."""
    deadline = time.monotonic() + 900
    while len(alive := pids(algorithm)) < 2 and time.monotonic() < deadline:
        algorithm.train()
    return alive


def attack(learners: int, kills: int) -> None:
    algorithm = build(learners)
    heard: list[np.ndarray] = []
    learned: list[int] = []
    original, update = algorithm.matcher.algorithm1, algorithm._update_learners

    def hear(chunks):
        heard.append(np.concatenate([rows[:, 2] for _, rows in chunks]))
        return original(chunks)

    def learn(*args, episodes, **kwargs):
        learned.append(sum(len(piece) for episode in episodes for piece in episode.agent_episodes.values()))
        return update(*args, episodes=episodes, **kwargs)

    algorithm.matcher.algorithm1, algorithm._update_learners = hear, learn
    try:
        algorithm.train()
        for kill in range(kills):
            before, victim = len(learned), random.choice(wait_for_both(algorithm))
            timer = threading.Timer(random.uniform(0.05, 0.8), os.kill, (victim, signal.SIGKILL))
            timer.start()
            algorithm.train()
            timer.join()
            alive = wait_for_both(algorithm)
            algorithm.train()
            print(f"  kill {kill + 1}: runner {victim}; agent steps per rollout since: {learned[before:]}", flush=True)
    finally:
        algorithm.stop()
    numbers = np.concatenate(heard)
    # Of float32's 2^24 numbers, a few of thousands are equal by chance; a rollout heard twice would be hundreds.
    twice = len(numbers) - len(np.unique(numbers))
    by_chance = len(numbers) ** 2 / 2**25
    assert twice <= 4 * by_chance + 4, f"{twice} steps were heard twice, {by_chance:.1f} expected by chance"
    assert [len(each) for each in heard] == learned, "the matcher and the learners got different steps"
    assert len(alive) == 2, f"only {len(alive)} runners are alive"
    print(f"{learners} learners: {len(learned)} rollouts, {len(numbers)} agent steps, each once; both runners are alive")


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    root = str(Path(__file__).parents[2])
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": root}})
    for learners in (0, 2):
        attack(learners, kills)


if __name__ == "__main__":
    main()
