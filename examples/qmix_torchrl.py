"""QMIX from TorchRL on the batched environments: the baseline with centralized training that DM2 is compared with.

    python examples/qmix_torchrl.py                                  # 5m_vs_6m
    python examples/qmix_torchrl.py --extra-layer                    # the agents' network of the paper's Figure 5
    python examples/qmix_torchrl.py --env smax:3s_vs_4z --n-steps 3 --record 1000    # and record demonstrations

All agents share one network, whose input is the observation and a one-hot agent number. TorchRL's `QMixer` mixes their Q
values with weights that depend on the global state. Training is double Q-learning from replayed joint steps, with
epsilon-greedy actions. The paper's agents are recurrent (a layer of 64 and a GRU of 64; with the extra layer, two layers
before the GRU). Here a layer of 64 replaces the GRU. Single joint steps can then be replayed, which is fast enough on two
cores. Needs the extras smax, sb3, torchrl and examples.

A run's folder is like that of ippo_sb3.py: config.json, evaluations.csv, curve.png, checkpoint.pt, final.json. To continue
a run that was stopped, run the same command again. It ends with the same numbers as if it had never stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import _runs
import numpy as np
import torch
import tyro
from _plot import plot
from record_demos import closeness
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl import logger
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.modules import MultiAgentMLP, QMixer
from torchrl.objectives import SoftUpdate, ValueEstimators
from torchrl.objectives.multiagent import QMixerLoss
from tqdm import tqdm

import dm2_wrappers as dm2
from dm2_wrappers._files import replacing
from dm2_wrappers.episodes import team_rewards
from dm2_wrappers.evaluation import evaluate
from dm2_wrappers.rng_state import derive_seed
from dm2_wrappers.vector import MultiAgentVectorEnv


@dataclass
class Args:
    env: str = "smax:5m_vs_6m"
    """smax:SCENARIO, smac:MAP, or module:function for a function that makes a PettingZoo ParallelEnv"""
    steps: int = 1_000_000
    """environment steps, summed over sub-environments"""
    seed: int = 0
    """seed of networks, environments and exploration"""
    num_envs: int | None = None
    """number of sub-environments; default: 64 for SMAX, 4 for SMAC, 8 for other environments"""
    extra_layer: bool = False
    """add a fully connected layer to the agents' network"""
    hidden: int = 64
    """width of the layers of the agents' network"""
    share_params: bool = True
    """share one network among all agents"""
    mixing_embed: int = 32
    """width of the mixing network"""
    update_every: int = 32
    """environment steps, summed over sub-environments, per gradient step"""
    batch_size: int = 512
    """joint steps in a minibatch"""
    buffer_size: int = 100_000
    """size of the replay buffer, in joint steps"""
    learning_starts: int = 5_000
    """environment steps before the first gradient step"""
    learning_rate: float = 5e-4
    """step size of Adam"""
    gamma: float = 0.99
    """discount"""
    n_steps: int = 1
    """n of n-step returns; 1 in the QMIX paper. With one seed each, 3 was much faster on 3s_vs_4z but lost on 5m_vs_6m"""
    tau: float = 0.005
    """how far the target networks move toward the networks at each gradient step"""
    max_grad_norm: float = 10.0
    """maximum norm of the gradient"""
    epsilon_end: float = 0.05
    """final epsilon; it starts at 1"""
    epsilon_steps: int = 50_000
    """environment steps over which epsilon falls linearly"""
    eval_every: int = 50_000
    """environment steps between two evaluations and checkpoints, rounded up to whole joint steps"""
    eval_episodes: int = 32
    """test episodes of the greedy policy per evaluation, with fixed seeds"""
    final_episodes: int = 512
    """test episodes after training, for final.json"""
    record: int = 0
    """episodes of the greedy policy to record after training and at each level; 0 records none"""
    record_path: Path | None = None
    """file of the recorded episodes; default: demos.npz in the run's folder"""
    levels: list[float] = field(default_factory=list)
    """win rates at which to record during training, in files named after them; set eval_every small enough to meet them"""
    only_levels: bool = False
    """stop when all levels are recorded, and do not record the last team"""
    run: Path | None = None
    """folder of the run; default: runs/qmix_<env>_seed<seed>"""
    device: str = "cpu"
    """device of the networks; small networks are fastest on the CPU"""
    bar_position: int = 0
    """line of the progress bar when several runs share a terminal"""


class AgentNetwork(nn.Module):
    """Q values [..., K, A] of observations [..., K, D]."""

    def __init__(self, size: int, num_actions: int, num_agents: int, args: Args) -> None:
        super().__init__()
        self.num_agents = num_agents
        self.layers = MultiAgentMLP(
            size + num_agents,
            num_actions,
            num_agents,
            centralized=False,
            share_params=args.share_params,
            depth=3 if args.extra_layer else 2,
            num_cells=args.hidden,
            activation_class=nn.ReLU,
            device=args.device,
        )

    def forward(self, observations: Tensor) -> Tensor:
        number = torch.eye(self.num_agents, device=observations.device).expand(*observations.shape[:-1], -1)
        return self.layers(torch.cat([observations, number], dim=-1))


class QMIX:
    """Networks, replay buffer and training step. K agents, D features, A actions, S numbers in a state."""

    def __init__(self, venv: MultiAgentVectorEnv, state_size: int, args: Args) -> None:
        if not venv.discrete:
            raise ValueError(f"QMIX needs discrete actions, but those of {args.env} are continuous")
        self.args = args
        num_actions = max(int(space.n) for space in venv.action_spaces.values())
        self.network = AgentNetwork(max(venv.observation_sizes), num_actions, venv.num_agents, args)
        values = TensorDictModule(self.network, [("agents", "observation")], [("agents", "action_value")])
        # In QMixerLoss the target network chooses the next actions. Here the value is always that of the action in the
        # batch, and `learn` writes the online network's choice there: double Q-learning.
        chosen = TensorDictModule(
            lambda value, action: value.gather(-1, action[..., None]),
            [("agents", "action_value"), ("agents", "action")],
            [("agents", "chosen_action_value")],
        )
        mixer = TensorDictModule(
            QMixer((state_size,), args.mixing_embed, venv.num_agents, args.device),
            [("agents", "chosen_action_value"), "state"],
            ["chosen_action_value"],
        )
        self.loss = QMixerLoss(
            TensorDictSequential(values, chosen), mixer, delay_value=True, loss_function="l2", action_space="categorical"
        )
        self.loss.make_value_estimator(ValueEstimators.TD0, gamma=args.gamma)
        self.targets = SoftUpdate(self.loss, tau=args.tau)
        self.optimizer = torch.optim.Adam(self.loss.parameters(), lr=args.learning_rate)
        self.buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(args.buffer_size), batch_size=args.batch_size)
        self.state_scale: tuple[Tensor, Tensor] | None = None  # mean and standard deviation [S] of states

    @torch.no_grad()
    def act(self, observations: Any, masks: Any) -> Tensor:
        """The best available actions [..., K]."""
        values = self.network(torch.as_tensor(observations, device=self.args.device))
        return values.masked_fill(~torch.as_tensor(masks, device=self.args.device), -torch.inf).argmax(dim=-1)

    def learn(self) -> float:
        """One gradient step on replayed joint steps; the loss."""
        if self.state_scale is None:  # SMAX's state is in units of the map: too large for a layer
            states = self.buffer[:]["state"]
            self.state_scale = states.mean(0).to(self.args.device), states.std(0).clamp(min=1e-3).to(self.args.device)
        batch = self.buffer.sample().to(self.args.device)
        mean, deviation = self.state_scale
        for step in (batch, batch["next"]):
            step["state"] = ((step["state"] - mean) / deviation).clamp(-5, 5)
        following = batch["next", "agents"]
        following["action"] = self.act(following["observation"], following["action_mask"])
        loss = self.loss(batch)["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.loss.parameters(), self.args.max_grad_norm)
        self.optimizer.step()
        self.targets.step()
        return float(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        return {
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "buffer": self.buffer.state_dict(),
            "state_scale": self.state_scale,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.buffer.load_state_dict(state["buffer"])
        self.state_scale = state["state_scale"]


class Policy:
    """``policy(observations [N, K, D], infos) -> actions [N, K]``, for evaluation and ``Demonstrations.record``."""

    def __init__(self, qmix: QMIX) -> None:
        self.qmix = qmix

    def __call__(self, observations: np.ndarray, infos: dict[str, Any]) -> np.ndarray:
        return self.qmix.act(observations, infos["action_mask"]).cpu().numpy()

    def start_episode(self, started: np.ndarray) -> None:
        """The networks have no memory."""


def explore(greedy: np.ndarray, masks: np.ndarray, epsilon: float, rng: np.random.Generator) -> np.ndarray:
    """Each agent's greedy action, or with probability ``epsilon`` a random available one [N, K]."""
    at_random = np.argmax(rng.random(masks.shape) * masks, axis=-1)
    return np.where(rng.random(greedy.shape) < epsilon, at_random, greedy)


def transitions(observations: np.ndarray, infos: dict[str, Any], actions: np.ndarray, result: tuple) -> TensorDict:
    """A joint step of all sub-environments as TorchRL's losses expect it [N].

    "next" is what followed the action, never the next episode's start. A time limit is not a termination. Steps of
    episodes that the simulator broke are marked, and left out later.
    """
    _, rewards, terminations, truncations, after = result
    done = (terminations | truncations).all(axis=1)
    # Where the environment does not say which actions are available after a time limit, use those of the step before.
    last_mask = np.where(done[:, None, None], infos["action_mask"], after["action_mask"])
    step = {
        "agents": {"observation": observations, "action": actions, "action_mask": infos["action_mask"]},
        "state": global_state(observations, infos),
        "next": {
            "agents": {"observation": after["final_obs"], "action_mask": after.get("final_action_mask", last_mask)},
            "state": after["final_state"] if "final_state" in after else global_state(after["final_obs"], {}),
            "reward": team_rewards(rewards, infos.get("present", np.ones(rewards.shape, bool)))[:, None],
            "done": done[:, None],
            "terminated": (done & ~truncations.any(axis=1))[:, None],
        },
        "steps_to_next_obs": np.ones((len(done), 1), np.int64),
        "broken": after["broken"],
    }
    return TensorDict(step, batch_size=len(done))


def look_ahead(window: Sequence[TensorDict], gamma: float) -> TensorDict:
    """The first of several joint steps, with the rewards of all of them up to its episode's end [N].

    TorchRL's `MultiStep` keeps "terminated" as it was after the first step, which would add values after the end.
    """
    *earlier, result = window
    for step in reversed(earlier):
        done = step["next", "done"][:, 0]
        result = torch.where(done, step, continued(step, result, gamma))
    return result[~result["broken"]]


def continued(step: TensorDict, later: TensorDict, gamma: float) -> TensorDict:
    """``step`` extended by ``later``, which begins where ``step`` ends."""
    joined = step.copy()
    joined["next"] = later["next"].copy()
    joined["next", "reward"] = step["next", "reward"] + gamma * later["next", "reward"]
    joined["steps_to_next_obs"] = 1 + later["steps_to_next_obs"]
    joined["broken"] = later["broken"]
    return joined


def gradient_steps(before: int, after: int, every: int) -> int:
    """How many gradient steps are due from one environment step to another, with one for each ``every`` steps."""
    return after // every - before // every


def global_state(observations: np.ndarray, infos: dict[str, Any]) -> np.ndarray:
    """What the mixer sees [N, S]: the environment's state, or all observations if it has no state."""
    return infos["state"] if "state" in infos else observations.reshape(len(observations), -1)


def main(args: Args) -> Path:
    """Train, evaluate and plot; returns the folder of the run."""
    counts = (
        "num_envs",
        "eval_every",
        "eval_episodes",
        "final_episodes",
        "batch_size",
        "n_steps",
        "update_every",
        "buffer_size",
    )
    _runs.check_counts(**{name: getattr(args, name) for name in counts})
    args.num_envs = args.num_envs or _runs.default_num_envs(args.env)
    run = args.run or Path("runs") / f"qmix_{_runs.file_name(args.env)}_seed{args.seed}"
    if args.only_levels and not (args.levels and args.record):
        raise SystemExit("--only-levels stops when all levels are recorded: give --levels, and --record EPISODES")
    with _runs.running(run):
        _runs.begin(run, args, free=("steps", "run", "bar_position", "levels", "only_levels"))
        test_envs = min(32, args.eval_episodes, _runs.default_num_envs(args.env))
        with _runs.vector_env(args.env, args.num_envs) as venv, _runs.vector_env(args.env, test_envs) as test_env:
            train(args, run, venv, test_env)
    return run


def train(args: Args, run: Path, venv: MultiAgentVectorEnv, test_env: MultiAgentVectorEnv) -> None:
    """Train, evaluate and plot into the folder of the run."""
    logger.setLevel("WARNING")  # TorchRL would write about its storage into the progress bar
    torch.manual_seed(derive_seed(args.seed, "networks"))
    observations, infos = venv.reset(seed=0)
    qmix = QMIX(venv, global_state(observations, infos).shape[1], args)
    policy = Policy(qmix)
    step, levels, curve, checkpoint = 0, sorted(args.levels), run / "evaluations.csv", run / "checkpoint.pt"
    rows = []
    if checkpoint.exists():
        saved = load(checkpoint, qmix)
        step, levels = saved["step"], [level for level in levels if level not in saved["passed"]]
        rows = _runs.read_curve(curve, up_to=step)
    bar = tqdm(total=args.steps, initial=step, desc="qmix", unit="step", unit_scale=True, position=args.bar_position)
    record_path = args.record_path or run / "demos.npz"

    def record() -> dm2.Demonstrations:
        folders = ("run", "record_path")  # where this machine keeps its files
        settings = {key: str(value) for key, value in asdict(args).items() if key not in folders}
        provenance = {"algorithm": "QMIX (TorchRL), greedy", "train_steps": step, "settings": settings}
        return dm2.Demonstrations.record(test_env, policy, args.record, seed=args.seed + 1000, provenance=provenance)

    def test() -> None:
        result = evaluate(policy, test_env, args.eval_episodes, seed=10_000)
        rows.append({"step": step, **result})
        _runs.write_curve(curve, rows)
        rate = result.get("win_rate", float("nan"))
        bar.set_postfix(win_rate=f"{rate:.2f}", episode_return=f"{result['return']:.1f}")
        if args.record and levels and rate >= levels[0] - closeness(levels[0]):
            record_level()

    def record_level() -> None:
        demos = record()
        # A small evaluation may be lucky: the recorded episodes' own win rate decides.
        won = demos.win_rate or 0.0
        if passed := [level for level in levels if won >= level - closeness(level)]:
            level = min(passed, key=lambda level: abs(level - won))
            named = level if abs(won - level) <= closeness(level) else won
            path = record_path.with_name(f"{record_path.stem}_win{round(100 * named):02d}.npz")
            demos.save(path)
            tqdm.write(f"{path}: {len(demos)} episodes, win rate {won:.3f}, {step:,} steps of training")
            del levels[: len(passed)]

    with bar:
        if not rows:
            test()
        while step < args.steps and (levels or not args.only_levels):
            # All randomness until the next checkpoint follows from seed and step, so that a continued run is the same.
            torch.manual_seed(derive_seed(args.seed, "replay", str(step)))
            rng = np.random.default_rng(derive_seed(args.seed, "exploration", str(step)))
            observations, infos = venv.reset(seed=derive_seed(args.seed, "environment", str(step)))
            window: deque[TensorDict] = deque(maxlen=args.n_steps)
            for _ in range(-(-min(args.eval_every, args.steps - step) // args.num_envs)):
                epsilon = max(args.epsilon_end, 1 - (1 - args.epsilon_end) * step / args.epsilon_steps)
                actions = explore(policy(observations, infos), infos["action_mask"], epsilon, rng)
                result = venv.step(actions)
                window.append(transitions(observations, infos, actions, result))
                if len(window) == args.n_steps:
                    qmix.buffer.extend(look_ahead(window, args.gamma))
                observations, infos = result[0], result[-1]
                due = gradient_steps(step, step + args.num_envs, args.update_every)
                step += args.num_envs
                bar.update(args.num_envs)
                for _ in range(due if step >= args.learning_starts and len(qmix.buffer) else 0):
                    qmix.learn()
            test()
            passed = [level for level in args.levels if level not in levels]
            save(checkpoint, {"qmix": qmix.state_dict(), "step": step, "passed": passed})
    final = evaluate(policy, test_env, args.final_episodes, seed=20_000)
    plot({"QMIX": rows}, run / "curve.png", title=args.env, demos=None)
    if levels:
        print(f"ended at {step:,} steps, below the levels {levels}")
    if args.record and not args.only_levels:
        demos = record()
        demos.save(record_path)
        print(f"{record_path}: {len(demos)} episodes, win rate {demos.win_rate}")
    _runs.write_json(run / "final.json", {"step": step, **final})  # last: the run is done


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint: whole or not at all."""
    with replacing(path) as file:
        torch.save(state, file)


def load(path: Path, qmix: QMIX) -> dict[str, Any]:
    """Give the networks and the buffer what a checkpoint holds; the rest of it is returned. Nothing is unpickled."""
    try:
        saved = torch.load(path, weights_only=True, map_location=qmix.args.device)
        qmix.load_state_dict(saved["qmix"])
        return {"step": int(saved["step"]), "passed": list(saved["passed"])}
    except Exception as error:  # what torch raises depends on the damage
        raise SystemExit(f"Cannot continue from {path}, which is damaged: restore it, or remove {path.parent}.") from error


if __name__ == "__main__":
    torch.set_num_threads(1)  # the networks are small: more threads only get in each other's way
    folder = main(tyro.cli(Args, description=__doc__))
    print(f"\n{folder}/evaluations.csv and {folder}/curve.png")
