"""QMIX from TorchRL on the batched environments: centralised training, the baseline that DM2 is measured against.

    python examples/qmix_torchrl.py                                  # 5m_vs_6m
    python examples/qmix_torchrl.py --extra-layer                    # the agents' network of the paper's Figure 5
    python examples/qmix_torchrl.py --env smax:3s_vs_4z --n-steps 3 --record 1000    # and record demonstrations

One network for all agents, told apart by a one-hot number appended to the observation; TorchRL's `QMixer` of the global
state; double Q-learning from replayed joint steps under epsilon-greedy play. The paper's agents are recurrent (a layer of
64 and a GRU of 64; with the extra layer, two layers before the GRU). Here a layer of 64 stands for the GRU: joint steps
can then be replayed singly, which is what two cores can do. Needs the extras smax, sb3, torchrl and examples.

A run's folder is like that of ippo_sb3.py: config.json, evaluations.csv, curve.png, checkpoint.pt, final.json. The
environment, the random streams and thus everything after a checkpoint depend only on it and on the seed: a run that was
killed and started again with the same options goes on from its checkpoint as if nothing had happened.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from ippo_sb3 import begin, plot, read_curve, write_curve, write_json
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
from dm2_wrappers.evaluation import evaluate
from dm2_wrappers.rng_state import derive_seed
from dm2_wrappers.vector import MultiAgentVectorEnv


@dataclass
class Args:
    env: str = "smax:5m_vs_6m"
    """backend:scenario; smax:NAME for any SMAX scenario, smac:NAME for a map of SMAC's"""
    steps: int = 1_000_000
    """environment steps, summed over copies"""
    seed: int = 0
    """seed of networks, environment and exploration"""
    num_envs: int | None = None
    """battles played at once; 64 of SMAX or 4 of SMAC if not given"""
    extra_layer: bool = False
    """one more fully connected layer in the agents' network"""
    hidden: int = 64
    """width of its layers"""
    share_params: bool = True
    """one network for all agents; else one each"""
    mixing_embed: int = 32
    """width of the mixing network"""
    updates: int = 2
    """gradient steps after each joint step of all copies"""
    batch_size: int = 512
    """joint steps in each"""
    buffer_size: int = 100_000
    """newest joint steps kept"""
    learning_starts: int = 5_000
    """environment steps before the first gradient step"""
    learning_rate: float = 5e-4
    """Adam's step size"""
    gamma: float = 0.99
    """discount"""
    n_steps: int = 1
    """rewards of so many joint steps before the target network's value; the QMIX paper has 1. One seed each: 3 learned
    3s_vs_4z much faster, but never left the losing rush that 1 left on 5m_vs_6m"""
    tau: float = 0.005
    """share of the networks that goes into the target networks at each gradient step"""
    max_grad_norm: float = 10.0
    """gradient clipping"""
    epsilon_end: float = 0.05
    """exploration at the end; at the start it is 1"""
    epsilon_steps: int = 50_000
    """environment steps on which it falls, in a straight line"""
    eval_every: int = 50_000
    """environment steps between two evaluations and checkpoints, rounded up to whole joint steps"""
    eval_episodes: int = 32
    """test episodes of the greedy policy per evaluation, with fixed seeds"""
    final_episodes: int = 512
    """test episodes after training, for final.json"""
    record: int = 0
    """demonstrations: so many episodes of the greedy policy after training, and at each of the levels"""
    record_path: Path | None = None
    """their file; demos.npz in the run's folder if not given"""
    levels: list[float] = field(default_factory=list)
    """win rates at which to record on the way, too, in files named after them; evaluate often enough to meet them"""
    only_levels: bool = False
    """end as soon as all levels are recorded, without recording the last team"""
    run: Path | None = None
    """folder of the run; runs/qmix_<env>_seed<seed> if not given"""
    device: str = "cpu"
    """where the networks live; small ones are fastest on the CPU"""
    bar_position: int = 0
    """line of the progress bar, for several runs in one terminal"""


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
    """Networks, replay buffer and training step. N copies, K agents, D features, A actions, S numbers in a state."""

    def __init__(self, venv: MultiAgentVectorEnv, state_size: int, args: Args) -> None:
        if not venv.discrete:
            raise ValueError(f"QMIX needs discrete actions, but those of {args.env} are continuous")
        if args.n_steps < 1:
            raise ValueError(f"n_steps must be at least 1, got {args.n_steps}")
        self.args = args
        num_actions = max(int(space.n) for space in venv.action_spaces.values())
        self.network = AgentNetwork(max(venv.observation_sizes), num_actions, venv.num_agents, args)
        values = TensorDictModule(self.network, [("agents", "observation")], [("agents", "action_value")])
        # QMixerLoss lets the target network choose the next actions that it values. Here a value is always that of the
        # action in the batch, and `learn` writes the online network's choice there: double Q-learning.
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
        """The best legal actions [..., K]."""
        values = self.network(torch.as_tensor(observations, device=self.args.device))
        return values.masked_fill(~torch.as_tensor(masks, device=self.args.device), -torch.inf).argmax(dim=-1)

    def learn(self) -> float:
        """One gradient step on replayed joint steps; the loss."""
        if self.state_scale is None:  # SMAX's state is in units of the map, far from what a layer likes
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
        """Nothing to forget."""


def explore(greedy: np.ndarray, masks: np.ndarray, epsilon: float, rng: np.random.Generator) -> np.ndarray:
    """Each agent's greedy action, or with probability ``epsilon`` a legal one at random [N, K]."""
    at_random = np.argmax(rng.random(masks.shape) * masks, axis=-1)
    return np.where(rng.random(greedy.shape) < epsilon, at_random, greedy)


def transitions(observations: np.ndarray, infos: dict[str, Any], actions: np.ndarray, result: tuple) -> TensorDict:
    """A joint step of all copies as TorchRL's losses want it [N].

    What follows is what followed the action, not the next episode's start. After a termination nothing counts any more;
    a time limit is no termination. Steps that the simulator broke are marked, to be left out.
    """
    _, rewards, terminations, truncations, after = result
    done = (terminations | truncations).all(axis=1)
    # Environments that do not say what would be legal after a time limit: what was so a step before.
    last_mask = np.where(done[:, None, None], infos["action_mask"], after["action_mask"])
    step = {
        "agents": {"observation": observations, "action": actions, "action_mask": infos["action_mask"]},
        "state": global_state(observations, infos),
        "next": {
            "agents": {"observation": after["final_obs"], "action_mask": after.get("final_action_mask", last_mask)},
            "state": after["final_state"] if "final_state" in after else global_state(after["final_obs"], {}),
            "reward": rewards.mean(axis=1, keepdims=True),
            "done": done[:, None],
            "terminated": (done & ~truncations.any(axis=1))[:, None],
        },
        "steps_to_next_obs": np.ones((len(done), 1), np.int64),
        "broken": after["broken"],
    }
    return TensorDict(step, batch_size=len(done))


def look_ahead(window: Sequence[TensorDict], gamma: float) -> TensorDict:
    """The first of successive joint steps with the rewards of all, or of those up to its episode's end [N].

    TorchRL's `MultiStep` leaves "terminated" as it was after the first step, so that values would go on after the end.
    """
    *earlier, result = window
    for step in reversed(earlier):
        done = step["next", "done"][:, 0]
        result = torch.where(done, step, continued(step, result, gamma))
    return result[~result["broken"]]


def continued(step: TensorDict, later: TensorDict, gamma: float) -> TensorDict:
    """``step`` followed by what ``later``, which begins where it ends, has gathered."""
    joined = step.copy()
    joined["next"] = later["next"].copy()
    joined["next", "reward"] = step["next", "reward"] + gamma * later["next", "reward"]
    joined["steps_to_next_obs"] = 1 + later["steps_to_next_obs"]
    joined["broken"] = later["broken"]
    return joined


def global_state(observations: np.ndarray, infos: dict[str, Any]) -> np.ndarray:
    """What the mixer sees [N, S]: the environment's state, or all observations where it has none."""
    return infos["state"] if "state" in infos else observations.reshape(len(observations), -1)


def main(args: Args) -> Path:
    """Train, evaluate and plot; returns the folder of the run."""
    args.num_envs = args.num_envs or dm2.envs.default_num_envs(args.env)
    run = args.run or Path("runs") / f"qmix_{args.env.replace(':', '_')}_seed{args.seed}"
    if args.only_levels and not (args.levels and args.record):
        raise ValueError("only_levels ends when all levels are recorded: give levels, and record, the episodes of each")
    begin(run, args, free=("steps", "run", "bar_position", "levels", "only_levels"))

    logger.setLevel("WARNING")  # TorchRL tells of its storage in the middle of the bar
    torch.manual_seed(derive_seed(args.seed, "networks"))
    venv = dm2.envs.vector_env(args.env, args.num_envs)
    test_env = dm2.envs.vector_env(args.env, min(32, args.eval_episodes, dm2.envs.default_num_envs(args.env)))
    observations, infos = venv.reset(seed=0)
    qmix = QMIX(venv, global_state(observations, infos).shape[1], args)
    policy = Policy(qmix)
    step, levels, curve, checkpoint = 0, sorted(args.levels), run / "evaluations.csv", run / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=args.device)
        qmix.load_state_dict(saved["qmix"])
        step, levels = saved["step"], [level for level in levels if level not in saved["passed"]]
    rows = read_curve(curve, up_to=step) if checkpoint.exists() else []
    bar = tqdm(total=args.steps, initial=step, desc="qmix", unit="step", unit_scale=True, position=args.bar_position)
    record_path = args.record_path or run / "demos.npz"

    def record() -> dm2.Demonstrations:
        settings = {key: str(value) for key, value in asdict(args).items()}
        provenance = {"algorithm": "QMIX (TorchRL), greedy", "train_steps": step, "settings": settings}
        return dm2.Demonstrations.record(test_env, policy, args.record, seed=args.seed + 1000, provenance=provenance)

    def test() -> None:
        result = evaluate(policy, test_env, args.eval_episodes, seed=10_000)
        rows.append({"step": step, **result})
        write_curve(curve, rows)
        rate = result.get("win_rate", float("nan"))
        bar.set_postfix(win_rate=f"{rate:.2f}", episode_return=f"{result['return']:.1f}")
        if args.record and levels and rate >= levels[0] - closeness(levels[0]):
            record_level()

    def record_level() -> None:
        demos = record()
        # A small evaluation may be lucky: what counts is the recorded episodes' own rate.
        won = demos.win_rate or 0.0
        if passed := [level for level in levels if won >= level - closeness(level)]:
            level = min(passed, key=lambda level: abs(level - won))
            named = level if abs(won - level) <= closeness(level) else won
            path = record_path.with_name(f"{record_path.stem}_win{round(100 * named):02d}.npz")
            demos.save(path)
            tqdm.write(f"{path}: {len(demos)} episodes, win rate {won:.3f}, {step:,} steps of training")
            del levels[: len(passed)]

    if not rows:
        test()
    while step < args.steps and (levels or not args.only_levels):
        # Everything at random until the next checkpoint follows from seed and step, so that a resumed run is the same.
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
            step += args.num_envs
            bar.update(args.num_envs)
            for _ in range(args.updates if step >= args.learning_starts and len(qmix.buffer) else 0):
                qmix.learn()
        test()
        passed = [level for level in args.levels if level not in levels]
        save(checkpoint, {"qmix": qmix.state_dict(), "step": step, "passed": passed})
    bar.close()
    final = evaluate(policy, test_env, args.final_episodes, seed=20_000)
    plot({"QMIX": rows}, run / "curve.png", title=args.env, demos=None)
    if levels:
        print(f"ended at {step:,} steps, below the levels {levels}")
    if args.record and not args.only_levels:
        demos = record()
        demos.save(record_path)
        print(f"{record_path}: {len(demos)} episodes, win rate {demos.win_rate}")
    write_json(run / "final.json", {"step": step, **final})  # last: the run is done
    venv.close()
    test_env.close()
    return run


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint: whole or not at all."""
    torch.save(state, partial := path.with_suffix(".partial"))
    os.replace(partial, path)


if __name__ == "__main__":
    torch.set_num_threads(1)  # the networks are small: more threads only get in each other's way
    folder = main(tyro.cli(Args, description=__doc__))
    print(f"\n{folder}/evaluations.csv and {folder}/curve.png")
