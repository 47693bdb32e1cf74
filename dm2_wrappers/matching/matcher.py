"""Distribution matching (Algorithm 1, lines 6 to 11): demonstrations, discriminators and the agents' own transitions.

For each agent k separately::

    line 6      record()   keep agent k's observations of M steps
    lines 8-9   update()   sample from its demonstrations D_k and from the recorded observations, train its discriminator
    line 10     rewards()  r_gail of agent k from the updated discriminator
    line 11     r_env + c * r_gail: computed by the wrappers and by `sb3`, which know r_env and c

`algorithm1` does lines 6 to 10 in one call, for learners that collect rollouts themselves.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from dm2_wrappers import _memory
from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.matching import paper
from dm2_wrappers.matching.absorbing import AbsorbingEnds
from dm2_wrappers.matching.action_coding import ActionCoding
from dm2_wrappers.matching.after_step import AfterStep
from dm2_wrappers.matching.convergence import Convergence
from dm2_wrappers.matching.diagnosis import Diagnosis
from dm2_wrappers.matching.discriminators import Discriminators
from dm2_wrappers.matching.experts import Experts
from dm2_wrappers.matching.gail_reward import GailReward
from dm2_wrappers.matching.input_rows import KINDS, InputRows
from dm2_wrappers.matching.inputs import AgentInputs
from dm2_wrappers.matching.joint_rewards import JointRewards
from dm2_wrappers.matching.one_process import OneProcess
from dm2_wrappers.matching.options import checked_demonstrations, checked_options
from dm2_wrappers.matching.recorded import Recorded
from dm2_wrappers.matching.self_imitation import SelfImitation
from dm2_wrappers.matching.standardization import Standardization
from dm2_wrappers.matching.step_reader import StepReader
from dm2_wrappers.matching.torch_modes import standard_modes
from dm2_wrappers.matching.training import Training
from dm2_wrappers.unwrap import Matcher


class DistributionMatcher(OneProcess, Matcher):
    """The discriminators of all agents, the data that they are trained on, and their rewards.

    One matcher serves all sub-environments. It belongs to the process that made it and cannot be copied or pickled; use
    `state_dict` to save it. Results do not depend on PyTorch's default dtype and device, inference mode or autocast.

    A transition is one observation of one agent. It is live if the agent was alive at that step.

    Args:
        demonstrations: The experts' `Demonstrations`, or `SelfImitation`.
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
        standardize: Let the discriminators see each feature less its mean in the agent's demonstrations, divided by its
            standard deviation there (at least 5 % of its range), so that the gradient penalty means the same on every
            scale. A feature that is constant in the agent's demonstrations is left out.
        inputs: What a discriminator sees of a step. "state" is the observation before the action. "state-action" adds the
            action, one-hot or scaled to [-1, 1] (see `ActionCoding`). "transition" adds the next observation. The last
            step of an episode then trains nothing, because demonstrations lack the observation that followed it; its
            reward is computed from the last observation.
        action_spaces: With "state-action", each agent's action space, ``{agent: Discrete or Box}``. By default, the number
            or range of actions is taken from the demonstrations.
        ends: "live" trains on live steps and pays only these. "absorbing" also counts an agent's time from its death or its
            episode's end to the time limit, so that a constant in the reward favors neither long nor short episodes; see
            `dm2_wrappers.matching.absorbing`.
        gamma: With ``ends="absorbing"``: the learners' discount factor.
        max_steps: With ``ends="absorbing"``: the time limit of an episode, in steps. None takes the environment's
            attribute ``max_steps``.
        beyond_limit: With ``ends="absorbing"``: let the absorbing state pay forever, for learners that bootstrap at the time
            limit. None is True for ``IndependentLearners`` and ``SharedPolicyDM2``, which do (with gamma below 1), else
            False.
        keep_buffer: Keep policy transitions across updates. False empties the buffer after each update.
        module: ``module(agent, size)`` makes an agent's network, [B, size] -> [B, 1] or [B], instead of ``hidden``. It is
            trained with autograd. Rewards are computed in evaluation mode (no dropout, fixed batch normalization).
        seed: Seeds weights, minibatches and dropout. Those of an agent depend only on the seed and on its name.
        device: Where discriminators, demonstrations and buffer are kept.

    Attributes:
        demonstrations: As given; the experts' with `SelfImitation` that has some.
        self_imitation: The team's own best episodes; None without `SelfImitation`.
        options: The other arguments except ``module`` and ``device``, in types that JSON can store.
        custom_networks: Whether ``module`` was given.
        metrics: What the last `update` returned; empty before the first one.

    Raises:
        TypeError: ``demonstrations`` is not a `Demonstrations`, or ``module`` does not make networks.
        ValueError: An option is out of range, options exclude each other, an agent has no live observation in the
            demonstrations, or the discriminators need actions and the demonstrations have none.

    Warns:
        UserWarning: A full buffer will take more than 8 GiB, as with images as observations; or ``standardize`` leaves no
            feature of an agent.
    """

    # The options that older checkpoints lack, as they were without them.
    LATER_OPTIONS: ClassVar = {"standardize": False, "inputs": "state", "ends": "live", "gamma": 0.99, "beyond_limit": False}

    @standard_modes
    def __init__(
        self,
        demonstrations: Demonstrations | SelfImitation,
        *,
        updates: int = 30,
        batch_size: int = 256,
        buffer_size: int = 32_768,
        gradient_penalty: float | None = None,
        learning_rate: float = 1e-3,
        hidden: Sequence[int] = (64, 64),
        reward: str = "logit",
        center: bool = True,
        inputs: str = "state",
        action_spaces: Mapping[str, Any] | None = None,
        ends: str = "live",
        gamma: float = 0.99,
        max_steps: int | None = None,
        beyond_limit: bool | None = None,
        keep_buffer: bool = True,
        standardize: bool = False,
        module: Callable[[str, int], nn.Module] | None = None,
        seed: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        experts, own = checked_demonstrations(demonstrations)
        self.demonstrations: Any = demonstrations if experts is None else experts
        self.self_imitation = own
        self.options = checked_options(
            experts,
            own,
            updates=updates,
            batch_size=batch_size,
            buffer_size=buffer_size,
            gradient_penalty=gradient_penalty,
            learning_rate=learning_rate,
            hidden=hidden,
            reward=reward,
            center=center,
            inputs=inputs,
            action_spaces=action_spaces,
            ends=ends,
            gamma=gamma,
            max_steps=max_steps,
            beyond_limit=beyond_limit,
            keep_buffer=keep_buffer,
            standardize=standardize,
            seed=seed,
        )
        self.custom_networks = module is not None
        self.agents: tuple[str, ...] = tuple(demonstrations.agents)
        self.sizes: tuple[int, ...] = tuple(demonstrations.sizes)
        self.updates, self.batch_size = self.options["updates"], self.options["batch_size"]
        self.buffer_size, self.keep_buffer = self.options["buffer_size"], self.options["keep_buffer"]
        self.reward, self.center, seed = reward, self.options["center"], self.options["seed"]
        self.metrics: dict[str, float] = {}
        parts, absorbs, standardized = KINDS[self.options["inputs"]], ends == "absorbing", self.options["standardize"]
        self._absorbing = (
            AbsorbingEnds(gamma, max_steps, bool(beyond_limit), "next_observation" in parts) if absorbs else None
        )
        coding = ActionCoding(self.agents, experts, self.options.get("action_spaces")) if "action" in parts else None
        rows = InputRows(inputs, self.sizes, None if coding is None else coding.sizes, absorbs)
        _memory.warn_if_large(
            "the policy's transitions that this DistributionMatcher keeps",
            self.buffer_size,
            self.num_agents,
            max(rows.sizes),
            "lower buffer_size",
            stacklevel=3,
        )
        self.discriminators = Discriminators(
            rows.sizes,
            hidden=hidden,
            learning_rate=learning_rate,
            gradient_penalty=self.options["gradient_penalty"],
            module=module,
            agents=self.agents,
            seed=seed,
            device=device,
        )
        on = self.discriminators.device
        rows = rows.to(on)
        self._reader = StepReader(AgentInputs(self.agents, self.sizes, on), rows, coding, self._absorbing)
        self._experts = Experts(experts, own, self.agents, rows, coding, on, any_scale=standardized)
        self._recorded = Recorded(self.buffer_size, self.num_agents, max(rows.sizes), on, absorbs, self.keep_buffer)
        if standardized:
            standardization = Standardization(self._experts.rows, self._experts.counts, rows.absorbing_row)
            standardization.warn_of_constants(self.agents, stacklevel=3)
            self.discriminators.standardization = standardization
        self._pay = GailReward(self.discriminators, reward)
        self._joint = JointRewards(self._pay, self._reader, self._experts, rows.absorbing_row, self.agents, max(self.sizes))
        self._training = Training(
            self.discriminators,
            self._experts,
            self._pay,
            self._absorbing,
            rows.absorbing_row,
            Diagnosis(self.agents, rows.names, self.discriminators.standardization),
            seed=seed,
        )
        self._remember_process()

    @classmethod
    def paper(cls, demonstrations: Demonstrations, scenario: str, **overrides: Any) -> DistributionMatcher:
        """The paper's settings for one of its SMAC scenarios (its c is in ``matching.paper.COEFFICIENTS``).

        They are: 120 minibatches, policy data of the last rollout only, the raw logit, and ``ends="absorbing"``. The paper's
        minibatches have 64 whole episodes per side. Here they have as many transitions as an agent has live steps, on
        average, in 64 episodes of the demonstrations.

        The paper's code also trains on the observations of dead agents and on the padding after an episode's end, and pays
        for them, so all episodes have the same number of paid steps and a constant in the logit favors none. Here one
        absorbing row stands for these observations, up to ``max_steps``, which is SMAC's time limit by default; pass
        SMAX's on SMAX.

        Raises:
            ValueError: ``scenario`` is not one of the paper's.
        """
        return cls(demonstrations, **{**paper.settings(demonstrations, scenario), **overrides})

    @property
    def num_agents(self) -> int:
        """K, the number of agents."""
        return len(self.agents)

    @standard_modes
    def record(
        self,
        observations: ArrayLike | Tensor,
        alive: ArrayLike,
        *,
        broken: ArrayLike | None = None,
        actions: ArrayLike | None = None,
        after: AfterStep | None = None,
    ) -> None:
        """Record the agents' observations before their actions (line 6).

        Args:
            observations: Float32 [T, N, K, D], padded to the widest agent.
            alive: Bool [T, N, K]; observations of dead agents train no discriminator.
            broken: Bool [T, N]; steps to ignore, because the simulator failed in their episode.
            actions: Integers [T, N, K] or floats [T, N, K, A]; needed for ``inputs="state-action"``.
            after: What followed the steps, [T, N, ...]; needed for ``inputs="transition"`` and ``ends="absorbing"``.

        Raises:
            ValueError: A shape does not fit, a live observation is not finite or larger than 1e18, or actions or
                ``after`` are missing. Then nothing is recorded.
            RuntimeError: Another process made this matcher.
        """
        self._check_process()
        self._reader.check_given(actions, after)
        steps = self._reader.read(observations, alive, broken, actions, after)
        if steps.rows.ndim != 4:
            raise ValueError(
                f"expected observations [T, N, K, D], got {tuple(np.shape(observations))}; add axes of length 1"
            )
        self._recorded.add(steps)

    @standard_modes
    def update(self, agents: Collection[str] | None = None, *, convergence: Convergence | None = None) -> dict[str, float]:
        """Train every agent's discriminator on the recorded observations (lines 8 and 9). Without new ones, train nothing.

        Args:
            agents: Train the discriminators of these agents only, as Algorithm 2 does; the others', and their offsets,
                stay as they are, and they can be trained on the same rollout until `record` begins the next. All by default.
            convergence: Train until all of them have converged, instead of for ``updates`` minibatches.

        Returns:
            "trained", 1 or 0; "transitions", the number of these agents' new live transitions; "offset/<agent>". If it
            trained, also the means over minibatches of "loss", "gradient_penalty", "expert_accuracy", "policy_accuracy",
            "expert_logit" and "policy_logit", averaged over all trained agents and as "<name>/<agent>";
            "gail_reward_std/<agent>", the standard deviation of r_gail over the agent's new live transitions; and
            "separation/<agent>", "single_feature/<agent>" and "single_feature_index/<agent>", which say whether a
            discriminator is blind or knows the experts by one feature alone (`dm2_wrappers.matching.diagnosis`). Agents
            without transitions in the buffer are not trained. With ``convergence`` also "minibatches" and "converged", 1 or
            0, both per agent as well.

        Raises:
            TypeError: ``convergence`` is no `Convergence`.
            ValueError: An unknown agent; or an agent's discriminator cannot be trained on its observations, because numbers
                overflow. Then all discriminators are as before the update.
            RuntimeError: Another process made this matcher.

        Warns:
            UserWarning: A discriminator is blind, or knows by one feature alone; once each.
        """
        self._check_process()
        if not isinstance(convergence, Convergence | None):
            raise TypeError(f"convergence must be a Convergence or None, got {convergence!r}")
        self._experts.renew()
        chosen = self._chosen(agents)
        new = self._recorded.new[chosen]
        trains = bool(new.any()) and any(self._experts.counts)
        metrics = {"trained": float(trains), "transitions": float(new.sum())}
        if trains:
            metrics |= self._training.update(
                self._recorded,
                chosen,
                updates=self.updates,
                batch_size=self.batch_size,
                center=self.center,
                convergence=convergence,
            )
            self._recorded.trained(chosen)
        self.metrics = metrics | {f"offset/{a}": float(o) for a, o in zip(self.agents, self._pay.offsets, strict=True)}
        return dict(self.metrics)

    @overload
    def rewards(
        self, observations: Mapping[str, Any], alive: None = None, *, actions: Any = None, after: Any = None
    ) -> dict[str, float]: ...
    @overload
    def rewards(
        self,
        observations: ArrayLike | Tensor,
        alive: ArrayLike | None = None,
        *,
        actions: ArrayLike | None = None,
        after: AfterStep | None = None,
    ) -> NDArray[np.float32]: ...
    def rewards(
        self, observations: Any, alive: Any = None, *, actions: Any = None, after: Any = None
    ) -> dict[str, float] | NDArray[np.float32]:
        """Compute r_gail of each agent's observations with the current discriminators (line 10). This changes no state.

        Args:
            observations: Float32 [..., K, D]; or ``{agent: observation}`` of some or all agents, each an array of the
                agent's own features or PettingZoo's ``{"observation": ..., "action_mask": ...}``.
            alive: Bool [..., K]; by default all agents are alive. The reward of dead agents is 0.
            actions: Integers [..., K] or floats [..., K, A]; or ``{agent: action}``. Needed for ``inputs="state-action"``.
            after: What followed, an `AfterStep` of [..., ...]; or ``{agent: next observation}``. Needed for
                ``inputs="transition"``, where the reward is 0 if the agent is dead after the step in mid-episode. With
                ``ends="absorbing"`` an agent's last live step is also paid for the rest of its time; without
                ``after`` no step counts as the last one.

        Returns:
            Float32 [..., K]; or ``{agent: reward}`` of the given agents. 0 for agents without any demonstration, as with
            `SelfImitation` before the first episode has ended.

        Raises:
            ValueError: A shape does not fit, an agent is unknown, a live observation is not finite or larger than
                1e18, actions or ``after`` are missing, or a reward is not finite.
            RuntimeError: Another process made this matcher.
        """
        self._check_process()
        return self._joint.of(observations, alive, actions, after)

    def algorithm1(self, chunks: Sequence[tuple[Any, ...]]) -> list[NDArray[np.float32]]:
        """Do lines 6 to 10 of Algorithm 1: record a rollout, update once, compute rewards with the updated discriminators.

        Use this with learners that collect rollouts themselves. Call it between collecting a rollout and
        computing advantages, then add ``coefficient * reward`` to the environment's rewards (line 11). `metrics` has
        what the update returned.

        Args:
            chunks: Pairs of an agent and its observations before each action, [n, D_agent]. Chunks may have any length
                and order. An agent may have several (the older first) or none. Leave out steps at which the agent was
                dead, and episodes in which the simulator failed. With ``inputs="state-action"``, pass triples (agent,
                observations, actions [n] or [n, A]). With ``inputs="transition"``, pass triples (agent, observations,
                next observations).

        Returns:
            r_gail of each chunk's observations, float32 [n], in the order of the chunks.

        Raises:
            TypeError: ``chunks`` is not a list.
            ValueError: An agent is unknown, or observations have the wrong size, are not finite or larger than 1e18. Then
                nothing is recorded. Chunks do not say enough for ``ends="absorbing"`` or `SelfImitation`. Or `update`
                raised it.
            RuntimeError: Another process made this matcher.

        Example:
            >>> rewards = matcher.algorithm1([("a", observations_of_a), ("b", observations_of_b)])
            >>> for chunk, gail_rewards in zip(rollout, rewards):
            ...     chunk.rewards += 0.3 * gail_rewards
        """
        if self.self_imitation is not None:
            raise ValueError(
                "chunks do not say what episodes return, which SelfImitation needs: use JointRollout or a wrapper"
            )
        if not isinstance(chunks, Sequence) or isinstance(chunks, str):
            raise TypeError(f"chunks must be a list of pairs (agent, observations), got {type(chunks).__name__}")
        observations, given, places, more = self._reader.from_chunks(chunks)
        self.record(observations, given, **more)
        self.update()
        paid = self.rewards(observations, given, **more)
        return [paid[steps, 0, k].copy() for steps, k in places]

    @standard_modes
    def state_dict(self) -> dict[str, Any]:
        """A copy of the state (without the demonstrations), in types that ``torch.load(weights_only=True)`` accepts."""
        return {
            "discriminators": self.discriminators.state_dict(),
            **self._recorded.state_dict(),
            "offsets": self._pay.offsets.clone(),
            "streams": self._training.minibatches.state(),
            "diagnosis": self._training.diagnosis.state_dict(),
            **({} if self.self_imitation is None else {"self_imitation": self.self_imitation.state_dict()}),
        }

    @standard_modes
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned. Training then continues with the same numbers, bit for bit.

        Raises:
            ValueError: The state has other agents, sizes, networks or ``buffer_size``, or is damaged. Then nothing changes.
        """
        if not isinstance(state, Mapping):
            raise ValueError(f"expected what state_dict() of a matcher returned, got {type(state).__name__}")
        recorded, minibatches, diagnosis = self._recorded.empty(), self._training.minibatches, self._training.diagnosis
        streams, counts = minibatches.state(), diagnosis.state_dict()
        own = None if self.self_imitation is None else self.self_imitation.state_dict()
        try:
            self.discriminators.check_state(state["discriminators"])
            recorded.load_state_dict(state)
            if self.self_imitation is not None:
                self.self_imitation.load_state_dict(state["self_imitation"])
            new, offsets = recorded.new, state["offsets"].clone()
            if new.shape != (self.num_agents,) or offsets.shape != new.shape or not offsets.isfinite().all():
                raise ValueError(f"expected one finite offset for each of {self.num_agents} agents, got {offsets}")
            minibatches.load_state(state["streams"])
            # A state of before it was saved has none, and the diagnosis goes on as it is.
            diagnosis.load_state_dict(state.get("diagnosis", counts))
            self._experts.restored()
            self.discriminators.load_state_dict(state["discriminators"])
        except Exception as error:
            minibatches.load_state(streams)
            diagnosis.load_state_dict(counts)
            if self.self_imitation is not None and own is not None:
                self.self_imitation.load_state_dict(own)
                self._experts.restored()
            if isinstance(error, ValueError):
                raise
            what = f"it lacks {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"the saved state of the matcher is damaged: {what}") from error
        self._recorded, self._pay.offsets = recorded, offsets

    @property
    def needs_actions(self) -> bool:
        """Whether `record` and `rewards` need the agents' actions."""
        return self._reader.needs_actions

    @property
    def needs_after(self) -> bool:
        """Whether `record` and `rewards` need what followed each step."""
        return self._reader.needs_after

    def check_given(self, actions: Any, after: Any) -> None:
        """Raise ``ValueError`` if `record` needs actions or what followed, and a caller has none."""
        self._reader.check_given(actions, after)

    def check_actions(self, actions: Any, shape: tuple[int, ...]) -> None:
        """Raise ``ValueError`` if `record` needs actions, and these are not those of agents of this shape [..., K]."""
        self._reader.check_actions(actions, shape)

    def check_needs_observations_only(self, where: str) -> None:
        """Check that observations are enough for this matcher, for integrations that can give it nothing else.

        Raises:
            ValueError: It needs actions, what followed each step, or whole episodes.
        """
        if self.needs_actions or self.needs_after or self.self_imitation is not None:
            raise ValueError(
                f"{where} gives the discriminators observations only: make the matcher from demonstrations, with "
                'inputs="state" and ends="live"'
            )

    def use_time_limit_of(self, env: Any) -> None:
        """With ``ends="absorbing"`` and no ``max_steps``, take over the environment's.

        Raises:
            ValueError: It has no attribute ``max_steps`` either.

        Warns:
            UserWarning: The given ``max_steps`` is not the environment's.
        """
        if self._absorbing is None:
            return
        found = getattr(env, "max_steps", None) or getattr(getattr(env, "unwrapped", None), "max_steps", None)
        if self._absorbing.max_steps is None:
            self._absorbing.max_steps = None if found is None else int(found)
            self.options["max_steps"] = self._absorbing.limit()
        elif isinstance(found, int) and found != self._absorbing.max_steps:
            warnings.warn(
                f"the matcher's max_steps is {self._absorbing.max_steps}, but the environment's time limit is {found} "
                "steps: make a new matcher with this environment's max_steps",
                stacklevel=3,
            )

    def use_bootstrapping(self) -> None:
        """With ``ends="absorbing"`` and no ``beyond_limit``, pay as is right for learners that bootstrap at time limits."""
        if self._absorbing is not None and self.options["beyond_limit"] is None:
            self._absorbing.beyond_limit = self.options["beyond_limit"] = self._absorbing.gamma < 1

    def _chosen(self, agents: Collection[str] | None) -> Tensor:
        """Which agents these are, bool [K]."""
        if isinstance(agents, str):
            raise ValueError(f"agents must be a list of names, got {agents!r}; for one agent pass [{agents!r}]")
        wanted = self.agents if agents is None else tuple(agents)
        if unknown := set(wanted) - set(self.agents):
            raise ValueError(f"expected agents among {list(self.agents)}, got {sorted(map(str, unknown))}")
        return torch.tensor([agent in wanted for agent in self.agents])


def checked_matcher(matcher: Any) -> DistributionMatcher:
    """The matcher, if it is one.

    Raises:
        TypeError: It is something else, such as demonstrations.
    """
    if not isinstance(matcher, DistributionMatcher):
        raise TypeError(
            f"matcher must be a DistributionMatcher, got {matcher!r}; make one: "
            "DistributionMatcher(Demonstrations.load(path), seed=0)"
        )
    return matcher
