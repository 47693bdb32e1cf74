"""Watch a team: an episode as a GIF (and an MP4 if ffmpeg is installed), with every agent's r_gail below the image.

    python examples/watch.py --run runs/dm2_smax_5m_vs_6m_seed0            # a run of ippo_sb3.py or record_demos.py
    python examples/watch.py --run runs/dm2_smax_5m_vs_6m_seed0 --policy random     # another team, the same discriminators
    python examples/watch.py --env mpe2.simple_spread_v3:parallel_env --policy wrap_any_env:expert
    python examples/watch.py --policy random --demos demos_data/smax_5m_vs_6m_win30.npz

Each row below the image shows one agent over time. Blue: the discriminator takes the observation for an expert's, so r_gail
is positive. Orange: r_gail is negative. The discriminators are those of the run. Without a run, --demos trains new ones on
a few episodes of the team that is shown. Works with every environment that renders to "rgb_array".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import _runs
import ippo_sb3
import matplotlib as mpl
import numpy as np
import torch
import tyro

import dm2_wrappers as dm2
from dm2_wrappers._files import replacing
from dm2_wrappers.sb3 import checkpoint, team_state
from dm2_wrappers.vector.layout import Layout

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib import animation

Policy = Callable[[dict[str, Any]], dict[str, Any]]

INK, PALE = "#222222", "#8a8a8a"
UNLIKE_TO_LIKE = mpl.colors.LinearSegmentedColormap.from_list("unlike_to_like", ["#D55E00", "#f4f4f2", "#0072B2"])


@dataclass
class Args:
    run: Path | None = None
    """folder of a run, or a checkpoint in it; its team plays, and its discriminators give r_gail"""
    policy: str = "team"
    """team: the run's; random: random available actions; module:function: your {agent: observation} -> {agent: action}"""
    env: str | None = None
    """smax:SCENARIO, smac:MAP, or module:function for a function that takes render_mode; default: the run's"""
    demos: Path | None = None
    """demonstrations for new discriminators, if there is no run"""
    practice: int = 20
    """episodes on which new discriminators are trained"""
    seed: int = 0
    """seed of the episode"""
    greedy: bool = False
    """play the most likely actions instead of sampled ones"""
    fps: int = 8
    """frames per second; SMAX plays 8 steps per second of game time"""
    out: Path | None = None
    """path of the GIF; default: watch.gif in the run's folder or in runs/"""


@dataclass
class Episode:
    """What is drawn: one entry per step, and a last picture after the last step."""

    frames: list[np.ndarray] = field(default_factory=list)
    gail: list[list[float]] = field(default_factory=list)  # [T][K], NaN for agents that are dead, gone or not judged
    present: list[list[bool]] = field(default_factory=list)  # [T][K]
    returns: list[float] = field(default_factory=list)  # after each step
    won: bool | None = None


def main(args: Args) -> Path:
    """Play, draw, save; returns the path of the GIF."""
    if args.run is None and args.policy == "team":
        raise SystemExit("Which team? Give --run FOLDER, or --policy random, or --policy module:function.")
    config, file = (None, None) if args.run is None else saved(args.run)
    name = args.env or (config["env"] if config else "smax:5m_vs_6m")
    learner = ippo_sb3.LearnerArgs(**config["learner"]) if config else ippo_sb3.LearnerArgs()
    env = _runs.parallel_env(name, render_mode="rgb_array", **learner.env_options)
    if getattr(env, "render_mode", None) != "rgb_array":
        raise SystemExit(f"{name} does not render to rgb_array: its function must take render_mode and pass it on.")
    team = None if file is None else restored(file, learner, env)
    matcher = None if team is None else team.matcher
    policy = policy_of(args, env, team)
    if matcher is None and args.demos is not None:
        demos = _runs.demonstrations(args.demos, name)
        matcher = dm2.DistributionMatcher(demos, seed=args.seed)
        practice(dm2.DM2ParallelEnv(env, matcher, coefficient=0.0), policy, args.practice, args.seed + 1)
    episode = play(env, policy, matcher, args.seed)
    env.close()
    shown = args.policy if team is None or args.policy != "team" else f"team after {team.num_timesteps:,} steps"
    folder = Path("runs") if file is None else file.parent
    return draw(episode, env.possible_agents, f"{name}, {shown}", args.out or folder / "watch.gif", args.fps)


def saved(run: Path) -> tuple[dict[str, Any], Path]:
    """The options and the checkpoint of a run: in its folder, or, for a checkpoint, in a folder above it."""
    file = run / "checkpoint.zip" if run.is_dir() else checkpoint.file_of(run)
    if not file.is_file():
        raise SystemExit(f"There is no checkpoint {file}: examples/ippo_sb3.py writes one at its first evaluation.")
    for folder in file.absolute().parents[:3]:
        if (folder / "config.json").is_file():
            config = _runs.read_json(folder / "config.json", dict)
            if {"env", "learner"} <= set(config):
                return config, file
    raise SystemExit(f"There is no config.json of ippo_sb3.py or record_demos.py beside {file}, so its team is unknown.")


def restored(file: Path, learner: ippo_sb3.LearnerArgs, env: Any) -> dm2.sb3.IndependentLearners:
    """The team of a checkpoint, with its discriminators. Nothing is unpickled, so files from others are safe to watch."""
    try:
        state = checkpoint.read(file)
        options = {name: state.facts["options"][name] for name in ("env_coefficient", "mode", "order", "update_every")}
        if (convergence := state.facts["options"]["convergence"]) is not None:
            options["convergence"] = dm2.Convergence(**convergence)
        if (matcher := team_state.matcher_of(state, None, "cpu")) is not None:
            options |= {"matcher": matcher, "coefficient": 0.0}
        team = ippo_sb3.make_team(replace(learner, num_envs=1), dm2.vectorize(lambda: env, 1), seed=0, **options)
    except (ValueError, TypeError) as error:
        raise SystemExit(f"Cannot show {file}: {error}") from None
    ippo_sb3.restore(team, file)
    return team


def policy_of(args: Args, env: Any, team: dm2.sb3.IndependentLearners | None) -> Policy:
    """Who plays."""
    if args.policy == "team":
        torch.manual_seed(args.seed)
        return Team(team, args.greedy)
    if args.policy != "random":
        return _runs.function(args.policy)
    for k, agent in enumerate(env.possible_agents):
        env.action_space(agent).seed(args.seed + k)

    def random(observations: dict[str, Any]) -> dict[str, Any]:
        masks = {a: seen["action_mask"] if isinstance(seen, dict) else None for a, seen in observations.items()}
        return {a: env.action_space(a).sample(None if m is None else m.astype(np.int8)) for a, m in masks.items()}

    return random


class Team:
    """A team's policy of one environment's dicts, which keeps the memory of recurrent policies."""

    def __init__(self, team: dm2.sb3.IndependentLearners, greedy: bool) -> None:
        self.team, self.memory = team, team.policy(deterministic=greedy)

    def start_episode(self) -> None:
        """Forget the episode before."""
        self.memory.start_episode(np.ones(1, bool))

    def __call__(self, observations: dict[str, Any]) -> dict[str, Any]:
        return self.team.predict(observations, policy=self.memory)


def reset(env: Any, policy: Policy, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Begin an episode."""
    if isinstance(policy, Team):
        policy.start_episode()
    return env.reset(seed=seed)


def practice(env: dm2.DM2ParallelEnv, policy: Policy, episodes: int, seed: int) -> None:
    """Train the discriminators to tell the experts from this policy."""
    for episode in range(episodes):
        observations, _ = reset(env, policy, seed + episode)
        while env.agents:
            observations, *_ = env.step(policy(observations))
        env.update()


def play(env: Any, policy: Policy, matcher: Any, seed: int) -> Episode:
    """One episode."""
    episode, total, layout = Episode(), 0.0, Layout(env, flatten_actions=True)
    observations, infos = reset(env, policy, seed)
    episode.frames.append(picture(env))
    while env.agents:
        alive = [a for a in env.agents if infos.get(a, {}).get("alive", True)]
        episode.present.append([a in alive for a in env.possible_agents])
        before, actions = observations, policy(observations)
        observations, rewards, _, _, infos = env.step(actions)
        judged = {} if matcher is None else pay(matcher, layout, alive, before, actions, observations)
        episode.gail.append([judged.get(a, float("nan")) for a in env.possible_agents])
        total += float(np.mean(list(rewards.values()))) if rewards else 0.0
        episode.returns.append(total)
        episode.frames.append(picture(env))
        reports = [info["battle_won"] for info in infos.values() if info.get("battle_won") is not None]
        episode.won = any(reports) if reports else None
    return episode


def pay(matcher: Any, layout: Layout, alive: list[str], before: Any, actions: Any, after: Any) -> dict[str, float]:
    """Each living agent's r_gail for one step, of what the run's discriminators see."""
    seen: dict[str, Any] = {}
    if matcher.needs_actions:
        seen["actions"] = {a: layout.array_action(layout.agents.index(a), actions[a]) for a in alive}
    if matcher.options["inputs"] == "transition":
        seen["after"] = {a: after[a] for a in alive if a in after}
    return matcher.rewards({a: before[a] for a in alive}, **seen)


def picture(env: Any) -> np.ndarray:
    """The environment's picture now [H, W, 3]."""
    frame = env.render()
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise SystemExit(f"render() must return an array [H, W, 3], got {type(frame).__name__}: is render_mode passed on?")
    return frame[..., :3]


def draw(episode: Episode, agents: list[str], title: str, path: Path, fps: int) -> Path:
    """Write the GIF, and the MP4 if there is an ffmpeg."""
    gail = np.array(episode.gail).T  # [K, T]
    steps, judged = gail.shape[1], np.isfinite(gail)
    # The same colors all along: 95 % of the values are within the scale, so that one extreme does not bleach the rest.
    limit = max(float(np.quantile(np.abs(gail[judged]), 0.95)), 1e-6) if judged.any() else 1.0
    height, width = episode.frames[0].shape[:2]
    rows = 0.26 * len(agents) + 0.35  # inches
    figure = plt.figure(figsize=(6, 6 * min(1.0, height / width) + rows + 0.75), dpi=100, facecolor="white")
    inches = figure.get_size_inches()[1]

    def box(left: float, top: float, wide: float, high: float) -> Any:  # in inches, from the top left
        return figure.add_axes((left / 6, 1 - (top + high) / inches, wide / 6, high / inches))

    figure.text(0.15 / 6, 1 - 0.17 / inches, title, ha="left", va="top", fontsize=11, color=INK, weight="bold")
    status = figure.text(0.15 / 6, 1 - 0.40 / inches, "", ha="left", va="top", fontsize=10, color=INK)
    ending = figure.text(5.85 / 6, 1 - 0.40 / inches, "", ha="right", va="top", fontsize=10, color=INK, weight="bold")
    scene = box(0.15, 0.68, 5.7, 6 * min(1.0, height / width) - 0.3)
    scene.axis("off")
    image = scene.imshow(episode.frames[0], interpolation="lanczos")

    strip = box(1.15, inches - rows + 0.2, 4.05, rows - 0.35)
    colors = UNLIKE_TO_LIKE.with_extremes(bad="#ffffff")
    cells = strip.imshow(
        np.full_like(gail, np.nan), cmap=colors, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
    )
    strip.set_yticks(range(len(agents)), agents, fontsize=9, color=INK)
    strip.set_xticks([])
    strip.tick_params(length=0)
    strip.spines[:].set_visible(False)
    strip.hlines(np.arange(len(agents) - 1) + 0.5, -0.5, steps - 0.5, color="white", linewidth=3)
    now = strip.axvline(-0.5, color=INK, linewidth=1)
    numbers = [strip.text(steps - 0.5, k, "", ha="left", va="center", fontsize=9, color=INK) for k in range(len(agents))]
    what = "r_gail over time:" if judged.any() else "no discriminators: give --run or --demos for r_gail"
    y = (rows + 0.02) / inches
    figure.text(0.15 / 6, y, what, fontsize=9, color=INK, va="center")
    if judged.any():
        figure.text(3.2 / 6, y, f"unlike the experts  −{limit:.2g}", fontsize=9, color=INK, va="center", ha="right")
        figure.text(4.25 / 6, y, f"+{limit:.2g}  like the experts", fontsize=9, color=INK, va="center", ha="left")
        bar = figure.add_axes((3.25 / 6, y - 0.05 / inches, 0.95 / 6, 0.1 / inches))
        bar.imshow(np.linspace(0, 1, 256)[None], cmap=UNLIKE_TO_LIKE, aspect="auto")
        bar.axis("off")

    def show(t: int) -> None:
        image.set_data(episode.frames[t])
        past = np.full_like(gail, np.nan)
        past[:, : t + 1] = gail[:, : t + 1]
        cells.set_data(past)
        now.set_xdata([min(t, steps - 1) + 0.5] * 2)
        over = t == steps
        so_far = episode.returns[t - 1] if t else 0.0
        status.set_text(f"step {t} of {steps}    return so far {so_far:.2f}")
        ending.set_text("" if not over or episode.won is None else "won" if episode.won else "lost")
        for k, number in enumerate(numbers):
            alive = episode.present[min(t, steps - 1)][k]
            value = gail[k, min(t, steps - 1)]
            number.set_text("  gone" if not alive else f"  {value:+.2f}" if np.isfinite(value) else "")
            number.set_color(INK if alive else PALE)

    order = [*range(steps + 1), *[steps] * (2 * fps)]  # the last picture stays for two seconds
    film = animation.FuncAnimation(figure, show, frames=order, interval=1000 / fps)
    write(film, animation.PillowWriter(fps=fps), path.with_suffix(".gif"))
    if animation.writers.is_available("ffmpeg"):
        write(film, animation.FFMpegWriter(fps=fps), path.with_suffix(".mp4"))
    plt.close(figure)
    return path.with_suffix(".gif")


def write(film: animation.Animation, writer: Any, path: Path) -> None:
    """Write an animation, whole or not at all."""
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        film.save(partial, writer)
        with replacing(path) as file:
            file.write(partial.read_bytes())
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    print(main(tyro.cli(Args, description=__doc__)))
