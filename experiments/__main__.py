"""Command line: ``python -m experiments run|status|plot|table|demos NAME``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from dm2_wrappers._extras import require
from experiments.grids import EXPERIMENTS
from experiments.plan import Experiment, Run, quick, runs
from experiments.run import facts_of, is_done, steps_done
from experiments.teams import LEVELS, NEEDED, STYLED

ALL = "all"


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("run", "do an experiment's runs, or what is left of them"),
        ("status", "say how far each run is"),
        ("plot", "draw the figure from the finished runs"),
        ("table", "print the table of the finished runs"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if name == "run":
            command.add_argument("experiment", choices=EXPERIMENTS)
        else:  # argparse holds a missing one against the choices, too, so that it has to be one of them
            command.add_argument(
                "experiment", nargs="?", choices=[*EXPERIMENTS, ALL], default=ALL, help="without one: every experiment"
            )
        command.add_argument(
            "--quick", action="store_true", help="a small version, in runs/quick: less steps, seeds, curves"
        )
        command.add_argument("--seeds", type=_positive, help="how many seeds of each curve, instead of the grid's own")
        command.add_argument("--only", default="", help="just the runs whose folder has this in its path, e.g. 5m_vs_6m/dm2")
        command.add_argument("--steps", type=_positive, help="environment steps of each run, instead of the grid's own")
        command.add_argument("--env", default="smax", choices=("smax", "smac"), help="the backend (default: smax)")
        command.add_argument("--results", type=Path, help="where runs and figures go (default: results)")
        if name == "run":
            command.add_argument("--jobs", type=_positive, default=2, help="runs at a time on this machine (default: 2)")
            command.add_argument("--ray", action="store_true", help="each run a task of one CPU on a Ray cluster")
    demos = commands.add_parser("demos", help="make the demonstrations that experiments need, or what is left of them")
    demos.add_argument(
        "scenarios", nargs="*", metavar="scenario", help=f"of {', '.join(LEVELS)} (default: all that experiments need)"
    )
    demos.add_argument("--seeds", type=_positive, default=5, help="independent trainings of each (default: 5)")
    demos.add_argument("--jobs", type=_positive, default=2, help="trainings at a time (default: 2)")
    demos.add_argument("--episodes", type=_positive, default=1000, help="episodes in each file (default: 1000)")
    demos.add_argument("--env", default="smax", choices=("smax", "smac"), help="the backend (default: smax)")
    args = parser.parse_args(arguments)
    if args.command == "demos":
        if unknown := set(args.scenarios) - set(LEVELS):
            parser.error(f"no demonstrations are planned for {', '.join(sorted(unknown))}, only for {', '.join(LEVELS)}")
        return _demos(args)
    if args.command == "run" and args.ray:
        try:
            require("ray", "ray")
        except ImportError as error:
            parser.error(str(error))
    root = args.results or Path("runs/quick" if args.quick else "results")
    if args.experiment == ALL:
        return _every(args, root)
    experiment = _experiment(args, args.experiment)
    if args.env != "smax" and experiment.smax_only:
        parser.error(f"{args.experiment} is of SMAX alone: {experiment.smax_only}")
    grid = runs(experiment, root.resolve(), backend=args.env, seeds=args.seeds)
    if not grid:
        parser.error(f"{args.experiment} has no quick version: run it in full")
    only = _only(args, grid, root)
    if not only:
        parser.error(f"no run has {args.only!r} in its path; there are such as {_path(grid[0], root)}")
    return _COMMANDS[args.command](args, experiment, only, root)


def _every(args: argparse.Namespace, root: Path) -> int:
    """Status in a line each; the figures or tables of those that have a finished run."""
    grids, wrong = [], []
    for name in EXPERIMENTS:
        experiment = _experiment(args, name)
        if args.env != "smax" and experiment.smax_only:
            continue
        grid = _only(args, runs(experiment, root.resolve(), backend=args.env, seeds=args.seeds), root)
        done = sum(map(is_done, grid))
        grids.append((len(grid), done))
        if not grid:
            continue
        if args.command == "status":
            print(f"{name:<12}{done:>4} of {len(grid):>3} runs are done  {experiment.title}")
        elif done:
            args.experiment = name
            try:
                _COMMANDS[args.command](args, experiment, grid, root)
            except SystemExit as error:  # the others are drawn all the same
                wrong.append(str(error))
    if not any(size for size, _ in grids):
        raise SystemExit(f"no run has {args.only!r} in its path")
    if args.command != "status" and not any(done for _, done in grids):
        raise SystemExit("no run is done yet: python -m experiments run NAME")
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0


def _experiment(args: argparse.Namespace, name: str) -> Experiment:
    experiment = quick(EXPERIMENTS[name]) if args.quick else EXPERIMENTS[name]
    if args.steps is None:
        return experiment
    return replace(experiment, panels=tuple(replace(panel, steps=args.steps) for panel in experiment.panels))


def _only(args: argparse.Namespace, grid: list[Run], root: Path) -> list[Run]:
    return [run for run in grid if args.only in _path(run, root)]


def _path(run: Run, root: Path) -> str:
    return str(run.folder.relative_to(root.resolve()))


def _run(args: argparse.Namespace, experiment: Experiment, grid: list[Run], root: Path) -> int:
    from experiments.scheduler import run_all

    try:
        outcomes = run_all(grid, jobs=args.jobs, ray=args.ray)
    except KeyboardInterrupt:
        print("stopped: the same command goes on from the checkpoints", file=sys.stderr)
        return 130
    failed = [outcome for outcome in outcomes if outcome.state != "done"]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} runs are done")
    for outcome in failed:
        print(f"{outcome.state}: {outcome.run.folder}\n{outcome.message}", file=sys.stderr)
    return 1 if failed else 0


def _status(args: argparse.Namespace, experiment: Experiment, grid: list[Run], root: Path) -> int:
    for run in grid:
        done = steps_done(run)
        state = "done" if is_done(run) else f"{done / run.panel.steps:4.0%}" if done else "waiting"
        state = "failed" if "failed" in facts_of(run) and state != "done" else state
        print(f"{state:>8}  {run.env:<16} {run.curve.slug:<40} seed {run.seed}")
    print(f"{sum(map(is_done, grid))} of {len(grid)} runs are done")
    return 0


def _plot(args: argparse.Namespace, experiment: Experiment, grid: list[Run], root: Path) -> int:
    from experiments.figures import draw, draw_lengths, draw_levels

    # A part of the runs does not overwrite the whole figure.
    part = "_part" if args.only or args.seeds else ""
    path = root / f"{args.experiment}{'' if args.env == 'smax' else f'_{args.env}'}{part}"
    panels = _panels(args, experiment, grid)
    named = [(panel.name, curves) for panel, curves in panels]
    title = f"{experiment.title} ({args.env.upper()})"
    draw(title, named, path)
    path.with_suffix(".md").write_text(_tables(panels))
    names = [path.name, f"{path.name}_iqm"]
    if experiment.levels_of:
        draw_levels(title, experiment.levels_of, named, path.with_name(f"{path.name}_levels"))
        names.append(f"{path.name}_levels")
    if experiment.lengths:
        draw_lengths(title, named, path.with_name(f"{path.name}_lengths"))
        names.append(f"{path.name}_lengths")
    print(*(f"{path.parent / name}.{ending}" for name in names for ending in ("png", "pdf")), path.with_suffix(".md"))
    return 0


def _table(args: argparse.Namespace, experiment: Experiment, grid: list[Run], root: Path) -> int:
    print(_tables(_panels(args, experiment, grid)))
    return 0


_COMMANDS = {"run": _run, "status": _status, "plot": _plot, "table": _table}


def _panels(args: argparse.Namespace, experiment: Experiment, grid: list[Run]) -> list:
    from experiments.curves import measured

    try:
        panels = [(panel, measured(panel, grid)) for panel in experiment.panels]
    except ValueError as error:
        raise SystemExit(f"{args.experiment}: {error}") from None
    panels = [(panel, curves) for panel, curves in panels if curves]
    if not panels:
        raise SystemExit(f"no run of {args.experiment} is done yet: python -m experiments run {args.experiment}")
    return panels


def _tables(panels: list) -> str:
    from experiments.tables import pooled, table

    tables = [table(panel.name, curves, panel.baseline) for panel, curves in panels]
    baselines = {one.curve.label for panel, curves in panels for one in curves if one.curve.slug == panel.baseline}
    together = pooled([(panel.scenario, curves) for panel, curves in panels], min(baselines, default=""))
    return "\n".join([*tables, *([together] if together else [])])


def _demos(args: argparse.Namespace) -> int:
    from experiments import demonstrations

    lacking = []
    for scenario in args.scenarios or NEEDED:
        lacking += demonstrations.make(scenario, backend=args.env, seeds=args.seeds, jobs=args.jobs, episodes=args.episodes)
        try:
            if scenario in STYLED:
                demonstrations.make_styles(scenario, backend=args.env, episodes=args.episodes)
        except FileNotFoundError as error:
            lacking.append(str(error))
    Path("results").mkdir(exist_ok=True)
    path = Path("results") / ("demonstrations.md" if args.env == "smax" else f"demonstrations_{args.env}.md")
    path.write_text(demonstrations.sums(args.env, path.read_text() if path.exists() else ""))
    print(path)
    for sentence in lacking:
        print(sentence, file=sys.stderr)
    return 1 if lacking else 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
