"""Independent PPO with and without DM2: one Stable-Baselines3 MaskablePPO per agent, which share nothing.

    python examples/ippo_sb3.py                                  # DM2 on 5m_vs_6m with the demonstrations in the repo
    python examples/ippo_sb3.py --algorithm ippo                 # the same learners without demonstrations
    python examples/ippo_sb3.py --env smax:3s_vs_4z --coefficient 0.1 --demos demos_data/smax_3s_vs_4z_win50.npz

Every run has a folder: config.json, evaluations.csv (one line per evaluation), curve.png, a log per agent (CSV and
TensorBoard), checkpoint.zip and, at the end, final.json (a larger evaluation). Killed and started again with the same
options, it goes on from its checkpoint.
"""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from sb3_contrib import MaskablePPO
from tqdm import tqdm

import dm2_wrappers as dm2

COLUMNS = ["step", "win_rate", "win_rate_se", "return", "return_se", "length", "length_se", "episodes"]


@dataclass
class Args:
    algorithm: Literal["dm2", "ippo"] = "dm2"
    """dm2: distribution matching on top of independent PPO; ippo: independent PPO alone"""
    env: str = "smax:5m_vs_6m"
    """backend:scenario; smax:NAME for any SMAX scenario, smac:NAME for a map of SMAC's"""
    demos: Path | None = None
    """demonstrations (.npz); demos_data/<env>_win30.npz if not given"""
    coefficient: float = 0.3
    """the paper's c: paid is r_env + c * r_gail"""
    env_coefficient: float = 1.0
    """factor on the environment's reward; 0 is GAIL alone"""
    steps: int = 1_000_000
    """environment steps, summed over copies"""
    seed: int = 0
    """seed of learners, environment and discriminators"""
    num_envs: int | None = None
    """battles played at once; 64 of SMAX or 4 of SMAC if not given"""
    n_steps: int | None = None
    """steps of each copy per rollout; 4,096 over all copies if not given"""
    n_epochs: int = 4
    """passes over each rollout"""
    minibatches: int = 4
    """minibatches per pass, if nobody were dead"""
    learning_rate: float = 1e-3
    """Adam's step size of the policies"""
    ent_coef: float = 0.01
    """entropy bonus"""
    activation: Literal["tanh", "relu"] = "relu"
    """activation of actor and critic, each 64-64"""
    max_grad_norm: float = 10.0
    """gradient clipping; SB3's 0.5 lets the critic's large gradients drown the policy's"""
    after_death: Literal["earned", "mean", "critic"] = "earned"
    """what a death is followed by, for its learner: see dm2_wrappers/sb3/buffers.py"""
    updates: int = 30
    """discriminator minibatches per rollout"""
    eval_every: int = 50_000
    """environment steps between two evaluations, rounded up to whole rollouts"""
    eval_episodes: int = 32
    """test episodes per evaluation, with fixed seeds"""
    final_episodes: int = 512
    """test episodes after training, for final.json"""
    greedy_eval: bool = False
    """evaluate the most likely actions instead of sampled ones"""
    run: Path | None = None
    """folder of the run; runs/<algorithm>_<env>_seed<seed> if not given"""
    device: str = "cpu"
    """where the networks live; small ones are fastest on the CPU"""
    bar_position: int = 0
    """line of the progress bar, for several runs in one terminal"""


def main(args: Args) -> Path:
    """Train, evaluate and plot; returns the folder of the run."""
    args.num_envs = args.num_envs or dm2.envs.default_num_envs(args.env)
    args.n_steps = args.n_steps or 4096 // args.num_envs
    name = args.env.replace(":", "_")
    run = args.run or Path("runs") / f"{args.algorithm}_{name}_seed{args.seed}"
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps(asdict(args), indent=1, default=str) + "\n")

    venv = dm2.envs.vector_env(args.env, args.num_envs)
    test_env = dm2.envs.vector_env(args.env, min(32, args.eval_episodes, dm2.envs.default_num_envs(args.env)))
    demos = None
    if args.algorithm == "dm2":
        demos = dm2.Demonstrations.load(args.demos or Path("demos_data") / f"{name}_win30.npz")

    checkpoint = run / "checkpoint.zip"
    if checkpoint.exists():
        team = dm2.sb3.IndependentLearners.load(checkpoint, venv, device=args.device, log_dir=run / "agents")
    else:
        matcher = None
        if demos is not None:
            matcher = dm2.DistributionMatcher(demos, updates=args.updates, seed=args.seed, device=args.device)
        team = dm2.sb3.IndependentLearners(
            MaskablePPO,
            venv,
            matcher=matcher,
            coefficient=None if matcher is None else args.coefficient,
            env_coefficient=args.env_coefficient,
            after_death=args.after_death,
            seed=args.seed,
            log_dir=run / "agents",
            n_steps=args.n_steps,
            batch_size=args.n_steps * args.num_envs // args.minibatches,
            n_epochs=args.n_epochs,
            learning_rate=args.learning_rate,
            ent_coef=args.ent_coef,
            policy_kwargs={"activation_fn": torch.nn.ReLU if args.activation == "relu" else torch.nn.Tanh},
            max_grad_norm=args.max_grad_norm,
            device=args.device,
        )

    curve = run / "evaluations.csv"
    rows = read_curve(curve, up_to=team.num_timesteps) if checkpoint.exists() else []
    bar = tqdm(
        total=args.steps,
        initial=team.num_timesteps,
        desc=args.algorithm,
        unit="step",
        unit_scale=True,
        position=args.bar_position,
    )

    def evaluate() -> None:
        result = team.evaluate(test_env, args.eval_episodes, seed=10_000, deterministic=args.greedy_eval)
        rows.append({"step": team.num_timesteps, **result})
        write_curve(curve, rows)
        bar.set_postfix(win_rate=f"{result.get('win_rate', float('nan')):.2f}", episode_return=f"{result['return']:.1f}")

    if not rows:
        evaluate()
    while team.num_timesteps < args.steps:
        before = team.num_timesteps
        team.learn(min(args.eval_every, args.steps - before), reset_num_timesteps=before == 0)
        bar.update(team.num_timesteps - before)
        evaluate()
        team.save(checkpoint)
    bar.close()
    final = team.evaluate(test_env, args.final_episodes, seed=20_000, deterministic=args.greedy_eval)
    (run / "final.json").write_text(json.dumps({"step": team.num_timesteps, **final}, indent=1) + "\n")
    plot({args.algorithm.upper(): rows}, run / "curve.png", title=args.env, demos=demos)
    return run


def write_curve(path: Path, rows: list[dict[str, float]]) -> None:
    """One line per evaluation."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def read_curve(path: Path, up_to: float = float("inf")) -> list[dict[str, float]]:
    """The evaluations in a CSV, as far as step ``up_to``."""
    with path.open(newline="") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [{**row, "step": int(row["step"])} for row in rows if row["step"] <= up_to]


def plot(curves: dict[str, list[dict[str, float]]], path: Path, *, title: str, demos: dm2.Demonstrations | None) -> None:
    """Win rate (or return, where the environment knows no wins) over steps, with standard errors of the evaluations."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    measure = "win_rate" if all("win_rate" in rows[-1] for rows in curves.values()) else "return"
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]  # told apart by colour-blind readers, too
    for (label, rows), colour in zip(curves.items(), colours, strict=False):
        steps = [row["step"] / 1e6 for row in rows]
        mean = [row[measure] for row in rows]
        low = [row[measure] - row[f"{measure}_se"] for row in rows]
        high = [row[measure] + row[f"{measure}_se"] for row in rows]
        axes.plot(steps, mean, label=label, color=colour, linewidth=2)
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    level = None if demos is None else demos.win_rate if measure == "win_rate" else demos.mean_return
    if level is not None:
        axes.axhline(level, color="#555555", linestyle="--", linewidth=1.2, label=f"demonstrators ({level:.2f})")
    axes.set(title=title, xlabel="environment steps (millions)")
    axes.set_ylabel("battles won" if measure == "win_rate" else "mean return of an episode")
    if measure == "win_rate":
        axes.set_ylim(0, 1)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    torch.set_num_threads(1)  # the networks are small: more threads only get in each other's way
    folder = main(tyro.cli(Args, description=__doc__))
    print(f"\n{folder}/evaluations.csv and {folder}/curve.png")
