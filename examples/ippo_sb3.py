"""Independent PPO with and without DM2: one Stable-Baselines3 learner per agent, which share nothing.

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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from sb3_contrib import MaskablePPO, RecurrentPPO
from tqdm import tqdm

import dm2_wrappers as dm2
from dm2_wrappers.matching.paper import COEFFICIENTS as PAPER_COEFFICIENTS

COLUMNS = ["step", "win_rate", "win_rate_se", "return", "return_se", "length", "length_se", "episodes"]


@dataclass
class LearnerArgs:
    """One agent's PPO; all agents have the same."""

    num_envs: int | None = None
    """battles played at once; 64 of SMAX or 4 of SMAC if not given"""
    n_steps: int | None = None
    """steps of each copy per rollout; 4,096 over all copies if not given"""
    n_epochs: int = 4
    """passes over each rollout"""
    minibatches: int = 4
    """minibatches per pass, if nobody were dead"""
    learning_rate: float = 1e-3
    """Adam's step size"""
    gamma: float = 0.99
    """discount"""
    clip_range: float = 0.2
    """PPO's clipping"""
    ent_coef: float = 0.01
    """entropy bonus"""
    activation: Literal["tanh", "relu"] = "relu"
    """activation of actor and critic, each 64-64"""
    recurrent: bool = False
    """an LSTM of 64 before those layers; sb3-contrib's RecurrentPPO knows no action masks: an illegal action is a stop"""
    max_grad_norm: float = 10.0
    """gradient clipping; SB3's 0.5 lets the critic's large gradients drown the policy's"""
    after_death: Literal["earned", "mean", "critic"] = "earned"
    """what a death is followed by, for its learner: see dm2_wrappers/sb3/buffers.py"""
    device: str = "cpu"
    """where the networks live; small ones are fastest on the CPU"""

    def settled(self, env: str) -> LearnerArgs:
        """The same with numbers for what the environment decides."""
        num_envs = self.num_envs or dm2.envs.default_num_envs(env)
        return replace(self, num_envs=num_envs, n_steps=self.n_steps or 4096 // num_envs)

    @property
    def env_options(self) -> dict[str, str]:
        """What its environments are made with."""
        return {"invalid_action": "noop"} if self.recurrent else {}


@dataclass
class MatcherArgs:
    """The discriminators, one an agent."""

    updates: int = 30
    """minibatches per rollout"""
    batch_size: int = 256
    """transitions of each side in a minibatch"""
    reward: Literal["logit", "-log(1-D)", "log D"] = "logit"
    """what function of the discriminator is paid"""
    center: bool = True
    """pay the reward less its mean over the newest rollout"""
    keep_buffer: bool = True
    """draw the policy's side from the newest 32,768 transitions of an agent; else from the newest rollout alone"""


@dataclass
class Args:
    algorithm: Literal["dm2", "ippo"] = "dm2"
    """dm2: distribution matching on top of independent PPO; ippo: independent PPO alone"""
    env: str = "smax:5m_vs_6m"
    """backend:scenario; smax:NAME for any SMAX scenario, smac:NAME for a map of SMAC's"""
    demos: Path | None = None
    """demonstrations (.npz); demos_data/<env>_win30.npz if not given"""
    coefficient: float | None = None
    """the paper's c: paid is r_env + c * r_gail; if not given, the paper's own for its scenarios, and for others 0.3 that
    falls to 0, a guess from what docs/results.md recommends"""
    anneal: bool = False
    """let c fall linearly to 0 over the run, in steps of one evaluation"""
    unmatched: list[str] = field(default_factory=list)
    """agents that get no r_gail"""
    env_coefficient: float = 1.0
    """factor on the environment's reward; 0 is GAIL alone"""
    steps: int = 1_000_000
    """environment steps, summed over copies"""
    seed: int = 0
    """seed of learners, environment and discriminators"""
    learner: tyro.conf.OmitArgPrefixes[LearnerArgs] = field(default_factory=LearnerArgs)
    matcher: tyro.conf.OmitArgPrefixes[MatcherArgs] = field(default_factory=MatcherArgs)
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
    bar_position: int = 0
    """line of the progress bar, for several runs in one terminal"""


def make_team(args: LearnerArgs, venv, *, seed: int, **options) -> dm2.sb3.IndependentLearners:
    """One MaskablePPO, or RecurrentPPO, per agent."""
    policy_kwargs: dict = {"activation_fn": torch.nn.ReLU if args.activation == "relu" else torch.nn.Tanh}
    if args.recurrent:
        policy_kwargs["lstm_hidden_size"] = 64
    return dm2.sb3.IndependentLearners(
        RecurrentPPO if args.recurrent else MaskablePPO,
        venv,
        policy="MlpLstmPolicy" if args.recurrent else "MlpPolicy",
        seed=seed,
        after_death=args.after_death,
        n_steps=args.n_steps,
        batch_size=args.n_steps * args.num_envs // args.minibatches,
        n_epochs=args.n_epochs,
        learning_rate=args.learning_rate,
        gamma=args.gamma,
        clip_range=args.clip_range,
        ent_coef=args.ent_coef,
        policy_kwargs=policy_kwargs,
        max_grad_norm=args.max_grad_norm,
        device=args.device,
        **options,
    )


def coefficient(args: Args, agents: tuple[str, ...], done: float) -> dict[str, float]:
    """The paper's c of each agent when a share ``done`` of the run is done."""
    c = args.coefficient or 0.0
    c = c * (1 - done) if args.anneal else c
    return {agent: 0.0 if agent in args.unmatched else c for agent in agents}


def main(args: Args) -> Path:
    """Train, evaluate and plot; returns the folder of the run."""
    args.learner = args.learner.settled(args.env)
    if args.algorithm == "dm2" and args.coefficient is None:
        papers = PAPER_COEFFICIENTS.get(args.env.partition(":")[2])
        args.coefficient, args.anneal = (papers, args.anneal) if papers is not None else (0.3, True)
    name = args.env.replace(":", "_")
    run = args.run or Path("runs") / f"{args.algorithm}_{name}_seed{args.seed}"
    begin(run, args, free=("run", "bar_position") if args.anneal else ("steps", "run", "bar_position"))  # c falls over them
    test_envs = min(32, args.eval_episodes, dm2.envs.default_num_envs(args.env))
    options = args.learner.env_options
    with (
        dm2.envs.vector_env(args.env, args.learner.num_envs, **options) as venv,
        dm2.envs.vector_env(args.env, test_envs, **options) as test_env,
    ):
        train(args, run, name, venv, test_env)
    return run


def train(args: Args, run: Path, name: str, venv, test_env) -> None:
    """Train, evaluate and plot into the folder of the run."""
    demos = None
    if args.algorithm == "dm2":
        demos = dm2.Demonstrations.load(args.demos or Path("demos_data") / f"{name}_win30.npz")
        if unknown := set(args.unmatched) - set(venv.possible_agents):
            agents = ", ".join(venv.possible_agents)
            raise SystemExit(f"unmatched has {', '.join(sorted(unknown))}, but the agents of {args.env} are {agents}")

    checkpoint, device = run / "checkpoint.zip", args.learner.device
    if checkpoint.exists():
        team = dm2.sb3.IndependentLearners.load(checkpoint, venv, device=device, log_dir=run / "agents")
    elif demos is None:
        team = make_team(args.learner, venv, seed=args.seed, log_dir=run / "agents")
    else:
        team = make_team(
            args.learner,
            venv,
            seed=args.seed,
            matcher=dm2.DistributionMatcher(demos, seed=args.seed, device=device, **asdict(args.matcher)),
            coefficient=coefficient(args, venv.possible_agents, done=0.0),
            env_coefficient=args.env_coefficient,
            log_dir=run / "agents",
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
        if demos is not None:
            team.coefficient = coefficient(args, team.agents, done=before / args.steps)
        team.learn(min(args.eval_every, args.steps - before), reset_num_timesteps=before == 0)
        bar.update(team.num_timesteps - before)
        evaluate()
        team.save(checkpoint)
        team.restart_episodes()  # as after loading: an interrupted run ends with the same numbers
    bar.close()
    final = team.evaluate(test_env, args.final_episodes, seed=20_000, deterministic=args.greedy_eval)
    plot({args.algorithm.upper(): rows}, run / "curve.png", title=args.env, demos=demos)
    write_json(run / "final.json", {"step": team.num_timesteps, **final})  # last: the run is done


def begin(run: Path, args, free: tuple[str, ...] = ("steps", "run", "bar_position")) -> None:
    """Make the run's folder and write down its options; one that was begun with others is refused.

    Args:
        run: The folder.
        args: A dataclass.
        free: Options that may change when a run is taken up again.
    """
    run.mkdir(parents=True, exist_ok=True)
    path, options = run / "config.json", json.loads(json.dumps(asdict(args), default=str))
    if path.exists() and any(run.glob("checkpoint.*")):
        # An option that is younger than the run had its default then.
        default = _flat(json.loads(json.dumps(asdict(type(args)()), default=str)))
        before, now = default | _flat(json.loads(path.read_text())), _flat(options)
        changed = [key for key in now if key not in free and before[key] != now[key]]
        if changed:
            was, wanted = ({key: each[key] for key in changed} for each in (before, now))
            raise SystemExit(f"{run} holds a run with {was}, not {wanted}: choose another folder with --run, or remove it")
    write_json(path, options)


def _flat(options: dict) -> dict:
    """``{"learner": {"gamma": 0.99}}`` as ``{"learner.gamma": 0.99}``."""
    flat = {}
    for key, value in options.items():
        flat.update(
            {f"{key}.{name}": each for name, each in _flat(value).items()} if isinstance(value, dict) else {key: value}
        )
    return flat


def write_json(path: Path, facts: dict | list) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(facts, indent=1) + "\n")
    temporary.replace(path)


def write_curve(path: Path, rows: list[dict[str, float]]) -> None:
    """One line per evaluation; whoever reads it meanwhile, or kills this process, leaves or finds a whole file."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


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
