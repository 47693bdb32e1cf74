"""What the SMAC environment here adds to a step of bare SMAC.

Two StarCrafts with the same seed play the same battle: one through genuine SMAC alone (``step``, ``get_obs``, ``get_state``,
``get_avail_actions``, as a runner of PyMARL's calls them), one through ``dm2.envs.smac.parallel_env`` (``step`` and
``state``). They take turns in going first, so that whatever else the machine does meets both; reported are the median bare
step and the median of what the wrapped step took longer than the bare one beside it. Only their ratio is worth comparing.
Run: ``python benchmarks/smac_overhead.py [--maps 3m 5m_vs_6m --steps 3000]``
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dm2_wrappers.envs import smac, smac_install


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds that a call takes, and what it returns."""
    start = time.perf_counter()
    result = function()
    return (time.perf_counter() - start) * 1e3, result


def compare(map_name: str, steps: int) -> tuple[float, float]:
    """Milliseconds: the median bare step, and the median of how much longer the wrapped one took."""
    bare = smac_install.load()(map_name=map_name, seed=1)
    env = smac.parallel_env(map_name, seed=1)
    rng = np.random.default_rng(0)

    def bare_step(actions: list[int]) -> tuple[float, bool]:
        reward, over, _ = bare.step(actions)
        bare.get_obs(), bare.get_state(), bare.get_avail_actions()
        return reward, over

    def wrapped_step(actions: dict[str, int]) -> Any:
        result = env.step(actions)
        env.state()
        return result

    times: tuple[list[float], list[float]] = [], []
    try:
        while len(times[0]) < steps:
            bare.reset()
            observations, _ = env.reset()
            over = False
            while not over and len(times[0]) < steps:
                actions = {
                    agent: int(rng.choice(np.flatnonzero(seen["action_mask"]))) for agent, seen in observations.items()
                }
                calls = [
                    lambda actions=actions: bare_step(list(actions.values())),
                    lambda actions=actions: wrapped_step(actions),
                ]
                results: list[Any] = [None, None]
                for side in (0, 1) if len(times[0]) % 2 else (1, 0):
                    milliseconds, results[side] = timed(calls[side])
                    times[side].append(milliseconds)
                (reward, over), (observations, rewards, *_) = results
                if abs(reward - next(iter(rewards.values()))) > 1e-6 or over != (not env.agents):
                    print("  the battles have come apart: this StarCraft does not give the same for the same seed")
                    break
    finally:
        env.close()
        bare.close()
    return statistics.median(times[0]), statistics.median(wrapped - plain for plain, wrapped in zip(*times, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", nargs="+", default=["3m", "5m_vs_6m", "3s_vs_4z", "2s3z"])
    parser.add_argument("--steps", type=int, default=3000, help="of each map")
    args = parser.parse_args()
    try:
        smac_install.load()
        smac_install.check_starcraft()
    except (ImportError, FileNotFoundError) as missing:
        print(f"not measured: {missing}")
        return
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, StarCraft II of {smac_install.program().parent.name}")
    print(f"medians of {args.steps} steps, bare SMAC and wrapped side by side in one run")
    for map_name in args.maps:
        bare, more = compare(map_name, args.steps)
        print(
            f"{map_name:10} bare {bare:6.2f} ms, wrapped {1e3 * more:5.0f} us more: {100 * more / bare:5.1f} %", flush=True
        )


if __name__ == "__main__":
    main()
