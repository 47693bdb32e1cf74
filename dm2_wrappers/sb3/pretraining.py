"""Behavior cloning: each agent's policy learns the actions in its demonstrations, before or instead of training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor

from dm2_wrappers import _checks
from dm2_wrappers._extras import require
from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.matching.torch_modes import standard_modes
from dm2_wrappers.rng_state import derive_seed
from dm2_wrappers.sb3.learners import IndependentLearners

Batch = tuple[Tensor, Tensor, Tensor]  # observations, actions, and which of them count; the last is 0 or 1


@standard_modes
def pretrain(
    team: IndependentLearners,
    demos: Demonstrations,
    *,
    epochs: int = 10,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int | None = None,
    progress_bar: bool = False,
) -> dict[str, dict[str, list[float]]]:
    """Clone every agent's policy from its own demonstrations' actions.

    An agent's policy is trained, with an Adam optimizer of its own, to make the experts' actions likely: it minimizes
    -log pi(a|o) over the agent's live steps. Agents share nothing. Critics, the learners' own optimizers and the spread of
    Gaussian policies (``log_std``) do not change, so a clone with continuous actions goes on exploring when it is trained.
    Recurrent policies learn from whole episodes. Demonstrations have no action masks, so all actions count as available.

    Use it as a baseline by itself, or as a start for distribution matching: call ``team.learn`` afterwards. The critics are
    still untrained then.

    Args:
        team: The learners: PPO, A2C, MaskablePPO, RecurrentPPO, TRPO or another on-policy algorithm for each agent.
        demos: Demonstrations with actions, of the team's agents.
        epochs: Passes over the demonstrations.
        batch_size: Steps per minibatch; with recurrent policies, about so many steps in whole episodes.
        learning_rate: Of Adam.
        seed: Of the order of minibatches; the team's by default.
        progress_bar: Show a progress bar (needs tqdm).

    Returns:
        ``{agent: {"loss": [...], "accuracy": [...]}}``, both the mean over each epoch's minibatches. The accuracy is the
        share of steps at which the policy's most likely action is the experts'. With continuous actions there is instead
        "error", the root mean squared difference of the mean action (of a squashed policy, in [-1, 1]).

    Raises:
        TypeError: ``team`` is no `IndependentLearners`, or ``demos`` are no `Demonstrations`.
        ValueError: An option out of range, learners of another kind, or demonstrations without actions, of other agents or
            with actions that an agent does not have, or beyond its action space's bounds. Nothing has changed then.
        RuntimeError: Called by a callback while ``learn`` is under way.

    Example:
        >>> history = dm2.sb3.pretrain(team, demos, epochs=20)
        >>> history["ally_0"]["accuracy"][-1]
        0.81
    """
    if not isinstance(team, IndependentLearners):
        raise TypeError(f"pretrain() trains the learners of an IndependentLearners, got {type(team).__name__}")
    team._refuse_while_learning("pretrain()")
    epochs = _checks.integer("epochs", epochs, least=1)
    batch_size = _checks.integer("batch_size", batch_size, least=1)
    learning_rate = _checks.number("learning_rate", learning_rate, above=0)
    seed = _checks.integer("seed", seed, none=True)
    _check_learners(team)
    actions = {agent: _actions_of(team, demos, agent) for agent in team.agents}
    bar = (
        require("tqdm", "sb3").tqdm(total=epochs * len(team.agents), desc="cloning", unit="epoch") if progress_bar else None
    )
    history = {}
    for k, agent in enumerate(team.agents):
        rng = np.random.default_rng(derive_seed(team.seed if seed is None else seed, "pretrain", agent))
        with team._lockstep.as_agent(agent):  # layers such as dropout draw from the agent's own streams
            kind = _RecurrentClone if isinstance(team.models[agent], RecurrentPPO) else _Clone
            clone = kind(team.models[agent], demos, k, actions[agent], learning_rate)
            history[agent] = clone.train(epochs, batch_size, rng, bar)
    if bar is not None:
        bar.close()
    return history


class _Clone:
    """One agent's policy and its demonstrations.

    Args:
        model: The agent's learner.
        demos: The demonstrations.
        k: The agent's place on the agent axis.
        actions: Its actions [S] or [S, A] at all of its steps.
        learning_rate: Of Adam.
    """

    def __init__(self, model: Any, demos: Demonstrations, k: int, actions: NDArray[Any], learning_rate: float) -> None:
        self.model, self.policy = model, model.policy
        self.discrete = isinstance(model.action_space, spaces.Discrete)
        self.offsets = demos.offsets[k]
        shape = (self.offsets[-1], *model.observation_space.shape)
        self.observations = demos.padded_observations[: shape[0], k, : demos.sizes[k]].reshape(shape)
        self.live = demos.alive[: shape[0], k]
        self.actions = actions
        trained = [parameter for name, parameter in self.policy.named_parameters() if name != "log_std"]
        self.optimizer = torch.optim.Adam(trained, lr=learning_rate)

    def train(self, epochs: int, batch_size: int, rng: np.random.Generator, bar: Any) -> dict[str, list[float]]:
        """Take so many passes; the history of each epoch."""
        measure = "accuracy" if self.discrete else "error"
        history: dict[str, list[float]] = {"loss": [], measure: []}
        self.policy.set_training_mode(True)
        for _ in range(epochs):
            sums = np.zeros(3)
            for observations, actions, counts in self.batches(batch_size, rng):
                log_prob, likely = self.evaluate(observations, actions)
                steps = counts.sum()
                loss = -(log_prob * counts).sum() / steps
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                fit = (likely == actions).float() if self.discrete else (likely - actions).square().mean(1)
                sums += [float(loss.detach()) * float(steps), float((fit * counts).sum()), float(steps)]
            history["loss"].append(sums[0] / sums[2])
            history[measure].append(sums[1] / sums[2] if self.discrete else float(np.sqrt(sums[1] / sums[2])))
            if bar is not None:
                bar.update()
        self.policy.set_training_mode(False)
        self.policy.zero_grad()
        return history

    def batches(self, batch_size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All live steps in random order, in minibatches of nearly equal size."""
        rows = rng.permutation(np.flatnonzero(self.live))
        for part in np.array_split(rows, -(-len(rows) // batch_size)):
            yield self.tensors(part, np.ones(len(part), bool))

    def tensors(self, rows: NDArray[np.int64], counts: NDArray[np.bool_]) -> Batch:
        """The steps at these rows, and which of them count."""
        arrays = (self.observations[rows], self.actions[rows], counts.astype(np.float32))
        observations, actions, weights = (torch.as_tensor(array, device=self.model.device) for array in arrays)
        return observations, actions, weights

    def evaluate(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probabilities of these actions, with gradients, and the policy's most likely ones."""
        distribution = self.policy.get_distribution(observations)
        return distribution.log_prob(actions), distribution.mode().detach()


class _RecurrentClone(_Clone):
    """The same for a recurrent policy: minibatches are whole episodes, padded to the longest one."""

    def batches(self, batch_size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All episodes in random order; each minibatch [episodes * longest], one episode after the other."""
        lengths = np.diff(self.offsets)
        order = rng.permutation(len(lengths))
        per_batch = max(1, round(batch_size / lengths.mean()))
        for part in np.array_split(order, -(-len(order) // per_batch)):
            steps = np.arange(lengths[part].max())
            inside = steps < lengths[part][:, None]
            rows = np.where(inside, self.offsets[part][:, None] + steps, 0)
            counts = inside & self.live[rows]
            if counts.any():
                self.episodes = len(part)
                # An agent that joins, or comes back, begins with empty memory, as in play. So does each sequence, anyway.
                self.begins = np.zeros_like(counts)
                self.begins[:, 1:] = counts[:, 1:] & ~counts[:, :-1]
                yield self.tensors(rows.ravel(), counts.ravel())

    def evaluate(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Play the episodes step after step, each time the agent is there from empty memory."""
        lstm = self.policy.lstm_actor
        empty = observations.new_zeros(lstm.num_layers, self.episodes, lstm.hidden_size)
        starts = torch.as_tensor(self.begins.ravel(), dtype=observations.dtype, device=observations.device)
        distribution, _ = self.policy.get_distribution(observations, (empty, empty), starts)
        return distribution.log_prob(actions), distribution.mode().detach()


def _check_learners(team: IndependentLearners) -> None:
    for agent, model in team.models.items():
        if not isinstance(model, OnPolicyAlgorithm):
            raise ValueError(
                f"pretrain() clones policies of on-policy algorithms, such as PPO, A2C, MaskablePPO, RecurrentPPO and TRPO, "
                f"but agent {agent!r} has {type(model).__name__}"
            )


def _actions_of(team: IndependentLearners, demos: Demonstrations, agent: str) -> NDArray[Any]:
    """The agent's actions [S] or [S, A], as its policy takes them.

    Raises:
        TypeError: No demonstrations.
        ValueError: Of other agents, without actions, or with actions that the agent does not have.
    """
    if not isinstance(demos, Demonstrations):
        raise TypeError(f"pretrain() needs Demonstrations, got {type(demos).__name__}; read a file with Demonstrations.load")
    demos.check_compatible(team.agents, team.env.observation_sizes, team.env.env_id)
    if not demos.has_actions:
        raise ValueError(
            "pretrain() learns the experts' actions, but these demonstrations hold none (all are 0): record them with "
            'Demonstrations.record, or give "actions" to Demonstrations.from_episodes'
        )
    k, space = team.agents.index(agent), team.models[agent].action_space
    own: NDArray[Any] = demos.actions[: demos.offsets[k, -1], k]
    live = demos.alive[: len(own), k]
    if not live.any():
        raise ValueError(f"agent {agent!r} has no live step in the demonstrations")
    if isinstance(space, spaces.Discrete) and own.ndim == 1:
        last = int(space.n) - 1
        if own[live].min() < 0 or own[live].max() > last:
            raise ValueError(
                f"agent {agent!r} has the actions 0 to {last}, but its demonstrations hold "
                f"{own[live].min()} to {own[live].max()}"
            )
        return own
    if isinstance(space, spaces.Box) and own.ndim == 2 and own.shape[1] >= space.shape[0]:
        if own[live, space.shape[0] :].any():
            used = int(np.flatnonzero(own[live].any(axis=0))[-1]) + 1
            raise ValueError(
                f"agent {agent!r} has actions of {space.shape[0]} numbers, but its demonstrations hold actions of {used}"
            )
        return _continuous_actions(team.models[agent].policy, agent, own[:, : space.shape[0]].astype(np.float32), live)
    raise ValueError(f"agent {agent!r} has the action space {space}, but its demonstrations hold actions {list(own.shape)}")


def _continuous_actions(policy: Any, agent: str, actions: NDArray[np.float32], live: NDArray[np.bool_]) -> NDArray[Any]:
    """Actions [S, A] in the environment's units as the policy takes them: a squashed policy has them in [-1, 1].

    Raises:
        ValueError: A live step's action is beyond the bounds of the action space by more than rounding.
    """
    low, high = policy.action_space.low, policy.action_space.high
    rounding = 1e-5 * np.maximum(1, np.abs(actions))
    beyond = live & ((actions < low - rounding) | (actions > high + rounding)).any(axis=1)
    if beyond.any():
        raise ValueError(
            f"agent {agent!r} has actions from {low.tolist()} to {high.tolist()}, but its demonstrations hold "
            f"{actions[beyond][0].tolist()}: clip them as the environment did, and make the demonstrations again"
        )
    return policy.scale_action(actions) if policy.squash_output else actions
