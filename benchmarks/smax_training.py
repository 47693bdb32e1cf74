"""Environment steps per second on SMAX: a bare JaxMARL loop, vector_env, IPPO and DM2. Also: how long a start takes.

    python benchmarks/smax_training.py [--scenario 5m_vs_6m] [--num-envs 64] [--parts training paper start]

"training": the bare loop is JaxMARL's own jitted, batched ``step`` with auto-reset and action masks; its arrays are copied
to the host. Both loops play random available actions. IPPO and DM2 use the settings of examples/ippo_sb3.py. Torch and XLA
use one thread each. The parts take turns for several rounds; the table shows medians and their ratios.

"paper": the same learners with the paper's discriminators (120 minibatches of 64 episodes per update), in the same rounds.

"start": seconds from the start of examples/ippo_sb3.py until its first environment step is done, once without anything
compiled and once with what the first start has kept.

CPU times are printed, too: on a machine that does other work at the same time, only these mean something.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np
import torch
from sb3_contrib import MaskablePPO

import dm2_wrappers as dm2

PARTS = ("training", "paper", "start")
EXAMPLE = Path(__file__).parents[1] / "examples" / "ippo_sb3.py"
# Runs the example as a user does, and ends the process after the first step of any SMAX environment.
UNTIL_FIRST_STEP = """
import os, runpy, sys
from dm2_wrappers.envs.smax.vectorized import SMAXVectorEnv

step = SMAXVectorEnv.step

def step_once(*args):
    step(*args)
    os._exit(0)

SMAXVectorEnv.step = step_once
sys.path.insert(0, os.path.dirname(sys.argv[1]))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class BareLoop:
    """The loop of a JaxMARL user: ``vmap(step)`` and ``vmap(get_avail_actions)``, jitted together."""

    def __init__(self, scenario: str, num_envs: int) -> None:
        import jax
        import jax.numpy as jnp

        smax = dm2.envs.smax.vector_env(scenario, 1).smax
        agents = tuple(smax.agents)

        def step(key, state, actions):
            key, step_key = jax.random.split(key)
            observations, state, rewards, dones, _ = smax.step(step_key, state, dict(zip(agents, actions, strict=True)))
            masks = smax.get_avail_actions(state)
            stacked = [jnp.stack([each[a] for a in agents]) for each in (observations, rewards, dones, masks)]
            state = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), state)
            return key, state, (*stacked, dones["__all__"])

        self._step = jax.jit(jax.vmap(step))
        keys = jax.random.split(jax.random.key(0), num_envs)
        _, state = jax.jit(jax.vmap(smax.reset))(keys)
        self._state = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), state)
        self._keys, self._masks = keys, np.asarray(jax.vmap(smax.get_avail_actions)(self._state)[agents[0]])
        self._masks = np.repeat(self._masks[:, None], len(agents), axis=1)

    def run(self, steps: int) -> None:
        rng = np.random.default_rng(0)
        for _ in range(steps):
            self._keys, self._state, arrays = self._step(self._keys, self._state, random_available(rng, self._masks))
            _, _, _, self._masks, _ = (np.asarray(array) for array in arrays)


def random_available(rng, masks):
    return (rng.random(masks.shape, dtype=np.float32) * masks).argmax(axis=-1)


def seconds_to_first_step(scenario: str) -> list[tuple[float, float]]:
    """Time and CPU time of examples/ippo_sb3.py: without anything compiled, and with what that start has kept."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        # A new folder for users' caches, so the default of dm2_wrappers.envs.smax.compiled is measured.
        env = {**os.environ, "XDG_CACHE_HOME": folder}
        env.pop("JAX_COMPILATION_CACHE_DIR", None)
        for number in range(2):
            options = ["--env", f"smax:{scenario}", "--run", f"{folder}/run_{number}"]
            start, used = time.perf_counter(), sum(os.times()[2:4])
            subprocess.run([sys.executable, "-c", UNTIL_FIRST_STEP, str(EXAMPLE), *options], check=True, env=env)
            seconds.append((time.perf_counter() - start, sum(os.times()[2:4]) - used))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="5m_vs_6m")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--demos", default="demos_data/smax_{scenario}_win30.npz")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400, help="joint steps of the two loops in each round")
    parser.add_argument("--rollouts", type=int, default=3, help="rollouts of each team in each round")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch "
        f"{torch.__version__}, {args.scenario}, {args.num_envs} sub-environments, {args.rounds} rounds, "
        f"load {os.getloadavg()[0]:.1f} at the start\n",
        flush=True,
    )
    if set(args.parts) - {"start"}:
        compare_speeds(args)
    if "start" in args.parts:
        for what, (seconds, used) in zip(("nothing", "all"), seconds_to_first_step(args.scenario), strict=True):
            print(f"examples/ippo_sb3.py takes {seconds:.1f} s ({used:.1f} s CPU) to its first step if {what} is compiled")


def compare_speeds(args: argparse.Namespace) -> None:
    """Print the table of steps per second, and how many times as long as IPPO the teams with discriminators take."""
    bare = BareLoop(args.scenario, args.num_envs)
    venv = dm2.envs.smax.vector_env(args.scenario, args.num_envs, seed=0)
    _, infos = venv.reset()

    def play(steps: int) -> None:
        nonlocal infos
        rng = np.random.default_rng(0)
        for _ in range(steps):
            *_, infos = venv.step(random_available(rng, infos["action_mask"]))

    demos = dm2.Demonstrations.load(args.demos.format(scenario=args.scenario))

    def team(matcher):
        return dm2.sb3.IndependentLearners(
            MaskablePPO,
            dm2.envs.smax.vector_env(args.scenario, args.num_envs),
            matcher=matcher,
            coefficient=None if matcher is None else 0.3,
            seed=0,
            n_steps=64,
            batch_size=64 * args.num_envs // 4,
            n_epochs=4,
            learning_rate=1e-3,
            ent_coef=0.01,
            max_grad_norm=10.0,
            policy_kwargs={"activation_fn": torch.nn.ReLU},
            device="cpu",
        )

    teams = {"IPPO": team(None)}
    if "training" in args.parts:
        teams["DM2"] = team(dm2.DistributionMatcher(demos, seed=0))
    if "paper" in args.parts:
        teams["DM2, paper's budget"] = team(
            dm2.DistributionMatcher.paper(demos, args.scenario, max_steps=venv.max_steps, seed=0)
        )
    rollouts = args.rollouts * 64 * args.num_envs
    parts = {
        "bare JaxMARL loop": (lambda: bare.run(args.steps), args.steps * args.num_envs),
        "vector_env": (lambda: play(args.steps), args.steps * args.num_envs),
        **{
            name: (lambda each=each: each.learn(rollouts, reset_num_timesteps=False), rollouts)
            for name, each in teams.items()
        },
    }
    for run, _ in parts.values():
        run()  # compile, fill caches and buffers
    speeds: dict[str, list[float]] = {name: [] for name in parts}
    used: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(args.rounds):
        for name, (run, steps) in parts.items():
            start, cpu = time.perf_counter(), time.process_time()
            run()
            speeds[name].append(steps / (time.perf_counter() - start))
            used[name].append((time.process_time() - cpu) / steps)

    print("| part | environment steps/s (median) | range | relative to the bare loop | the same in CPU time |")
    print("|---|---|---|---|---|")
    medians = {name: float(np.median(values)) for name, values in speeds.items()}
    for name, values in speeds.items():
        share = np.median(np.array(values) / np.array(speeds["bare JaxMARL loop"]))
        of_cpu = np.median(np.array(used["bare JaxMARL loop"]) / np.array(used[name]))
        extremes = f"{min(values):,.0f} - {max(values):,.0f}"
        print(f"| {name} | {medians[name]:,.0f} | {extremes} | {share:.2f} | {of_cpu:.2f} |")
    print()
    for name in list(teams)[1:]:
        ratio = np.median(np.array(speeds["IPPO"]) / np.array(speeds[name]))
        of_cpu = np.median(np.array(used[name]) / np.array(used["IPPO"]))
        print(f"{name} takes {ratio:.2f} times as long as IPPO ({of_cpu:.2f} times in CPU time)")
    print(flush=True)


if __name__ == "__main__":
    main()
