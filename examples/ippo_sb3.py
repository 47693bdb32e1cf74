"""Independent PPO with and without DM2: one Stable-Baselines3 learner per agent. The learners share nothing.

    python examples/ippo_sb3.py                                  # DM2 on 5m_vs_6m with the demonstrations in the repo
    python examples/ippo_sb3.py --algorithm ippo                 # the same learners without demonstrations
    python examples/ippo_sb3.py --algorithm ippo --pretrain 20   # the same again, but they begin as clones of the experts
    python examples/ippo_sb3.py --env smax:3s_vs_4z --coefficient 0.1 --demos demos_data/smax_3s_vs_4z_win50.npz
    python examples/ippo_sb3.py --coefficient 0.3 --experts all --pretrain 0 --no-standardize    # without clones
    python examples/ippo_sb3.py --env mpe2.simple_spread_v3:parallel_env --demos spread.npz    # or your own function

Every run writes a folder with config.json, evaluations.csv (one line per evaluation), curve.png, a log per agent (CSV and
TensorBoard), checkpoint.zip and, at the end, final.json (a larger evaluation). To continue a run that was stopped, run the
same command again. It continues from the checkpoint, with the same numbers as if it had never stopped. Ctrl-C also saves
the current team to stopped.zip. examples/watch.py makes an animation of a team's episode.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import _profile
import _runs
import torch
import tyro
from _plot import plot
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

import dm2_wrappers as dm2

BEST = 0.3  # the share of the episodes that --experts best keeps if none of them was won
OWN = 300  # how many of its own episodes the team imitates with --experts best+own
CLONING = 20  # passes of behavior cloning, where the demonstrations have actions
COEFFICIENT = 0.0025  # c at the start, for each unit of the experts' return; it falls to 0


@dataclass
class LearnerArgs:
    """Options of PPO, the same for all agents."""

    num_envs: int | None = None
    """number of sub-environments; default: 64 for SMAX, 4 for SMAC, 8 for other environments"""
    n_steps: int | None = None
    """steps of each sub-environment per rollout; default: as many as make 4096 steps in total"""
    n_epochs: int = 4
    """passes over each rollout"""
    minibatches: int = 4
    """minibatches per pass; steps after an agent's death are left out, so there may be fewer"""
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
    recurrent: bool = False
    """put an LSTM of 64 before those layers; RecurrentPPO has no action masks, so an unavailable action becomes a no-op"""
    max_grad_norm: float = 10.0
    """maximum norm of the gradient; with SB3's default of 0.5, the critic's large gradients dominate the clipped gradient"""
    after_death: Literal["earned", "mean", "critic"] = "earned"
    """how rewards after an agent's death are credited; docs/guide.md explains the choices"""
    device: str = "cpu"
    """device of the networks; small networks are fastest on the CPU"""
    workers: int = 0
    """further processes over which the agents are spread; the numbers do not depend on it"""

    def settled(self, env: str) -> LearnerArgs:
        """The same options, with the environment's defaults filled in."""
        counts = {name: getattr(self, name) for name in ("num_envs", "n_steps", "n_epochs", "minibatches")}
        _runs.check_counts(**counts)
        num_envs = self.num_envs or _runs.default_num_envs(env)
        n_steps = self.n_steps or max(1, 4096 // num_envs)
        if self.minibatches > (most := n_steps * num_envs // 2):
            raise SystemExit(f"--minibatches must be at most {most}, half the steps of a rollout, got {self.minibatches}")
        return replace(self, num_envs=num_envs, n_steps=n_steps)

    @property
    def env_options(self) -> dict[str, str]:
        """What its environments are made with."""
        return {"invalid_action": "noop"} if self.recurrent else {}


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
    """train the discriminators on an agent's newest 32,768 transitions instead of the newest rollout only"""
    inputs: Literal["state", "state-action", "transition"] = "state"
    """what a discriminator sees of a step: the observation, or also the action, or also the next observation"""
    standardize: bool = True
    """let the discriminators see features in standard deviations of the experts' observations; not with --experts own,
    where there are no experts"""
    ends: Literal["live", "absorbing"] = "live"
    """live: only live steps are paid; absorbing: also the time from a death or an episode's end to the time limit"""

    def options(self, gamma: float) -> dict:
        """Arguments of the matcher for learners with this discount."""
        return asdict(self) | ({"gamma": gamma} if self.ends == "absorbing" else {})


@dataclass
class Args:
    algorithm: Literal["dm2", "ippo"] = "dm2"
    """dm2: distribution matching on top of independent PPO; ippo: independent PPO alone"""
    env: str = "smax:5m_vs_6m"
    """smax:SCENARIO, smac:MAP, or module:function for a function that makes a PettingZoo ParallelEnv"""
    demos: Path | None = None
    """demonstrations (.npz); default: demos_data/<env>_win30.npz"""
    experts: Literal["all", "won", "best", "own", "all+own", "best+own"] = "best"
    """what the discriminators are shown: all demonstrations, those that were won, the best ones (those that were won or,
    if none was or wins are not reported, the 30 % with the highest return), or the team's own best episodes
    (self-imitation), alone or added to all or to the best demonstrations; with "won", "best" and "best+own", --pretrain
    clones only these demonstrations, too"""
    coefficient: float | None = None
    """the paper's c in r_env + c * r_gail; default: falling to 0 from 1/400 of the experts' mean return, which is 0.05 on
    SMAX and SMAC, where a win returns 20"""
    anneal: bool = False
    """let c fall linearly to 0 over the run; c changes at each evaluation"""
    return_gap: bool = False
    """let c fall to 0 as the team's return nears the mean return of the episodes that the discriminators are shown"""
    gap_target: float | None = None
    """with --return-gap: the return at which c is 0, instead of that mean"""
    order: Literal["simultaneous", "turn"] = "simultaneous"
    """simultaneous: all agents learn from each rollout (Algorithm 1); turn: one agent after the other (Algorithm 2)"""
    pretrain: int | None = None
    """passes of behavior cloning over the demonstrations before training; default: 20 for dm2 if the demonstrations have
    actions, otherwise 0"""
    unmatched: list[str] = field(default_factory=list)
    """names of agents that get no r_gail"""
    env_coefficient: float = 1.0
    """factor on r_env; with 0 the agents learn from r_gail alone"""
    steps: int = 1_000_000
    """environment steps, summed over sub-environments"""
    seed: int = 0
    """seed of learners, environments and discriminators"""
    learner: tyro.conf.OmitArgPrefixes[LearnerArgs] = field(default_factory=LearnerArgs)
    matcher: tyro.conf.OmitArgPrefixes[MatcherArgs] = field(default_factory=MatcherArgs)
    eval_every: int = 50_000
    """environment steps between two evaluations, rounded up to whole rollouts"""
    eval_episodes: int = 32
    """test episodes per evaluation, with fixed seeds"""
    final_episodes: int = 512
    """test episodes after training, for final.json, which also has the results with the most likely actions (greedy_...)"""
    greedy_eval: bool = False
    """evaluate with the most likely actions instead of sampled ones"""
    run: Path | None = None
    """folder of the run; default: runs/<algorithm>_<env>_seed<seed>"""
    bar_position: int = 0
    """line of the progress bar when several runs share a terminal"""
    profile: bool = False
    """print at the end where the run's time went"""


class Rollouts(BaseCallback):
    """Moves the progress bar after each rollout, and ends training when the user pressed Ctrl-C.

    One agent has it: when its training loop ends, all end. A rollout that is under way then is dropped, so all agents
    have learned from the same whole rollouts.
    """

    def __init__(self, bar: tqdm, stop: _runs.Stop) -> None:
        super().__init__()
        self.bar, self.stop = bar, stop

    def _on_rollout_end(self) -> None:
        self.bar.update(self.num_timesteps - self.bar.n)

    def _on_step(self) -> bool:
        return not self.stop.requested


def make_team(args: LearnerArgs, venv, *, seed: int, **options) -> dm2.sb3.IndependentLearners:
    """One MaskablePPO per agent; RecurrentPPO if wanted, PPO for continuous actions."""
    policy_kwargs: dict = {"activation_fn": torch.nn.ReLU if args.activation == "relu" else torch.nn.Tanh}
    if args.recurrent:
        policy_kwargs["lstm_hidden_size"] = 64
    return dm2.sb3.IndependentLearners(
        RecurrentPPO if args.recurrent else MaskablePPO if venv.discrete else PPO,
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
        workers=args.workers,
        **options,
    )


def restore(team: dm2.sb3.IndependentLearners, checkpoint: Path) -> None:
    """Continue from a checkpoint, or end the program if it is damaged or of another team. Nothing is unpickled."""
    try:
        team.restore(checkpoint)
    except ValueError as error:
        raise SystemExit(f"Cannot continue from {checkpoint}: {error}") from None


def learn(team: dm2.sb3.IndependentLearners, steps: int, bar: tqdm, run: Path) -> None:
    """Train for so many environment steps, rounded up to whole rollouts.

    Raises:
        KeyboardInterrupt: The user pressed Ctrl-C. The team as it is then is in stopped.zip; the checkpoint stays as it
            was, so that a run continued from it has the numbers of one that was never stopped.
    """
    with _runs.ctrl_c_waits() as stop:
        team.learn(steps, {team.agents[0]: Rollouts(bar, stop)}, reset_num_timesteps=team.num_timesteps == 0)
    if stop.requested:
        team.save(run / "stopped.zip")
        raise KeyboardInterrupt(f"The team after {team.num_timesteps:,} steps is in {run / 'stopped.zip'}.")


def starting_coefficient(demos: dm2.Demonstrations) -> float:
    """The coefficient at the start, to two digits: in proportion to the return, 0.05 for demonstrations without rewards."""
    return float(f"{COEFFICIENT * (abs(demos.mean_return) or 20.0):.2g}")


def coefficient(args: Args, agents: tuple[str, ...], step: int) -> dict[str, float] | dm2.schedules.Schedule:
    """Each agent's c from a step on, until the next evaluation."""
    c = args.coefficient or 0.0
    c = dm2.schedules.LinearFall(c, steps=args.steps).at(step) if args.anneal else c
    numbers = {agent: 0.0 if agent in args.unmatched else c for agent in agents}
    return dm2.schedules.ReturnGap(numbers, target=args.gap_target) if args.return_gap else numbers


def chosen(demos: dm2.Demonstrations, experts: str) -> dm2.Demonstrations:
    """The experts' episodes that the team learns from."""
    if experts not in ("won", "best", "best+own"):
        return demos
    try:
        return demos.filter(won=True)
    except ValueError as error:
        if experts == "won":
            raise SystemExit(f"--experts won: {error}") from None
        return demos.best(BEST) if demos.rewards.any() else demos


def shown(demos: dm2.Demonstrations, experts: str, venv) -> dm2.Demonstrations | dm2.SelfImitation:
    """What the discriminators are shown."""
    if experts == "own":
        return dm2.SelfImitation(env=venv)
    if experts == "best+own":
        # The newest of those that were won: the discriminators follow the team as it finds better ways to win.
        return dm2.SelfImitation(chosen(demos, experts), episodes=OWN, prefer_newest=True)
    return dm2.SelfImitation(demos) if experts == "all+own" else chosen(demos, experts)


def main(args: Args) -> Path:
    """Train, evaluate and plot; returns the folder of the run."""
    if args.profile and args.learner.workers:
        raise SystemExit("--profile measures this process only: leave --workers out")
    if args.order == "turn" and args.learner.workers:
        raise SystemExit("--order turn trains one agent at a time, which workers do not speed up: leave --workers out")
    if args.anneal and args.return_gap:
        raise SystemExit("--anneal and --return-gap are two ways for c to fall: give one of them")
    if args.gap_target is not None and not args.return_gap:
        raise SystemExit("--gap-target is the return at which --return-gap has c at 0: give both")
    if args.return_gap and args.gap_target is None and args.experts == "own":
        raise SystemExit(
            "--return-gap needs the experts' mean return, which --experts own does not have: use --gap-target or --anneal"
        )
    _runs.check_counts(eval_every=args.eval_every, eval_episodes=args.eval_episodes, final_episodes=args.final_episodes)
    args.learner = args.learner.settled(args.env)
    if args.experts == "own":
        args.matcher = replace(args.matcher, standardize=False)
    run = args.run or Path("runs") / f"{args.algorithm}_{_runs.file_name(args.env)}_seed{args.seed}"
    with _runs.running(run):
        wanted = args.algorithm == "dm2" or args.pretrain
        demos = _runs.demonstrations(args.demos, args.env) if wanted else None
        if args.pretrain is None:
            clones = demos is not None and demos.has_actions and args.experts != "own"
            args.pretrain = CLONING if clones else 0
        if args.return_gap and args.gap_target is None and demos is not None and not demos.rewards.any():
            raise SystemExit(
                "--return-gap needs the experts' mean return, but the demonstrations hold no rewards: use --gap-target "
                "or --anneal"
            )
        if demos is not None and args.algorithm == "dm2" and args.coefficient is None:
            args.coefficient = starting_coefficient(chosen(demos, args.experts))
            args.anneal = not args.return_gap
        free, why = ("steps", "run", "bar_position", "profile", "learner.workers"), ""
        if args.anneal:
            free, why = (
                free[1:],
                f"c falls to 0 over a run's steps, so one of {args.steps} steps is another run from the start",
            )
        _runs.begin(run, args, free, why)
        options = args.learner.env_options
        test_envs = min(32, args.eval_episodes, _runs.default_num_envs(args.env))
        with (
            _runs.vector_env(args.env, args.learner.num_envs, **options) as venv,
            _runs.vector_env(args.env, test_envs, **options) as test_env,
        ):
            train_and_evaluate(args, run, demos, venv, test_env)
    return run


def train_and_evaluate(args: Args, run: Path, demos: dm2.Demonstrations | None, venv, test_env) -> None:
    """Train, evaluate and plot into the folder of the run."""
    if unknown := set(args.unmatched) - set(venv.possible_agents):
        agents = ", ".join(venv.possible_agents)
        raise SystemExit(f"unmatched has {', '.join(sorted(unknown))}, but the agents of {args.env} are {agents}")
    matching = {}
    with _runs.one_sentence(ValueError):
        if demos is not None and args.algorithm == "dm2":
            matching = {
                "matcher": dm2.DistributionMatcher(
                    shown(demos, args.experts, venv),
                    seed=args.seed,
                    device=args.learner.device,
                    **args.matcher.options(args.learner.gamma),
                ),
                "coefficient": coefficient(args, venv.possible_agents, step=0),
                "env_coefficient": args.env_coefficient,
                "order": args.order,
            }
        team = make_team(args.learner, venv, seed=args.seed, log_dir=run / "agents", **matching)
    with contextlib.closing(team), _profile.printed(args.profile, team, venv, test_env):
        train_team(args, run, team, demos, test_env)


def train_team(args: Args, run: Path, team: dm2.sb3.IndependentLearners, demos: dm2.Demonstrations | None, test_env) -> None:
    """Train the team from its checkpoint, if there is one, to the end."""
    checkpoint, curve, rows = run / "checkpoint.zip", run / "evaluations.csv", []
    if checkpoint.exists():
        restore(team, checkpoint)
        rows = _runs.read_curve(curve, up_to=team.num_timesteps)
    elif demos is not None and args.pretrain:
        own = chosen(demos, args.experts)
        with _runs.one_sentence(ValueError):
            cloned = dm2.sb3.pretrain(team, own, epochs=args.pretrain, seed=args.seed, progress_bar=True)
        _runs.write_json(run / "pretrain.json", cloned)

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
        _runs.write_curve(curve, rows)
        wins = {"win_rate": f"{result['win_rate']:.2f}"} if "win_rate" in result else {}
        bar.set_postfix(**wins, episode_return=f"{result['return']:.1f}")

    with bar:
        if not rows:
            evaluate()
        while team.num_timesteps < args.steps:
            before = team.num_timesteps
            if team.matcher is not None and args.anneal:
                team.coefficient = coefficient(args, team.agents, step=before)
            learn(team, min(args.eval_every, args.steps - before), bar, run)
            evaluate()
            team.save(checkpoint)
            team.restart_episodes()  # as `restore` does: an interrupted run ends with the same numbers
    final, greedy = (
        team.evaluate(test_env, args.final_episodes, seed=20_000, deterministic=deterministic)
        for deterministic in (args.greedy_eval, True)
    )
    final |= {f"greedy_{name}": value for name, value in greedy.items() if name != "episodes"}
    plot({args.algorithm.upper(): rows}, run / "curve.png", title=args.env, demos=demos, logs=run / "agents")
    _runs.write_json(run / "final.json", {"step": team.num_timesteps, **final})  # last: the run is done
    (run / "stopped.zip").unlink(missing_ok=True)


def train(make_env, make_matcher, *, coefficient, env_coefficient, steps, seed):
    """The learner alone, for ``python -m dm2_wrappers.testing learner examples/ippo_sb3.py``.

    Args:
        make_env: Makes a ParallelEnv.
        make_matcher: Makes the DistributionMatcher; called once.
        coefficient: The paper's c.
        env_coefficient: Factor on r_env.
        steps: Environment steps, summed over sub-environments.
        seed: Seed of learners and environments.

    Returns:
        The policy ``{agent: observation} -> {agent: action}``. Its attribute ``matcher_state`` saves the team, loads it and
        returns the state of the matcher that came back.
    """
    learner = LearnerArgs(num_envs=16, n_steps=30, learning_rate=3e-3, gamma=0.9)
    venv = dm2.vectorize(make_env, learner.num_envs)
    matching = {"matcher": make_matcher(), "coefficient": coefficient, "env_coefficient": env_coefficient}
    team = make_team(learner, venv, seed=seed, **matching)
    team.learn(steps)

    def policy(observations):
        return team.predict(observations)

    def matcher_state():
        with tempfile.TemporaryDirectory() as folder:
            team.save(Path(folder) / "team.zip")
            return dm2.sb3.IndependentLearners.load(Path(folder) / "team.zip", venv).matcher.state_dict()

    policy.matcher_state = matcher_state
    return policy


if __name__ == "__main__":
    torch.set_num_threads(1)  # the networks are small: more threads only get in each other's way
    folder = main(tyro.cli(Args, description=__doc__))
    print(f"\n{folder}/evaluations.csv and {folder}/curve.png")
