"""The time that the SMAC environment of this library adds to a step of genuine SMAC.

    python benchmarks/smac_overhead.py [--maps 3m 5m_vs_6m --steps 3000]

A step is ``step`` and ``state`` of ``dm2.envs.smac.parallel_env``. SMAC's own ``step``, ``get_obs``, ``get_state`` and
``get_avail_actions``, which PyMARL's runner calls as well, are timed within it: their sum is the bare step, and the rest is
added by this library. Both times come from the same steps, so other load on the machine hardly affects their ratio.
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

from dm2_wrappers.envs import smac
from dm2_wrappers.envs.smac import install as smac_install


def compare(map_name: str, steps: int) -> tuple[float, float]:
    """Median milliseconds of a step: within SMAC, and added around it."""
    env = smac.parallel_env(map_name, seed=1)
    rng = np.random.default_rng(0)
    within = 0.0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal within
            start = time.perf_counter()
            result = function(*args)
            within += time.perf_counter() - start
            return result

        return call

    for name in ("step", "get_obs", "get_state", "get_avail_actions"):
        setattr(env.game.smac, name, timed(getattr(env.game.smac, name)))
    bare, added = [], []
    try:
        for _ in range(steps):
            if not env.agents:
                observations, _ = env.reset()
            actions = {agent: int(rng.choice(np.flatnonzero(seen["action_mask"]))) for agent, seen in observations.items()}
            within, start = 0.0, time.perf_counter()
            observations, *_ = env.step(actions)
            env.state()
            whole = time.perf_counter() - start
            bare.append(1e3 * within)
            added.append(1e3 * (whole - within))
    finally:
        env.close()
    return statistics.median(bare), statistics.median(added)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", nargs="+", default=["3m", "5m_vs_6m", "3s_vs_4z", "2s3z"])
    parser.add_argument("--steps", type=int, default=3000, help="steps on each map")
    args = parser.parse_args()
    try:
        smac_install.load()
        smac_install.check_starcraft()
    except (ImportError, FileNotFoundError) as missing:
        print(f"not measured: {missing}")
        return
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, StarCraft II in {smac_install.program().parent.name}")
    print(f"medians over {args.steps} steps of random play")
    for map_name in args.maps:
        bare, added = compare(map_name, args.steps)
        print(f"{map_name:10} bare {bare:6.2f} ms, added {added:6.3f} ms, ratio {1 + added / bare:.3f}", flush=True)


if __name__ == "__main__":
    main()
