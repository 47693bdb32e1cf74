"""Command line: ``python -m experiments run|status|plot|table NAME``, ``compare RUN RUN`` and ``demos``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from dm2_wrappers._extras import require
from dm2_wrappers._files import replacing
from experiments.experts import DEFAULT_SCENARIOS, RECORDING_LEVELS, STYLE_SCENARIOS
from experiments.grids import EXPERIMENTS
from experiments.locks import LocksMissingError
from experiments.plan import Experiment, Run, quick, runs
from experiments.run_files import RunFolderError, is_done, one_sentence, read_run_json, steps_done

ALL = "all"


def main(arguments: list[str] | None = None) -> int:
    """Execute a command line.

    Returns:
        The exit code: 0 if all went well, 1 if something failed, 130 after Ctrl-C.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        if args.command == "compare":
            return _compare(args)
        if args.command == "demos":
            if unknown := set(args.scenarios) - set(RECORDING_LEVELS):
                parser.error(
                    f"no experts are planned for {', '.join(sorted(unknown))}, only for {', '.join(RECORDING_LEVELS)}"
                )
            return _demos(args)
        return _experiments(parser, args)
    except KeyboardInterrupt:
        resumes = args.command in ("run", "demos")
        print("stopped" + (": the same command continues from the checkpoints" if resumes else ""), file=sys.stderr)
        return 130
    except (RunFolderError, LocksMissingError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(one_sentence(error), file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("run", "do the runs of an experiment, or continue them"),
        ("status", "show how far each run is"),
        ("plot", "draw the figures of the finished runs and write their table"),
        ("table", "print the table of the finished runs"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if name == "run":
            command.add_argument("experiment", choices=EXPERIMENTS)
        else:  # the default must be one of the choices, because argparse checks it, too
            command.add_argument(
                "experiment", nargs="?", choices=[*EXPERIMENTS, ALL], default=ALL, help="default: every experiment"
            )
        command.add_argument(
            "--quick", action="store_true", help="a small version in runs/quick, with fewer steps, seeds and curves"
        )
        command.add_argument("--seeds", type=_positive, help="the number of seeds of each curve (default: the experiment's)")
        command.add_argument("--only", default="", help="only the runs whose path contains this text, e.g. 5m_vs_6m/dm2")
        command.add_argument("--steps", type=_positive, help="environment steps of each run (default: the experiment's)")
        command.add_argument("--env", default="smax", choices=("smax", "smac"), help="the backend (default: smax)")
        command.add_argument("--results", type=Path, help="the folder for runs and figures (default: results)")
        if name == "run":
            command.add_argument("--jobs", type=_positive, default=2, help="runs at the same time (default: 2)")
            command.add_argument("--ray", action="store_true", help="make each run a one-CPU task of a Ray cluster")
        if name == "plot":
            command.add_argument("--pdf", action="store_true", help="write PDF files besides the PNG files")
    text = "compare single runs: print a table and draw their curves"
    compare = commands.add_parser("compare", help=text, description=text)
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a run of examples/ippo_sb3.py")
    compare.add_argument(
        "--out", type=_figure, default=Path("runs/compare.png"), help="the figure, .png, .pdf or .svg (default: %(default)s)"
    )
    text = "train the experts and record the demonstrations that experiments need, or continue"
    demos = commands.add_parser("demos", help=text, description=text)
    demos.add_argument(
        "scenarios",
        nargs="*",
        metavar="scenario",
        help=f"of {', '.join(RECORDING_LEVELS)} (default: {', '.join(DEFAULT_SCENARIOS)})",
    )
    demos.add_argument("--seeds", type=_positive, default=5, help="independent trainings of each scenario (default: 5)")
    demos.add_argument("--jobs", type=_positive, default=2, help="trainings at the same time (default: 2)")
    demos.add_argument("--episodes", type=_positive, default=1000, help="episodes in each file (default: 1000)")
    demos.add_argument("--env", default="smax", choices=("smax", "smac"), help="the backend (default: smax)")
    return parser


def _experiments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    if args.command == "run" and args.ray:
        try:
            require("ray", "ray")
        except ImportError as error:
            parser.error(str(error))
    root = args.results or Path("runs/quick" if args.quick else "results")
    if args.experiment == ALL:
        return _all_experiments(args, root)
    experiment = _experiment(args, args.experiment)
    if args.env != "smax" and experiment.smax_only:
        parser.error(f"{args.experiment} runs on SMAX only: {experiment.smax_only}")
    grid = runs(experiment, root.resolve(), backend=args.env, seeds=args.seeds)
    if not grid:
        parser.error(f"{args.experiment} has no quick version: leave --quick out")
    selected = _selected(args, grid, root)
    if not selected:
        parser.error(f"no run has {args.only!r} in its path; an example of a path is {_path(grid[0], root)}")
    return _COMMANDS[args.command](args, args.experiment, experiment, selected, root)


def _all_experiments(args: argparse.Namespace, root: Path) -> int:
    """One line of status for each experiment, or the figures or tables of those that have a finished run."""
    sizes, done_in_all, errors = 0, 0, []
    for name in EXPERIMENTS:
        experiment = _experiment(args, name)
        if args.env != "smax" and experiment.smax_only:
            continue
        grid = _selected(args, runs(experiment, root.resolve(), backend=args.env, seeds=args.seeds), root)
        try:
            done = sum(map(is_done, grid))
            sizes, done_in_all = sizes + len(grid), done_in_all + done
            if grid and args.command == "status":
                print(f"{name:<12}{done:>4} of {len(grid):>3} runs are done  {experiment.title}")
            elif done:
                _COMMANDS[args.command](args, name, experiment, grid, root)
        except RunFolderError as error:  # the other experiments are shown all the same
            sizes += len(grid)
            errors.append(f"{name}: {error}")
    if not sizes:
        raise SystemExit(f"no run has {args.only!r} in its path")
    if args.command != "status" and not done_in_all and not errors:
        raise SystemExit("no run is done yet: start with python -m experiments run NAME")
    for sentence in errors:
        print(sentence, file=sys.stderr)
    return 1 if errors else 0


def _experiment(args: argparse.Namespace, name: str) -> Experiment:
    experiment = quick(EXPERIMENTS[name]) if args.quick else EXPERIMENTS[name]
    if args.steps is None:
        return experiment
    return replace(experiment, panels=tuple(replace(panel, steps=args.steps) for panel in experiment.panels))


def _selected(args: argparse.Namespace, grid: list[Run], root: Path) -> list[Run]:
    return [run for run in grid if args.only in _path(run, root)]


def _path(run: Run, root: Path) -> str:
    return str(run.folder.relative_to(root.resolve()))


def _run(args: argparse.Namespace, name: str, experiment: Experiment, grid: list[Run], root: Path) -> int:
    from experiments.scheduler import run_all

    outcomes = run_all(grid, jobs=args.jobs, ray=args.ray)
    failed = [outcome for outcome in outcomes if outcome.state != "done"]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} runs are done")
    for outcome in failed:
        print(f"{outcome.state}: {outcome.run.folder}\n{outcome.message}", file=sys.stderr)
    return 1 if failed else 0


def _status(args: argparse.Namespace, name: str, experiment: Experiment, grid: list[Run], root: Path) -> int:
    errors, done = [], 0
    for run in grid:
        try:
            state = _state(run)
        except RunFolderError as error:
            state = "damaged"
            errors.append(str(error))
        done += state == "done"
        print(f"{state:>8}  {run.env:<16} {run.curve.slug:<40} seed {run.seed}")
    print(f"{done} of {len(grid)} runs are done")
    for sentence in errors:
        print(sentence, file=sys.stderr)
    return 1 if errors else 0


def _state(run: Run) -> str:
    steps = steps_done(run)
    if is_done(run):
        return "done"
    if "failed" in read_run_json(run.folder):
        return "failed"
    return f"{steps / run.panel.steps:4.0%}" if steps else "waiting"


def _title(experiment: Experiment, backend: str) -> str:
    """The figure's title. It names the backend if all scenarios are the backend's."""
    elsewhere = any(panel.env for panel in experiment.panels)
    return experiment.title if elsewhere else f"{experiment.title} ({backend.upper()})"


def _plot(args: argparse.Namespace, name: str, experiment: Experiment, grid: list[Run], root: Path) -> int:
    from experiments.reports import write_report
    from experiments.strongest import runs_of_pairs, write_runs

    # A selection of the runs does not overwrite the figure of all runs.
    selection = "_part" if args.only or args.seeds else ""
    path = root / f"{name}{'' if args.env == 'smax' else f'_{args.env}'}{selection}"
    formats = ("png", "pdf") if args.pdf else ("png",)
    results = _results(name, experiment, grid)
    files = write_report(experiment, results, path, title=_title(experiment, args.env), formats=formats)
    if experiment.against_strongest:  # other programs read which runs these are
        files.append(write_runs(runs_of_pairs(results, root, args.env), path.with_suffix(".json")))
    print(*files)
    return 0


def _table(args: argparse.Namespace, name: str, experiment: Experiment, grid: list[Run], root: Path) -> int:
    from experiments.reports import tables

    print(tables(experiment, _results(name, experiment, grid)))
    return 0


_COMMANDS = {"run": _run, "status": _status, "plot": _plot, "table": _table}


def _results(name: str, experiment: Experiment, grid: list[Run]) -> list:
    from experiments.reports import read_results

    results = read_results(experiment, grid)
    if not results:
        raise SystemExit(f"no run of {name} is done yet: start with python -m experiments run {name}")
    return results


def _compare(args: argparse.Namespace) -> int:
    from experiments.compare import draw_comparison, read_run, results_table, settings_table

    compared = [read_run(folder) for folder in args.runs]
    print(results_table(compared))
    print(settings_table(compared))
    draw_comparison(compared, args.out)
    print(args.out)
    return 0


def _demos(args: argparse.Namespace) -> int:
    from experiments import demonstrations, styles

    errors = []
    for scenario in args.scenarios or DEFAULT_SCENARIOS:
        errors += demonstrations.make(scenario, backend=args.env, seeds=args.seeds, jobs=args.jobs, episodes=args.episodes)
        try:
            if scenario in STYLE_SCENARIOS:
                styles.make_styles(scenario, backend=args.env, episodes=args.episodes)
        except FileNotFoundError as error:
            errors.append(str(error))
    path = Path("results") / ("demonstrations.md" if args.env == "smax" else f"demonstrations_{args.env}.md")
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    with replacing(path, "w", encoding="utf-8") as file:
        file.write(demonstrations.experts_table(args.env, before))
    print(path)
    for sentence in errors:
        print(sentence, file=sys.stderr)
    return 1 if errors else 0


def _figure(text: str) -> Path:
    if Path(text).suffix not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"must end in .png, .pdf or .svg, got {text!r}")
    return Path(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
