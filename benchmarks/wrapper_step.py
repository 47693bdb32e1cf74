"""Microseconds that ``DM2ParallelEnv.step`` adds to a step of the environment inside it.

    python benchmarks/wrapper_step.py [--agents 5 27] [--features 140]

The inner environment does almost nothing: its observations, rewards and infos are prepared. It is stepped bare and wrapped
in turns, and the table has the smallest CPU time of these turns, because other load on the machine only adds to it. Agents
have plain ``Box`` observations, or dicts with an action mask as in SMAC. The wrapper records each step and pays r_gail with
the default discriminators; updates are not counted. For scale, the last line has the time of a call of ``numpy.add`` on five
numbers, by which the machine's speed and its load can be judged.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import timeit
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

import dm2_wrappers as dm2

_ACTIONS = 11


class PreparedEnv(ParallelEnv):
    """K agents and endless episodes; every step returns one of a few prepared results."""

    def __init__(self, agents: int, features: int, *, masks: bool) -> None:
        self.metadata = {"name": "prepared"}
        self.possible_agents = [f"agent_{k}" for k in range(agents)]
        self.agents: list[str] = []
        own: Any = spaces.Box(-10, 10, (features,), np.float32)
        if masks:
            own = spaces.Dict({"observation": own, "action_mask": spaces.Box(0, 1, (_ACTIONS,), np.int8)})
        self._spaces = own
        self._actions: spaces.Space[Any] = spaces.Discrete(_ACTIONS)
        rng = np.random.default_rng(0)
        self._results = []
        for _ in range(16):
            rows = rng.normal(size=(agents, features)).astype(np.float32)
            available = np.ones(_ACTIONS, np.int8)
            seen = {
                agent: {"observation": rows[k], "action_mask": available} if masks else rows[k]
                for k, agent in enumerate(self.possible_agents)
            }
            no = dict.fromkeys(self.possible_agents, False)
            infos = {agent: {"alive": True} if masks else {} for agent in self.possible_agents}
            self._results.append((seen, dict.fromkeys(self.possible_agents, 1.0), no, no, infos))
        self._time = 0

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self._spaces

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self._actions

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        self.agents = self.possible_agents[:]
        return self._results[0][0], self._results[0][4]

    def step(self, actions: dict[str, int]) -> tuple[Any, Any, Any, Any, Any]:
        self._time = (self._time + 1) % len(self._results)
        return self._results[self._time]


def demonstrations(env: ParallelEnv, features: int) -> dm2.Demonstrations:
    """One episode of 20 steps."""
    rng = np.random.default_rng(1)
    rows = {agent: rng.normal(size=(20, features)).astype(np.float32) for agent in env.possible_agents}
    actions = {agent: np.ones(20, np.int64) for agent in env.possible_agents}
    return dm2.Demonstrations.from_episodes([{"observations": rows, "actions": actions}], env_id="prepared")


def microseconds(env: ParallelEnv, steps: int) -> float:
    """Mean CPU time of a step."""
    actions = dict.fromkeys(env.possible_agents, 0)
    start = time.process_time()
    for _ in range(steps):
        env.step(actions)
    return (time.process_time() - start) / steps * 1e6


def compare(agents: int, features: int, *, masks: bool, steps: int, repeats: int) -> tuple[float, float]:
    """Microseconds of a bare step and of a wrapped one."""
    bare = PreparedEnv(agents, features, masks=masks)
    inner = PreparedEnv(agents, features, masks=masks)
    matcher = dm2.DistributionMatcher(demonstrations(bare, features), seed=0, buffer_size=steps)
    wrapped = dm2.DM2ParallelEnv(inner, matcher, coefficient=0.3, update_every=10**9)
    for env in (bare, wrapped):
        env.reset()
        microseconds(env, steps)  # warm up
    times = [(microseconds(bare, steps), microseconds(wrapped, steps)) for _ in range(repeats)]
    first, second = (min(column) for column in zip(*times, strict=True))
    return first, second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[5, 27])
    parser.add_argument("--features", type=int, default=140)
    parser.add_argument("--steps", type=int, default=50, help="steps in each turn")
    parser.add_argument("--repeats", type=int, default=60, help="turns")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, numpy {np.__version__}, "
        f"torch {torch.__version__}, one thread; {args.features} features\n"
    )
    print("| agents | observations | bare | wrapped | added | wrapped / bare |\n|---|---|---|---|---|---|")
    for agents in args.agents:
        for masks in (False, True):
            bare, wrapped = compare(agents, args.features, masks=masks, steps=args.steps, repeats=args.repeats)
            kind = "dicts with masks" if masks else "Box"
            print(
                f"| {agents} | {kind} | {bare:.1f} µs | {wrapped:.0f} µs | {wrapped - bare:.0f} µs | {wrapped / bare:.0f} |",
                flush=True,
            )

    numbers = np.ones(5)
    least = min(timeit.repeat(lambda: np.add(numbers, numbers), time.process_time, number=1000, repeat=args.repeats))
    print(f"\nnumpy.add on five numbers takes {1e3 * least:.2f} µs")


if __name__ == "__main__":
    main()
