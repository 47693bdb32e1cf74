"""``python -m dm2_wrappers.demonstrations COMMAND``: demonstrations on the command line.

The commands are import, info, check, filter, compatible, to-minari and from-minari.
"""

from __future__ import annotations

import argparse
import shlex
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
    except OSError as error:
        print(f"error: {_without_errno(error)}", file=sys.stderr)
        return 1
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dm2_wrappers.demonstrations",
        description="Import, inspect, check, filter and convert demonstration files.",
    )
    commands = parser.add_subparsers(required=True)

    add = commands.add_parser("import", help="convert a folder that the paper's PyMARL recorded to a demonstrations file")
    add.add_argument("folder", type=Path, help="the folder with agent_0.npz (or .npy), agent_1.npz, ...")
    add.add_argument("file", type=Path, help="the .npz file to write")
    add.add_argument("--agents", nargs="+", metavar="NAME", help="the agents' names (default: agent_0, agent_1, ...)")
    add.add_argument("--env-id", help="the environment that the recordings fit, such as smac:5m_vs_6m")
    add.add_argument("--last-action", type=int, default=0, metavar="N", help="append the last action, one-hot in N actions")
    add.add_argument("--agent-id", action="store_true", help="append the agent's number, one-hot")
    add.add_argument("--episodes", type=int, metavar="N", help="keep only the first N episodes")
    add.add_argument(
        "--max-bytes", type=int, default=4 * 2**30, help="refuse a folder whose contents are larger (default: 4 GiB)"
    )
    add.set_defaults(command=_import)

    info = commands.add_parser("info", help="print a summary of a demonstrations file")
    _add_file(info)
    info.set_defaults(command=_info)

    check = commands.add_parser("check", help="check that a demonstrations file is not damaged and fits an environment")
    _add_file(check)
    check.add_argument("--env", metavar="ENV_ID", help="the environment, such as smax:5m_vs_6m or smac:5m_vs_6m")
    check.set_defaults(command=_check)

    chosen = commands.add_parser("filter", help="write the episodes that were won or lost, or the best ones, to a new file")
    _add_file(chosen)
    chosen.add_argument("out", type=Path, help="the .npz file to write")
    outcome = chosen.add_mutually_exclusive_group()
    outcome.add_argument("--won", action="store_true", help="keep the episodes that were won")
    outcome.add_argument("--lost", action="store_true", help="keep the episodes that were lost")
    chosen.add_argument(
        "--best", type=float, metavar="SHARE", help="of these, keep the share with the highest return: 0.3 keeps 30 %%"
    )
    chosen.set_defaults(command=_filter)

    compatible = commands.add_parser("compatible", help="test whether the agents' recordings can come from one team")
    _add_file(compatible)
    compatible.set_defaults(command=_compatible)

    to_minari = commands.add_parser("to-minari", help="write a Minari data set from a demonstrations file")
    _add_file(to_minari)
    to_minari.add_argument("dataset_id", help="the name of the new data set, such as team/experts-v0")
    to_minari.add_argument("--env", metavar="ENV_ID", help="the environment, whose action spaces are written")
    to_minari.set_defaults(command=_to_minari)

    from_minari = commands.add_parser("from-minari", help="write a demonstrations file from a Minari data set")
    from_minari.add_argument("dataset_id", help="the name of a data set on this machine (see: minari list local)")
    from_minari.add_argument("file", type=Path, help="the .npz file to write")
    from_minari.add_argument("--agents", nargs="+", metavar="NAME", help="the agents in the environment's order")
    from_minari.add_argument("--env-id", help="the environment that the episodes fit, such as smax:5m_vs_6m")
    from_minari.set_defaults(command=_from_minari)
    return parser


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a demonstrations file (.npz)")
    parser.add_argument(
        "--max-bytes", type=int, help="refuse a file whose arrays are larger (default: 1 GiB, or more for files over 32 MiB)"
    )


def _without_errno(error: OSError) -> str:
    """The error as a sentence: what Python would print without its number."""
    return str(error) if error.errno is None else ": ".join(filter(None, [error.filename, error.strerror]))


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
    _print_next(f"check {shlex.quote(str(options.file))}" + (f" --env {options.env_id}" if options.env_id else ""))


def _info(options: argparse.Namespace) -> None:
    demos = Demonstrations.load(options.file, max_bytes=options.max_bytes)
    lengths = np.diff(demos.offsets).ravel()
    policy = demos.metadata.get("policy")
    unrecorded = isinstance(policy, dict) and policy.get("rewards") == "not recorded"
    reported = int((demos.won[0] >= 0).sum())
    known = "" if reported == len(demos) else f" of the {reported} episodes whose outcome is known"
    rows = {
        "environment": demos.env_id or "not known",
        "episodes": f"{len(demos)} ({demos.style})",
        "length": f"{demos.mean_length:.1f} steps on average, {lengths.min()} to {lengths.max()}",
        "battles won": "not recorded" if demos.win_rate is None else f"{demos.win_rate:.3f}{known}",
        "return": "not recorded" if unrecorded else f"{demos.mean_return:.2f}",
        "policy": policy,
    }
    if "selected" in demos.metadata:
        rows["selected"] = demos.metadata["selected"]
    for name, value in rows.items():
        print(f"{name:<12} {value}")
    print(f"{'agent':<16} {'features':>8} {'live steps':>10}")
    for agent, size in zip(demos.agents, demos.sizes, strict=True):
        print(f"{agent:<16} {size:>8} {len(demos.observations(agent)):>10}")


def _filter(options: argparse.Namespace) -> None:
    if not (options.won or options.lost or options.best is not None):
        raise ValueError("filter needs --won, --lost or --best SHARE: choose which episodes to keep")
    all_episodes = chosen = Demonstrations.load(options.file, max_bytes=options.max_bytes)
    if options.won or options.lost:
        chosen = chosen.filter(won=options.won)
    if options.best is not None:
        chosen = chosen.best(options.best)
    chosen.save(options.out)
    won = "" if chosen.win_rate is None else f"{chosen.win_rate:.3f} won, "
    print(f"{options.out}: {len(chosen)} of {len(all_episodes)} episodes, {won}mean return {chosen.mean_return:.2f}")
    _print_next(f"info {shlex.quote(str(options.out))}")


def _print_next(command: str) -> None:
    print(f"next: python -m dm2_wrappers.demonstrations {command}")


def _compatible(options: argparse.Namespace) -> None:
    print(compatibility.report(Demonstrations.load(options.file, max_bytes=options.max_bytes)))


def _to_minari(options: argparse.Namespace) -> None:
    demos = Demonstrations.load(options.file, max_bytes=options.max_bytes)
    env = None if options.env is None else envs.parallel_env(options.env)
    dataset = demos.to_minari(options.dataset_id, env=env)
    print(f"{dataset.id}: {len(dataset)} episodes, {dataset.total_steps} steps")
    print(f"next: minari show {dataset.id}")


def _from_minari(options: argparse.Namespace) -> None:
    demos = Demonstrations.from_minari(options.dataset_id, agents=options.agents, env_id=options.env_id)
    demos.save(options.file)
    print(f"{options.file}: {len(demos)} episodes of {len(demos.agents)} agents")
    _print_next(f"info {shlex.quote(str(options.file))}")


def _check(options: argparse.Namespace) -> None:
    demos = Demonstrations.load(options.file, max_bytes=options.max_bytes)
    if options.env is not None:
        env = envs.parallel_env(options.env)
        sizes = [flat_space(env.observation_space(agent)).shape[0] for agent in env.possible_agents]
        try:
            demos.check_compatible(env.possible_agents, sizes, environment_id(env))
        finally:
            env.close()
    print(f"{options.file} is a valid demonstrations file" + (f" and fits {options.env}" if options.env is not None else ""))


if __name__ == "__main__":
    raise SystemExit(main())
