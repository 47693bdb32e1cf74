"""Distribution matching (Algorithm 1, lines 6 to 11): demonstrations, discriminators and the agents' own transitions.

For each agent k separately::

    line 6      record()   keep agent k's observations of M steps
    lines 8-9   update()   sample from its demonstrations D_k and from the recorded observations, train its discriminator
    line 10     rewards()  r_gail of agent k from the updated discriminator
    line 11     r_env + c * r_gail: computed by the wrappers and by `sb3`, which know r_env and c

`algorithm1` does lines 6 to 10 in one call, for learners that collect rollouts themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from dm2_wrappers import _checks
from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.matching import paper
from dm2_wrappers.matching.diagnosis import Diagnosis
from dm2_wrappers.matching.discriminators import Discriminators, checked_gradient_penalty, checked_learning_rate
from dm2_wrappers.matching.gail_reward import FUNCTIONS, GailReward
from dm2_wrappers.matching.inputs import AgentInputs
from dm2_wrappers.matching.minibatches import Minibatches
from dm2_wrappers.matching.one_process import OneProcess
from dm2_wrappers.matching.standardization import Standardization
from dm2_wrappers.matching.torch_modes import standard_modes
from dm2_wrappers.matching.transition_buffer import TransitionBuffer
from dm2_wrappers.unwrap import Matcher

# The paper's weight of the gradient penalty, and the one for features in standard deviations: on a small grid, 10 there
# leaves discriminators nearly as blind as raw features in [0, 1] do (examples/grid.py).
_PENALTY, _STANDARDIZED_PENALTY = 10.0, 1.0


class DistributionMatcher(OneProcess, Matcher):
    """The discriminators of all agents, the data that they are trained on, and their rewards.

    One matcher serves all sub-environments. It belongs to the process that made it and cannot be copied or pickled; use
    `state_dict` to save it. Results do not depend on PyTorch's default dtype and device, inference mode or autocast.

    A transition is one observation of one agent. It is live if the agent was alive at that step.

    Args:
        demonstrations: The experts' `Demonstrations`.
        updates: Minibatches per `update`.
        batch_size: Live transitions per side (experts and policy), minibatch and agent, drawn with replacement.
        buffer_size: The policy's side is drawn from this many of an agent's newest live transitions.
        gradient_penalty: Weight of the gradient penalty, at most 1e6. By default 10, and 1 with ``standardize``.
        learning_rate: Adam's, at most 1.
        hidden: Widths of the discriminators' tanh layers.
        reward: "logit" (log D - log(1 - D)), "-log(1-D)" or "log D".
        center: Subtract an offset from each agent's reward. Each update sets the offset to the mean reward of the agent's
            live transitions since the previous update (if these exceed ``buffer_size``, of those kept). The offset is 0
            before the first update. An update without new live transitions of an agent does not change its offset.
        keep_buffer: Keep policy transitions across updates. False empties the buffer after each update.
        standardize: Let the discriminators see each feature less its mean in the agent's demonstrations, divided by its
            standard deviation there (at least 5 % of its range), so that the gradient penalty means the same on every
            scale. A feature that is constant in the agent's demonstrations is left out.
        module: ``module(agent, size)`` makes an agent's network, [B, size] -> [B, 1] or [B], instead of ``hidden``. It is
            trained with autograd. Rewards are computed in evaluation mode (no dropout, fixed batch normalization).
        seed: Seeds weights, minibatches and dropout. Those of an agent depend only on the seed and on its name.
        device: Where discriminators, demonstrations and buffer are kept.

    Attributes:
        demonstrations: As given.
        options: The other arguments except ``module`` and ``device``, in types that JSON can store.
        custom_networks: Whether ``module`` was given.
        metrics: What the last `update` returned; empty before the first one.

    Raises:
        TypeError: ``demonstrations`` is not a `Demonstrations`, or ``module`` does not make networks.
        ValueError: An option is out of range, or an agent has no live observation in the demonstrations.
    """

    @standard_modes
    def __init__(
        self,
        demonstrations: Demonstrations,
        *,
        updates: int = 30,
        batch_size: int = 256,
        buffer_size: int = 32_768,
        gradient_penalty: float | None = None,
        learning_rate: float = 1e-3,
        hidden: Sequence[int] = (64, 64),
        reward: str = "logit",
        center: bool = True,
        keep_buffer: bool = True,
        standardize: bool = False,
        module: Callable[[str, int], nn.Module] | None = None,
        seed: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if not all(hasattr(demonstrations, name) for name in ("agents", "sizes", "observations")):
            raise TypeError(
                f"DistributionMatcher needs Demonstrations, got {type(demonstrations).__name__}; "
                "read a file with Demonstrations.load(path)"
            )
        self.demonstrations = demonstrations
        if gradient_penalty is None:
            gradient_penalty = _STANDARDIZED_PENALTY if standardize else _PENALTY
        # Everything that makes an equal matcher from the same demonstrations; numbers and strings only.
        self.options: dict[str, Any] = {
            "updates": _checks.integer("updates", updates, least=1),
            "batch_size": _checks.integer("batch_size", batch_size, least=1),
            "buffer_size": _checks.integer("buffer_size", buffer_size, least=1),
            "gradient_penalty": checked_gradient_penalty(gradient_penalty),
            "learning_rate": checked_learning_rate(learning_rate),
            "hidden": list(_checks.widths("hidden", hidden)),
            "reward": _checks.choice("reward", reward, tuple(FUNCTIONS)),
            "center": _checks.flag("center", center),
            "keep_buffer": _checks.flag("keep_buffer", keep_buffer),
            "standardize": _checks.flag("standardize", standardize),
            "seed": _checks.integer("seed", seed, none=True),
        }
        self.custom_networks = module is not None
        self.agents: tuple[str, ...] = tuple(demonstrations.agents)
        self.sizes: tuple[int, ...] = tuple(demonstrations.sizes)
        self.updates, self.batch_size = self.options["updates"], self.options["batch_size"]
        self.buffer_size, self.keep_buffer = self.options["buffer_size"], self.options["keep_buffer"]
        self.reward, self.center, seed = reward, self.options["center"], self.options["seed"]
        self.discriminators = Discriminators(
            self.sizes,
            hidden=hidden,
            learning_rate=learning_rate,
            gradient_penalty=self.options["gradient_penalty"],
            module=module,
            agents=self.agents,
            seed=seed,
            device=device,
        )
        self._device = self.discriminators.device
        self._inputs = AgentInputs(self.agents, self.sizes, self._device)
        observations = [demonstrations.observations(agent) for agent in self.agents]
        experts = self._inputs.stacked(observations, any_scale=self.options["standardize"])
        if self.options["standardize"]:
            self.discriminators.standardization = Standardization(experts, [len(rows) for rows in observations])
        self._minibatches = Minibatches(experts, [len(rows) for rows in observations], self.agents, seed)
        self._buffer = self._empty_buffer()
        self._pay = GailReward(self.discriminators, reward)
        self._diagnosis = Diagnosis(self.agents, self.sizes, self.options["standardize"])
        self._new = torch.zeros(self.num_agents, dtype=torch.int64)  # each agent's live transitions since the last update
        self.metrics: dict[str, float] = {}
        self._remember_process()

    @classmethod
    def paper(cls, demonstrations: Demonstrations, scenario: str, **overrides: Any) -> DistributionMatcher:
        """The paper's settings for one of its SMAC scenarios (its c is in ``matching.paper.COEFFICIENTS``).

        They are: 120 minibatches, policy data of the last rollout only, and the raw logit. The paper's minibatches have 64
        whole episodes per side. Here they have as many transitions as an agent has live steps, on average, in 64 episodes of
        the demonstrations.

        One thing differs from the paper's code. That code also trains on the observations of dead agents and on the padding
        after an episode's end, and pays for them, so all episodes have the same number of paid steps. Here only live
        observations count. A constant in the logit therefore rewards or penalizes long episodes here, but not there.

        Raises:
            ValueError: ``scenario`` is not one of the paper's.
        """
        return cls(demonstrations, **{**paper.settings(demonstrations, scenario), **overrides})

    @property
    def num_agents(self) -> int:
        """K, the number of agents."""
        return len(self.agents)

    @standard_modes
    def record(self, observations: ArrayLike | Tensor, alive: ArrayLike, *, broken: ArrayLike | None = None) -> None:
        """Record the agents' observations before their actions (line 6).

        Args:
            observations: Float32 [T, N, K, D], padded to the widest agent.
            alive: Bool [T, N, K]; observations of dead agents train no discriminator.
            broken: Bool [T, N]; steps to ignore, because the simulator failed in their episode.

        Raises:
            ValueError: A shape does not fit, or a live observation is not finite or larger than 1e18. Then nothing is
                recorded.
            RuntimeError: Another process made this matcher.
        """
        self._check_process()
        rows, live = self._inputs.joint(observations, alive, broken)
        if rows.ndim != 4:
            raise ValueError(f"expected observations [T, N, K, D], got {tuple(rows.shape)}; add axes of length 1")
        self._buffer.add(rows, live)
        self._new += live.sum((0, 1)).cpu()

    @standard_modes
    def update(self) -> dict[str, float]:
        """Train every agent's discriminator on the recorded observations (lines 8 and 9). Without new ones, train nothing.

        Returns:
            "trained", 1 or 0; "transitions", the number of new live transitions of all agents; "offset/<agent>". If it
            trained, also the means over minibatches of "loss", "gradient_penalty", "expert_accuracy", "policy_accuracy",
            "expert_logit" and "policy_logit", averaged over all trained agents and as "<name>/<agent>";
            "gail_reward_std/<agent>", the standard deviation of r_gail over the agent's new live transitions; and
            "separation/<agent>", "single_feature/<agent>" and "single_feature_index/<agent>", which say whether a
            discriminator is blind or knows the experts by one feature alone (`dm2_wrappers.matching.diagnosis`). Agents
            without transitions in the buffer are not trained.

        Raises:
            ValueError: An agent's discriminator cannot be trained on its observations, because numbers overflow. Then
                all discriminators are as before the update.
            RuntimeError: Another process made this matcher.

        Warns:
            UserWarning: A discriminator is blind, or knows by one feature alone; once each.
        """
        self._check_process()
        metrics = {"trained": float(self._new.any()), "transitions": float(self._new.sum())}
        if self._new.any():
            before = self.discriminators.state_dict(), self._minibatches.state()
            try:
                metrics |= self._train()
                metrics |= self._measure()
            except BaseException:  # an interrupt must not leave them half trained either
                self.discriminators.load_state_dict(before[0])
                self._minibatches.load_state(before[1])
                raise
            self._new.zero_()
            if not self.keep_buffer:
                self._buffer.clear()
        self.metrics = metrics | {f"offset/{a}": float(o) for a, o in zip(self.agents, self._pay.offsets, strict=True)}
        return dict(self.metrics)

    @overload
    def rewards(self, observations: Mapping[str, Any], alive: None = None) -> dict[str, float]: ...
    @overload
    def rewards(self, observations: ArrayLike | Tensor, alive: ArrayLike | None = None) -> NDArray[np.float32]: ...
    @standard_modes
    def rewards(self, observations: Any, alive: Any = None) -> dict[str, float] | NDArray[np.float32]:
        """Compute r_gail of each agent's observations with the current discriminators (line 10). This changes no state.

        Args:
            observations: Float32 [..., K, D]; or ``{agent: observation}`` of some or all agents, each an array of the
                agent's own features or PettingZoo's ``{"observation": ..., "action_mask": ...}``.
            alive: Bool [..., K]; by default all agents are alive. The reward of dead agents is 0.

        Returns:
            Float32 [..., K]; or ``{agent: reward}`` of the given agents.

        Raises:
            ValueError: A shape does not fit, an agent is unknown, a live observation is not finite or larger than
                1e18, or a reward is not finite.
            RuntimeError: Another process made this matcher.
        """
        self._check_process()
        if isinstance(observations, Mapping):
            joint, given = self._inputs.by_name(observations)
            of_all = self.rewards(joint, given)
            return {agent: float(of_all[self.agents.index(agent)]) for agent in observations}
        rows, live = self._inputs.joint(observations, alive)
        paid = torch.where(live, self._pay.of(rows), 0.0).cpu().numpy()
        if not np.isfinite(paid).all():
            agent = self.agents[np.argwhere(~np.isfinite(paid))[0, -1]]
            raise ValueError(f"the discriminator of agent {agent!r} pays a reward that is not finite; check its network")
        return paid

    def algorithm1(self, chunks: Sequence[tuple[str, ArrayLike | Tensor]]) -> list[NDArray[np.float32]]:
        """Do lines 6 to 10 of Algorithm 1: record a rollout, update once, compute rewards with the updated discriminators.

        Use this with learners that collect rollouts themselves. Call it between collecting a rollout and
        computing advantages, then add ``coefficient * reward`` to the environment's rewards (line 11). `metrics` has
        what the update returned.

        Args:
            chunks: Pairs of an agent and its observations before each action, [n, D_agent]. Chunks may have any length
                and order. An agent may have several (the older first) or none. Leave out steps at which the agent was
                dead, and episodes in which the simulator failed.

        Returns:
            r_gail of each chunk's observations, float32 [n], in the order of the chunks.

        Raises:
            ValueError: An agent is unknown, or observations have the wrong size, are not finite or larger than 1e18. Then
                nothing is recorded. Or `update` raised it.
            RuntimeError: Another process made this matcher.

        Example:
            >>> rewards = matcher.algorithm1([("a", observations_of_a), ("b", observations_of_b)])
            >>> for chunk, gail_rewards in zip(rollout, rewards):
            ...     chunk.rewards += 0.3 * gail_rewards
        """
        observations, given, places = self._inputs.from_chunks(chunks)
        self.record(observations, given)
        self.update()
        paid = self.rewards(observations, given)
        return [paid[steps, 0, k].copy() for steps, k in places]

    @standard_modes
    def state_dict(self) -> dict[str, Any]:
        """A copy of the state (without the demonstrations), in types that ``torch.load(weights_only=True)`` accepts."""
        return {
            "discriminators": self.discriminators.state_dict(),
            "buffer": self._buffer.state_dict(),
            "new": self._new.clone(),
            "offsets": self._pay.offsets.clone(),
            "streams": self._minibatches.state(),
        }

    @standard_modes
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned. Training then continues with the same numbers, bit for bit.

        Raises:
            ValueError: The state has other agents, sizes, networks or ``buffer_size``, or is damaged. Then nothing changes.
        """
        buffer, streams = self._empty_buffer(), self._minibatches.state()
        try:
            self.discriminators.check_state(state["discriminators"])
            buffer.load_state_dict(state["buffer"])
            new, offsets = state["new"].clone(), state["offsets"].clone()
            if new.shape != self._new.shape or offsets.shape != new.shape or not offsets.isfinite().all():
                raise ValueError(f"expected one finite offset for each of {self.num_agents} agents, got {offsets}")
            self._minibatches.load_state(state["streams"])
            self.discriminators.load_state_dict(state["discriminators"])
        except Exception as error:
            self._minibatches.load_state(streams)
            if isinstance(error, ValueError):
                raise
            raise ValueError(f"the saved state of the matcher is damaged: {type(error).__name__}: {error}") from error
        self._buffer, self._new, self._pay.offsets = buffer, new, offsets

    def _empty_buffer(self) -> TransitionBuffer:
        return TransitionBuffer(self.buffer_size, self.num_agents, max(self.sizes), self._device)

    def _train(self) -> dict[str, float]:
        """Lines 8 and 9, `updates` times."""
        active = [count > 0 for count in self._buffer.counts.tolist()]
        history = []
        for expert, policy, alpha in self._minibatches.draw(self._buffer, self.updates, self.batch_size):  # line 8
            history.append(self.discriminators.update(expert, policy, alpha, active))  # line 9
        metrics: dict[str, float] = {}
        for name in history[0]:
            means = torch.stack([minibatch[name] for minibatch in history]).mean(0).tolist()
            of_agents = {f"{name}/{agent}": means[k] for k, agent in enumerate(self.agents) if active[k]}
            metrics |= {name: sum(of_agents.values()) / len(of_agents), **of_agents}
        return metrics | self._diagnosis.metrics(self.discriminators, expert, policy, active)

    def _measure(self) -> dict[str, float]:
        """The new offsets, and the standard deviation of each agent's reward since the last update."""
        new = self._new.minimum(self._buffer.counts.cpu())
        means, deviations = self._pay.moments(self._buffer, new)
        for agent, mean in zip(self.agents, means.tolist(), strict=True):
            if not np.isfinite(mean):
                raise ValueError(f"the discriminator of agent {agent!r} pays rewards that are not finite; check its network")
        if self.center:
            self._pay.offsets = torch.where(new > 0, means, self._pay.offsets)
        return {
            f"gail_reward_std/{agent}": float(deviation)
            for agent, deviation, count in zip(self.agents, deviations, new, strict=True)
            if count > 0
        }
