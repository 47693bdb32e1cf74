"""What do the discriminators pay for on SMAX: winning, or staying alive? Measured early in training.

Run it with ``python -m experiments.what_is_paid``; it takes about two minutes per file.

For each file of demonstrations a team learns for a short time with DM2 and c = 0.01, and then plays test episodes. The
program prints how the experts' lost battles ended, and with what an agent's r_gail goes together in the team's episodes.
With ``--clones`` the team begins as clones of the won episodes, which alone are shown, in standard deviations.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sb3_contrib import MaskablePPO

import dm2_wrappers as dm2
from experiments.other_algorithms import CLONING
from experiments.plan import ROOT

FILES = ("smax_3m_win30.npz", "smax_5m_vs_6m_win30.npz", "smax_3s_vs_4z_win30.npz", "smax_3s_vs_5z_win30_won.npz")
SOON = 5  # steps
_HEADINGS = (
    "experts",
    "won",
    "lost at the time limit",
    "episode's r_gail and return",
    "episode's r_gail and length",
    "r_gail if damage follows",
    "if none does",
)


@dataclass(frozen=True)
class Paid:
    """With what r_gail goes together.

    Attributes:
        with_return: Correlation of an episode's sum of r_gail (the mean over agents) with its return.
        with_length: The same with its number of steps.
        fighting: Mean r_gail of live agents where the environment pays within the next `SOON` steps.
        waiting: The same where it does not.
    """

    with_return: float
    with_length: float
    fighting: float
    waiting: float


def paid(episodes: dm2.Demonstrations, gail_rewards: np.ndarray) -> Paid:
    """Measure it.

    Args:
        episodes: Concurrent episodes of T joint steps.
        gail_rewards: r_gail of each step and agent, [T, K]; 0 for dead agents.
    """
    offsets, alive = episodes.offsets[0], episodes.alive
    starts, lengths = offsets[:-1], np.diff(offsets)
    team = episodes.rewards.mean(axis=1, dtype=np.float64)
    soon = np.zeros(len(team))
    for start, end in zip(starts, offsets[1:], strict=True):
        soon[start:end] = np.convolve(team[start:end], np.ones(SOON))[SOON - 1 :]
    fights = (soon > 0)[:, None] & alive
    sums, returns = (np.add.reduceat(each, starts) for each in (gail_rewards.mean(axis=1, dtype=np.float64), team))
    return Paid(
        with_return=float(np.corrcoef(sums, returns)[0, 1]),
        with_length=float(np.corrcoef(sums, lengths)[0, 1]),
        fighting=float(gail_rewards[fights].mean()),
        waiting=float(gail_rewards[alive & ~fights].mean()),
    )


def measured(demos: dm2.Demonstrations, *, clones: bool, steps: int, episodes: int, seed: int) -> Paid:
    """Train a team for a short time, and let it play."""
    assert demos.env_id is not None
    scenario = demos.env_id.partition(":")[2]
    shown = demos.filter(won=True) if clones else demos
    matcher = dm2.DistributionMatcher(shown, standardize=clones, seed=seed)
    team = dm2.sb3.IndependentLearners(
        MaskablePPO,
        dm2.envs.smax.vector_env(scenario, num_envs=64),
        matcher=matcher,
        coefficient=0.01,
        seed=seed,
        n_steps=64,
        batch_size=1024,
        n_epochs=4,
        learning_rate=1e-3,
        ent_coef=0.01,
        max_grad_norm=10.0,
        policy_kwargs={"activation_fn": torch.nn.ReLU},
    )
    if clones:
        dm2.sb3.pretrain(team, shown, epochs=CLONING, seed=seed)
    team.learn(steps)
    own = dm2.Demonstrations.record(dm2.envs.smax.vector_env(scenario, 32), team.policy(), episodes, seed=seed)
    return paid(own, matcher.rewards(own.padded_observations, own.alive))


def lost_at_limit(demos: dm2.Demonstrations) -> float:
    """The share of all battles that were lost because the time was over."""
    lengths = np.diff(demos.offsets[0])
    limit = dm2.envs.smax.parallel_env(str(demos.env_id).partition(":")[2]).max_steps
    return float(((demos.won[0] == 0) & (lengths >= limit)).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one row per file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    files = [ROOT / "demos_data" / name for name in FILES]
    what = "demonstrations on SMAX (default: four of demos_data)"
    parser.add_argument("files", type=Path, nargs="*", default=files, help=what)
    parser.add_argument("--clones", action="store_true", help="begin with clones, as the default setting does")
    parser.add_argument("--steps", type=int, default=53_248, help="of training (default: 53248)")
    parser.add_argument("--episodes", type=int, default=256, help="that the team plays (default: 256)")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default: 0)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| " + " | ".join(_HEADINGS) + " |\n|" + "---|" * len(_HEADINGS))
    for path in options.files:
        demos = dm2.Demonstrations.load(path)
        how = {"steps": options.steps, "episodes": options.episodes, "seed": options.seed}
        found = measured(demos, clones=options.clones, **how)
        numbers = (demos.win_rate, lost_at_limit(demos), found.with_return, found.with_length, found.fighting, found.waiting)
        print(f"| {path.stem} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |", flush=True)


if __name__ == "__main__":
    main()
