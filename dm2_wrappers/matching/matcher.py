"""Distribution matching (Algorithm 1, lines 6 to 11): demonstrations, discriminators and the agents' own transitions.

For each agent k separately::

    line 6      record()   keep what agent k sees now, M steps of it
    lines 8-9   update()   sample from its demonstrations D_k and from what was recorded, train its discriminator
    line 10     rewards()  r_gail of agent k from the updated discriminator
    line 11     r_env + c * r_gail: done by the wrappers and by `sb3`, which know r_env and c

`algorithm1` does lines 6 to 10 in one call, for learners that collect rollouts by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from dm2_wrappers import _checks
from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.matching import paper
from dm2_wrappers.matching.convergence import Convergence
from dm2_wrappers.matching.discriminators import Discriminators, checked_gradient_penalty, checked_learning_rate
from dm2_wrappers.matching.gail_reward import FUNCTIONS, GailReward
from dm2_wrappers.matching.inputs import AgentInputs
from dm2_wrappers.matching.minibatches import Minibatches
from dm2_wrappers.matching.one_process import OneProcess
from dm2_wrappers.matching.torch_modes import standard_modes
from dm2_wrappers.matching.transition_buffer import TransitionBuffer
from dm2_wrappers.unwrap import Matcher


class DistributionMatcher(OneProcess, Matcher):
    """All agents' discriminators, the data that they are trained on, and the reward that they pay.

    One matcher serves all sub-environments. It belongs to the process that made it and cannot be copied or pickled; use
    `state_dict` to save it. Results do not depend on PyTorch's default dtype and device, inference mode or autocast.

    Args:
        demonstrations: The experts' (`Demonstrations`).
        updates: Minibatches per `update`.
        batch_size: Live transitions per side (expert and policy), minibatch and agent; drawn with replacement.
        buffer_size: How many of an agent's newest live transitions the policy's side is drawn from.
        gradient_penalty: Weight of the gradient penalty, at most 1e6.
        learning_rate: Adam's, at most 1.
        hidden: Widths of the discriminators' tanh layers.
        reward: "logit" (log D - log(1 - D)), "-log(1-D)" or "log D".
        center: Subtract an offset from the reward: its mean, after an update, over the agent's live transitions recorded
            since the previous update (if these exceed ``buffer_size``, over those kept). The offset is 0 before the
            first update, and an update without new live transitions of an agent does not change that agent's offset.
        keep_buffer: Keep policy transitions across updates; False empties the buffer after each.
        module: ``module(agent, size)`` makes an agent's network, [B, size] -> [B, 1] or [B], instead of ``hidden``. It is
            trained with autograd, and pays in evaluation mode (no dropout, fixed batch normalization).
        seed: Of weights, minibatches and dropout; an agent's depend on the seed and its name only.
        device: Where discriminators, demonstrations and buffer are kept.

    Attributes:
        demonstrations: As given.
        options: The other arguments except ``module`` and ``device``, in types that JSON can store.
        custom_networks: Whether ``module`` was given.
        metrics: What the newest `update` returned; empty before the first one.

    Raises:
        TypeError: ``demonstrations`` are no `Demonstrations`, or ``module`` does not make networks.
        ValueError: An option that cannot work, or an agent without a live observation in the demonstrations.
    """

    @standard_modes
    def __init__(
        self,
        demonstrations: Demonstrations,
        *,
        updates: int = 30,
        batch_size: int = 256,
        buffer_size: int = 32_768,
        gradient_penalty: float = 10.0,
        learning_rate: float = 1e-3,
        hidden: Sequence[int] = (64, 64),
        reward: str = "logit",
        center: bool = True,
        keep_buffer: bool = True,
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
            gradient_penalty=gradient_penalty,
            module=module,
            agents=self.agents,
            seed=seed,
            device=device,
        )
        self._device = self.discriminators.device
        self._inputs = AgentInputs(self.agents, self.sizes, self._device)
        observations = [demonstrations.observations(agent) for agent in self.agents]
        experts = self._inputs.stacked(observations)
        self._minibatches = Minibatches(experts, [len(rows) for rows in observations], self.agents, seed)
        self._buffer = self._empty_buffer()
        self._pay = GailReward(self.discriminators, reward)
        self._new = torch.zeros(self.num_agents, dtype=torch.int64)  # each agent's live transitions since the last update
        self.metrics: dict[str, float] = {}
        self._remember_process()

    @classmethod
    def paper(cls, demonstrations: Demonstrations, scenario: str, **overrides: Any) -> DistributionMatcher:
        """The paper's settings for one of its SMAC scenarios (its c is in ``matching.paper.COEFFICIENTS``).

        120 minibatches of 64 whole episodes per side, here of as many transitions as an agent lives through in 64
        episodes of the demonstrations; policy data of the last rollout only; the raw logit.

        One thing differs from the paper's code: that code also trains on, and pays for, the observations of dead agents
        and the padding after an episode's end, so that all episodes have equally many paid steps. Here only live
        observations count. A constant in the logit therefore rewards or penalizes long episodes here, but not there.

        Raises:
            ValueError: Not one of the paper's scenarios.
        """
        return cls(demonstrations, **{**paper.settings(demonstrations, scenario), **overrides})

    @property
    def num_agents(self) -> int:
        """K, the number of agents."""
        return len(self.agents)

    @standard_modes
    def record(self, observations: ArrayLike | Tensor, alive: ArrayLike, *, broken: ArrayLike | None = None) -> None:
        """Keep what the agents saw before their actions (line 6).

        Args:
            observations: Float32 [T, N, K, D], padded to the widest agent.
            alive: Bool [T, N, K]; observations of dead agents train no discriminator.
            broken: Bool [T, N]; steps to ignore, because the simulator broke their episode.

        Raises:
            ValueError: A shape that does not fit, or a live observation that is not finite or beyond 1e18. Nothing is
                kept then.
            RuntimeError: Another process made this matcher.
        """
        self._check_process()
        rows, live = self._inputs.joint(observations, alive, broken)
        if rows.ndim != 4:
            raise ValueError(f"expected observations [T, N, K, D], got {tuple(rows.shape)}; add axes of length 1")
        self._buffer.add(rows, live)
        self._new += live.sum((0, 1)).cpu()

    @standard_modes
    def update(self, agents: Collection[str] | None = None, *, convergence: Convergence | None = None) -> dict[str, float]:
        """Train every agent's discriminator (lines 8 and 9) on what was recorded; without new data, train nothing.

        Args:
            agents: Train the discriminators of these agents only, as Algorithm 2 does; the others', and their offsets,
                stay as they are. All by default.
            convergence: Train until all of them have converged, instead of for ``updates`` minibatches.

        Returns:
            "trained", 1 or 0; "transitions", the new live ones of all agents; "offset/<agent>". If it trained: the mean
            over minibatches of "loss", "gradient_penalty", "expert_accuracy", "policy_accuracy", "expert_logit" and
            "policy_logit", both over all trained agents and as "<name>/<agent>"; and "gail_reward_std/<agent>", the
            standard deviation of r_gail over the agent's new live transitions. Agents without transitions in the buffer
            are not trained. With ``convergence`` also "minibatches" and "converged", 1 or 0, both per agent as well.

        Raises:
            ValueError: An unknown agent; or an agent's discriminator cannot be trained on its observations, because numbers
                overflow. Then all discriminators are as before the update.
            RuntimeError: Another process made this matcher.
        """
        self._check_process()
        chosen = self._chosen(agents)
        new = torch.where(chosen, self._new, 0)
        metrics = {"trained": float(new.any()), "transitions": float(new.sum())}
        if new.any():
            before = self.discriminators.state_dict(), self._minibatches.state()
            try:
                metrics |= self._train(chosen.tolist(), convergence)
                metrics |= self._measure(new)
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
        """r_gail of each agent's observations under the present discriminators (line 10). It changes nothing.

        Args:
            observations: Float32 [..., K, D]; or ``{agent: observation}`` of some or all agents, each an array of the
                agent's own features or PettingZoo's ``{"observation": ..., "action_mask": ...}``.
            alive: Bool [..., K], all by default; the reward of dead agents is 0.

        Returns:
            Float32 [..., K]; or ``{agent: reward}`` of the agents given.

        Raises:
            ValueError: A shape that does not fit, an unknown agent, a live observation that is not finite or beyond
                1e18, or a reward that is not finite.
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
        """Lines 6 to 10 of Algorithm 1 in one call: record a rollout, update once, pay with the updated discriminators.

        This is the hook for learners that collect rollouts by themselves: call it between collecting a rollout and
        computing advantages, then add ``coefficient * reward`` to the environment's rewards (line 11). `metrics` has
        what the update returned.

        Args:
            chunks: Pairs of an agent and its observations before each action, [n, D_agent]. Chunks may have any length
                and order, an agent may have several (the older first) or none. Leave out steps at which the agent was
                dead and episodes that the simulator broke.

        Returns:
            r_gail of each chunk's observations, float32 [n], in the order of the chunks.

        Raises:
            ValueError: An unknown agent, observations of another size, not finite or beyond 1e18 (nothing is recorded
                then), or those of `update`.
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
        """A copy of all that changes (not the demonstrations), in types that ``torch.load(weights_only=True)`` accepts."""
        return {
            "discriminators": self.discriminators.state_dict(),
            "buffer": self._buffer.state_dict(),
            "new": self._new.clone(),
            "offsets": self._pay.offsets.clone(),
            "streams": self._minibatches.state(),
        }

    @standard_modes
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; everything continues bit for bit.

        Raises:
            ValueError: It is of other agents, sizes, networks or ``buffer_size``, or damaged. Nothing has changed then.
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

    def _chosen(self, agents: Collection[str] | None) -> Tensor:
        """Which agents these are, bool [K]."""
        wanted = self.agents if agents is None else agents
        if unknown := set(wanted) - set(self.agents):
            raise ValueError(f"expected agents among {list(self.agents)}, got {sorted(map(str, unknown))}")
        return torch.tensor([agent in wanted for agent in self.agents])

    def _train(self, chosen: Sequence[bool], convergence: Convergence | None) -> dict[str, float]:
        """Lines 8 and 9, `updates` times or until convergence."""
        active = [flag and count > 0 for flag, count in zip(chosen, self._buffer.counts.tolist(), strict=True)]
        history: list[dict[str, Tensor]] = []
        while count := self.updates - len(history) if convergence is None else convergence.more(history, active):
            minibatches = self._minibatches.draw(self._buffer, count, self.batch_size, active)  # line 8
            history += [self.discriminators.update(*minibatch, active) for minibatch in minibatches]  # line 9
        metrics = {} if convergence is None else convergence.metrics(history, self.agents, active)
        for name in history[0]:
            means = torch.stack([minibatch[name] for minibatch in history]).mean(0).tolist()
            of_agents = {f"{name}/{agent}": means[k] for k, agent in enumerate(self.agents) if active[k]}
            metrics |= {name: sum(of_agents.values()) / len(of_agents), **of_agents}
        return metrics

    def _measure(self, new: Tensor) -> dict[str, float]:
        """The new offsets, and the standard deviation of each agent's reward over so many new transitions, int64 [K]."""
        new = new.minimum(self._buffer.counts.cpu())
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
