"""Independent PPO with and without DM2 on RLlib: one policy per agent, on as many processes or machines as you like.

    python examples/ippo_rllib.py --env-runners 2                # DM2 on 5m_vs_6m, played by two processes
    python examples/ippo_rllib.py --algorithm ippo               # the same learners without demonstrations
    python examples/ippo_rllib.py --env mpe2.simple_spread_v3:parallel_env --demos spread.npz    # or a function of yours
    python examples/ippo_rllib.py --address auto --env-runners 64 --learners 2    # on a Ray cluster that is running

Every run has a folder: config.json, evaluations.csv (one line per evaluation), curve.png, checkpoint.rllib and, at the end,
final.json (a larger evaluation). To continue a run that was stopped, run the same command again: it continues from the
checkpoint. `train` is the same in a page, for an environment and a matcher of your own.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

# For the env runners' processes, which inherit it: a battle is small, so more threads only get in each other's way.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import _runs
import ray
import torch
import tyro
from tqdm import tqdm

import dm2_wrappers as dm2
from dm2_wrappers.matching.paper import COEFFICIENTS as PAPER_COEFFICIENTS


@dataclass
class LearnerArgs:
    """One agent's PPO; all agents have the same."""

    num_envs: int = 16
    """sub-environments of each env runner"""
    batch_size: int = 4096
    """environment steps per rollout, summed over all sub-environments"""
    n_epochs: int = 4
    """passes over each rollout"""
    minibatches: int = 4
    """minibatches per pass"""
    learning_rate: float = 1e-3
    """step size of Adam"""
    gamma: float = 0.99
    """discount"""
    clip_range: float = 0.2
    """PPO's clip range"""
    ent_coef: float = 0.01
    """entropy bonus"""
    activation: Literal["tanh", "relu"] = "relu"
    """activation function of actor and critic, each with two layers of 64"""
    max_grad_norm: float = 10.0
    """gradient clipping"""


@dataclass
class MatcherArgs:
    """The discriminators, one per agent."""

    updates: int = 30
    """minibatches per rollout"""
    batch_size: int = 256
    """transitions per side in a minibatch"""
    reward: Literal["logit", "-log(1-D)", "log D"] = "logit"
    """r_gail as a function of the discriminator D"""
    center: bool = True
    """subtract the mean over the newest rollout from r_gail"""
    keep_buffer: bool = True
    """sample the policy's side from an agent's newest 32,768 transitions, not from the newest rollout alone"""


@dataclass
class Args:
    algorithm: Literal["dm2", "ippo"] = "dm2"
    """dm2: distribution matching on top of independent PPO; ippo: independent PPO alone"""
    env: str = "smax:5m_vs_6m"
    """smax:SCENARIO, smac:MAP, or module:function for a function that makes a PettingZoo ParallelEnv"""
    demos: Path | None = None
    """demonstrations (.npz); default: demos_data/<env>_win30.npz"""
    coefficient: float | None = None
    """the paper's c: agents learn from r_env + c * r_gail; default: the paper's value for its scenarios, and for others 0.3
    that falls to 0 over the run"""
    anneal: bool = False
    """let c fall linearly to 0 over the run"""
    env_coefficient: float = 1.0
    """factor on r_env; 0 is GAIL alone"""
    steps: int = 1_000_000
    """environment steps, summed over sub-environments"""
    seed: int = 0
    """seed of learners, environments and discriminators"""
    env_runners: int = 0
    """processes that play; 0: this process plays"""
    learners: int = 0
    """processes that train; 0: this process trains"""
    address: str | None = None
    """a Ray cluster that is running ("auto" finds it); default: start Ray on this machine"""
    learner: tyro.conf.OmitArgPrefixes[LearnerArgs] = field(default_factory=LearnerArgs)
    matcher: MatcherArgs = field(default_factory=MatcherArgs)
    eval_every: int = 50_000
    """environment steps between two evaluations, rounded up to whole rollouts"""
    eval_episodes: int = 32
    """test episodes per evaluation, with fixed seeds"""
    final_episodes: int = 512
    """test episodes after training, for final.json"""
    greedy_eval: bool = False
    """evaluate with the most likely actions instead of sampled ones"""
    run: Path | None = None
    """folder of the run; default: runs/rllib_<algorithm>_<env>_seed<seed>"""


def make_config(learner: LearnerArgs, env: Any, *, seed: int, matching: dict[str, Any] | None) -> Any:
    """PPO for each agent, with the settings of examples/ippo_sb3.py.

    Args:
        learner: PPO's options.
        env: The name of one of our environments, or a function that makes a ParallelEnv.
        seed: Of everything.
        matching: The arguments of ``distribution_matching``; None is independent PPO alone.
    """
    config = dm2.rllib.IPPOConfig() if matching is None else dm2.rllib.DM2PPOConfig().distribution_matching(**matching)
    return (
        config.environment(env)
        # RLlib drops what env runners play after the time-out; on a busy machine its 60 s are short.
        .env_runners(num_env_runners=0, num_envs_per_env_runner=learner.num_envs, sample_timeout_s=1800)
        .training(
            train_batch_size_per_learner=learner.batch_size,
            minibatch_size=max(1, learner.batch_size // learner.minibatches),
            num_epochs=learner.n_epochs,
            lr=learner.learning_rate,
            gamma=learner.gamma,
            lambda_=0.95,
            clip_param=learner.clip_range,
            entropy_coeff=learner.ent_coef,
            vf_loss_coeff=0.5,
            vf_clip_param=math.inf,
            use_kl_loss=False,
            grad_clip=learner.max_grad_norm,
            grad_clip_by="global_norm",
        )
        .rl_module(
            model_config={
                "fcnet_hiddens": [64, 64],
                "fcnet_activation": learner.activation,
                "fcnet_kernel_initializer": "orthogonal_",
                "fcnet_kernel_initializer_kwargs": {"gain": math.sqrt(2)},
                "head_fcnet_kernel_initializer": "orthogonal_",
                "head_fcnet_kernel_initializer_kwargs": {"gain": 0.01},
                "vf_share_layers": False,
            }
        )
        .debugging(seed=seed, log_level="ERROR")
    )


def train(
    make_env: Callable[[], Any],
    make_matcher: Callable[[], dm2.DistributionMatcher],
    *,
    coefficient: float,
    env_coefficient: float,
    steps: int,
    seed: int,
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Train a team with DM2 in this process; nothing is evaluated or saved.

    Args:
        make_env: Makes a ParallelEnv.
        make_matcher: Makes the DistributionMatcher.
        coefficient: The paper's c.
        env_coefficient: The factor on r_env.
        steps: Environment steps, summed over sub-environments.
        seed: Of everything but the matcher.

    Returns:
        The team's policy, ``{agent: observation} -> {agent: action}``. Its actions are sampled.
    """
    start_ray()
    rollout = max(64, min(4096, steps // 24))
    learner = LearnerArgs(num_envs=8, batch_size=rollout, learning_rate=3e-3)
    matching = {"make_matcher": make_matcher, "coefficient": coefficient, "env_coefficient": env_coefficient}
    algorithm = make_config(learner, make_env, seed=seed, matching=matching).build_algo()
    try:
        while steps_played(algorithm) < steps:
            algorithm.train()
        return dm2.rllib.TeamPolicy(algorithm).predict
    finally:
        algorithm.stop()


def start_ray(address: str | None = None, processes: int = 0) -> None:
    """Start Ray on this machine with a core for each process, even if there are fewer; or join a cluster."""
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {"num_cpus": max(processes, os.cpu_count() or 1), "include_dashboard": False}
    ray.init(address, **options)


def steps_played(algorithm: Any) -> int:
    """Environment steps so far, over all env runners."""
    return int(algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"), default=0))


def save(algorithm: Any, folder: Path) -> None:
    """Write a checkpoint; the one before is there until the new one is whole."""
    partial, whole = folder / "partial", folder / str(steps_played(algorithm))
    shutil.rmtree(partial, ignore_errors=True)
    algorithm.save_to_path(partial.resolve())
    partial.rename(whole)
    for other in folder.iterdir():
        if other != whole:
            shutil.rmtree(other)


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    whole = [path for path in folder.glob("*") if path.name.isdigit()]
    return max(whole, key=lambda path: int(path.name), default=None)


def main(args: Args) -> Path:
    """Train, evaluate and plot; returns the folder of the run."""
    _runs.check_counts(eval_every=args.eval_every, eval_episodes=args.eval_episodes, final_episodes=args.final_episodes)
    if args.algorithm == "dm2" and args.coefficient is None:
        papers = PAPER_COEFFICIENTS.get(args.env.partition(":")[2])
        args.coefficient, args.anneal = (papers, args.anneal) if papers is not None else (0.3, True)
    run = args.run or Path("runs") / f"rllib_{args.algorithm}_{_runs.file_name(args.env)}_seed{args.seed}"
    free = ("run",) if args.anneal else ("run", "steps")
    with _runs.running(run):
        _runs.begin(run, args, free)
        demos = _runs.demonstrations(args.demos, args.env) if args.algorithm == "dm2" else None
        start_ray(args.address, args.env_runners + args.learners)
        with _runs.vector_env(args.env, min(32, args.eval_episodes, _runs.default_num_envs(args.env))) as test_env:
            learn(args, run, demos, test_env)
    return run


def learn(args: Args, run: Path, demos: dm2.Demonstrations | None, test_env: Any) -> None:
    """Train, evaluate and plot into the folder of the run."""
    matching = None
    if demos is not None:
        # Captured one by one, so that the function that Ray pickles for its processes holds nothing else.
        options, seed = asdict(args.matcher), args.seed
        matching = {
            "make_matcher": lambda: dm2.DistributionMatcher(demos, seed=seed, **options),
            "coefficient": args.coefficient,
            "env_coefficient": args.env_coefficient,
        }
    name = args.env
    in_backends = name.partition(":")[0] in dm2.envs.BACKENDS or ":" not in name
    make_env = name if in_backends else _runs.function(name)
    config = make_config(args.learner, make_env, seed=args.seed, matching=matching)
    config.env_runners(num_env_runners=args.env_runners).learners(num_learners=args.learners)
    if args.learners:  # RLlib counts per learner
        config.training(train_batch_size_per_learner=args.learner.batch_size // args.learners)
    algorithm = config.build_algo()
    checkpoints, curve, rows = run / "checkpoint.rllib", run / "evaluations.csv", []
    if checkpoint := newest(checkpoints):
        algorithm.restore_from_path(checkpoint.resolve())
        rows = _runs.read_curve(curve, up_to=steps_played(algorithm))

    bar = tqdm(total=args.steps, initial=steps_played(algorithm), desc=args.algorithm, unit="step", unit_scale=True)

    def evaluate(episodes: int, seed: int) -> dict[str, float]:
        return dm2.evaluate(dm2.rllib.TeamPolicy(algorithm, deterministic=args.greedy_eval), test_env, episodes, seed)

    def add_row() -> None:
        result = evaluate(args.eval_episodes, 10_000)
        rows.append({"step": steps_played(algorithm), **result})
        _runs.write_curve(curve, rows)
        wins = {"win_rate": f"{result['win_rate']:.2f}"} if "win_rate" in result else {}
        bar.set_postfix(**wins, episode_return=f"{result['return']:.1f}")

    try:
        with bar:
            if not rows:
                add_row()
            while (done := steps_played(algorithm)) < args.steps:
                if demos is not None and args.anneal:
                    algorithm.coefficient = args.coefficient * (1 - done / args.steps)
                while steps_played(algorithm) < min(args.steps, done + args.eval_every):
                    algorithm.train()
                    bar.update(steps_played(algorithm) - bar.n)
                add_row()
                save(algorithm, checkpoints)
        final = evaluate(args.final_episodes, 20_000)
        plot(args.algorithm.upper(), rows, run / "curve.png", title=args.env, demos=demos)
        _runs.write_json(run / "final.json", {"step": steps_played(algorithm), **final})  # last: the run is done
    finally:
        algorithm.stop()


def plot(label: str, rows: list[dict[str, float]], path: Path, *, title: str, demos: dm2.Demonstrations | None) -> None:
    """Draw the win rate (or return, where the environment reports no wins) over steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    measure = "win_rate" if all("win_rate" in row for row in rows) else "return"
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    errors = [row[f"{measure}_se"] for row in rows]
    axes.errorbar([row["step"] for row in rows], [row[measure] for row in rows], errors, label=label, capsize=2)
    level = None if demos is None else demos.win_rate if measure == "win_rate" else demos.mean_return
    if level is not None:
        axes.axhline(level, color="#555555", linestyle="--", linewidth=1.2, label=f"experts ({level:.2f})")
    axes.set(title=title, xlabel="environment steps")
    axes.set_ylabel("episodes won" if measure == "win_rate" else "mean return of an episode")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    torch.set_num_threads(1)  # the networks are small: more threads only get in each other's way
    folder = main(tyro.cli(Args, description=__doc__))
    print(f"\n{folder}/evaluations.csv and {folder}/curve.png")
