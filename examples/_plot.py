"""A picture of a run: its learning curve and, beside it, what the discriminators did."""

from __future__ import annotations

import csv
from pathlib import Path
from urllib.parse import unquote

import dm2_wrappers as dm2
from dm2_wrappers._files import replacing

_LOGGED = ("dm2/expert_accuracy", "dm2/policy_accuracy", "dm2/gail_reward_std", "time/total_timesteps")


def plot(
    curves: dict[str, list[dict[str, float]]],
    path: Path,
    *,
    title: str,
    demos: dm2.Demonstrations | None,
    logs: Path | None = None,
) -> None:
    """Draw learning curves and, beside them, what the discriminators did.

    Args:
        curves: ``{label: rows of evaluations.csv}``: win rate (or return, where the environment reports no wins) over
            steps, with the standard errors of the evaluations.
        path: The picture.
        title: Its title.
        demos: The experts, for a line at their win rate or return.
        logs: The folder of the agents' logs, for the second panel: how often each discriminator is right about who made
            an observation, and how far r_gail spreads within a rollout.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import EngFormatter

    agents = {} if logs is None or demos is None else read_logs(logs)
    layout = [["curve", "accuracy"], ["curve", "spread"]] if agents else [["curve"]]
    size = (10, 4) if agents else (6, 4)
    figure, panels = plt.subplot_mosaic(layout, figsize=size, layout="constrained", width_ratios=[5, 4][: len(layout[0])])

    axes = panels["curve"]
    measure = "win_rate" if all("win_rate" in rows[-1] for rows in curves.values()) else "return"
    colors = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]  # color-blind readers can tell these apart
    for (label, rows), color in zip(curves.items(), colors, strict=False):
        steps = [row["step"] for row in rows]
        mean = [row[measure] for row in rows]
        low = [row[measure] - row[f"{measure}_se"] for row in rows]
        high = [row[measure] + row[f"{measure}_se"] for row in rows]
        axes.plot(steps, mean, label=label, color=color, linewidth=2)
        axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
    level = None if demos is None else demos.win_rate if measure == "win_rate" else demos.mean_return
    if level is not None:
        axes.axhline(level, color="#555555", linestyle="--", linewidth=1.2, label=f"experts ({level:.2f})")
    axes.set(title=title, ylabel="episodes won" if measure == "win_rate" else "mean return of an episode")
    if measure == "win_rate":
        axes.set_ylim(0, 1)
    axes.set_xlabel("environment steps")
    axes.legend(frameon=False)

    if agents:
        shades = plt.colormaps["viridis"]([0.9 * k / max(1, len(agents) - 1) for k in range(len(agents))])
        for (agent, log), color in zip(agents.items(), shades, strict=True):
            panels["accuracy"].plot(log["step"], log["accuracy"], color=color, linewidth=1.2, label=agent)
            panels["spread"].plot(log["step"], log["spread"], color=color, linewidth=1.2)
        panels["accuracy"].axhline(0.5, color="#555555", linestyle="--", linewidth=1)
        panels["accuracy"].set(ylim=(0.4, 1.02), ylabel="accuracy", title="discriminators (dashed: guessing)")
        panels["accuracy"].tick_params(labelbottom=False)
        panels["spread"].set(ylabel="spread of r_gail", xlabel="environment steps")
        panels["spread"].set_ylim(bottom=0)
        if len(agents) <= 8:
            panels["accuracy"].legend(frameon=False, fontsize="x-small", ncols=2)
    for axes in panels.values():
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 200k, 1M
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    with replacing(path) as file:
        figure.savefig(file, dpi=150, format="png")
    plt.close(figure)


def read_logs(folder: Path) -> dict[str, dict[str, list[float]]]:
    """What each agent's discriminator did at each rollout, from the agents' logs.

    A continued run has several logs per agent; from the step at which a later one starts, it replaces the earlier ones.

    Returns:
        ``{agent: {"step", "accuracy", "spread"}}``: accuracy over both sides (0.5 is guessing), and the standard deviation
        of r_gail within the rollout.
    """
    agents = {}
    # The folder "team" has the means over the agents.
    for agent in sorted(path.name for path in folder.glob("*") if path.is_dir() and path.name != "team"):
        points: dict[float, tuple[float, float]] = {}
        for path in sorted((folder / agent).glob("progress*.csv"), key=_first_step):
            points = {step: point for step, point in points.items() if step <= _first_step(path)}
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    try:
                        expert, policy, spread, step = (float(row[name]) for name in _LOGGED)
                    except (KeyError, TypeError, ValueError):
                        continue  # a rollout without an update, or a line cut off by a kill
                    points[step] = ((expert + policy) / 2, spread)
        if points:
            accuracy, spread = zip(*points.values(), strict=True)
            agents[unquote(agent)] = {"step": [*points], "accuracy": [*accuracy], "spread": [*spread]}
    return agents


def _first_step(path: Path) -> int:
    """Where a log starts: progress.csv at 0, progress_from_8192.csv at 8192."""
    return int(path.stem.removeprefix("progress").removeprefix("_from_") or 0)
