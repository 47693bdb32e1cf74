"""``python -m dm2_wrappers.demonstrations import|info|check|compatible``: demonstrations on the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from dm2_wrappers import compatibility, envs
from dm2_wrappers.demonstrations.dataset import Demonstrations
from dm2_wrappers.vector.layout import environment_id
from dm2_wrappers.vector.spaces import flat_space


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if it succeeded, 1 with a sentence if not."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (ValueError, FileNotFoundError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dm2_wrappers.demonstrations", description="Demonstration files.")
    commands = parser.add_subparsers(required=True)

    add = commands.add_parser("import", help="turn a folder that the paper's PyMARL recorded into a demonstrations file")
    add.add_argument("folder", type=Path, help="where agent_0.npz (or .npy), agent_1.npz, ... are")
    add.add_argument("file", type=Path, help="the .npz to write")
    add.add_argument("--agents", nargs="+", metavar="NAME", help="the agents' names; agent_0, agent_1, ... if not given")
    add.add_argument("--env-id", help="the environment they fit, such as smac:5m_vs_6m")
    add.add_argument("--last-action", type=int, default=0, metavar="ACTIONS", help="append the last action, one of so many")
    add.add_argument("--agent-id", action="store_true", help="append the agent's number")
    add.add_argument("--episodes", type=int, help="only the first so many")
    add.add_argument("--max-bytes", type=int, default=4 * 2**30, help="refuse a file whose contents are larger (4 GiB)")
    add.set_defaults(command=_import)

    info = commands.add_parser("info", help="what a demonstrations file holds")
    info.add_argument("file", type=Path)
    info.set_defaults(command=_info)

    check = commands.add_parser("check", help="whether a demonstrations file is whole, and fits an environment")
    check.add_argument("file", type=Path)
    check.add_argument("--env", metavar="ENV_ID", help="such as smax:5m_vs_6m or smac:5m_vs_6m")
    check.set_defaults(command=_check)

    compatible = commands.add_parser("compatible", help="test whether the agents' demonstrations can be of one team")
    compatible.add_argument("file", type=Path)
    compatible.set_defaults(command=_compatible)
    return parser


def _import(options: argparse.Namespace) -> None:
    demos = Demonstrations.import_pymarl(
        options.folder,
        agents=options.agents,
        env_id=options.env_id,
        last_action=options.last_action,
        agent_id=options.agent_id,
        episodes=options.episodes,
        max_bytes=options.max_bytes,
    )
    demos.save(options.file)
    print(f"{options.file}: {len(demos)} episodes of {len(demos.agents)} agents")


def _info(options: argparse.Namespace) -> None:
    demos = Demonstrations.load(options.file)
    lengths = np.diff(demos.offsets).ravel()
    policy = demos.metadata.get("policy")
    unrecorded = isinstance(policy, dict) and policy.get("rewards") == "not recorded"
    rows = {
        "environment": demos.env_id or "not known",
        "episodes": f"{len(demos)} ({demos.style})",
        "length": f"{demos.mean_length:.1f} steps on average, {lengths.min()} to {lengths.max()}",
        "battles won": "not recorded" if demos.win_rate is None else f"{demos.win_rate:.3f}",
        "return": "not recorded" if unrecorded else f"{demos.mean_return:.2f}",
        "policy": policy,
    }
    for name, value in rows.items():
        print(f"{name:<12} {value}")
    print(f"{'agent':<16} {'features':>8} {'live steps':>10}")
    for agent, size in zip(demos.agents, demos.sizes, strict=True):
        print(f"{agent:<16} {size:>8} {len(demos.observations(agent)):>10}")


def _compatible(options: argparse.Namespace) -> None:
    print(compatibility.report(Demonstrations.load(options.file)))


def _check(options: argparse.Namespace) -> None:
    demos = Demonstrations.load(options.file)
    if options.env is not None:
        env = envs.parallel_env(options.env)
        sizes = [flat_space(env.observation_space(agent)).shape[0] for agent in env.possible_agents]
        try:
            demos.check_compatible(env.possible_agents, sizes, environment_id(env))
        finally:
            env.close()
    print(f"{options.file} is whole" + (f" and fits {options.env}" if options.env is not None else ""))


if __name__ == "__main__":
    raise SystemExit(main())
