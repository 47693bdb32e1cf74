"""Distribution matching (Algorithm 1, lines 6 to 11): demonstrations, discriminators and the agents' own transitions.

For every agent k on its own::

    line 6      record()   keep what agent k sees now, M steps of it
    lines 8-9   update()   sample from its demonstrations D_k and from what was recorded, train its discriminator
    line 10     rewards()  r_gail of agent k from the updated discriminator
    line 11     r_env + c * r_gail: done by the wrappers and by `sb3`, which know r_env and c
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, overload

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from dm2_wrappers import _checks
from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.matching import paper
from dm2_wrappers.matching.discriminators import Discriminators
from dm2_wrappers.matching.inputs import AgentInputs
from dm2_wrappers.matching.transition_buffer import TransitionBuffer
from dm2_wrappers.rng_state import derive_seed
from dm2_wrappers.unwrap import Matcher

# Logit -> reward. D is sigmoid(logit), so -log(1 - D) is softplus(logit) and log D is -softplus(-logit).
_REWARDS: dict[str, Callable[[Tensor], Tensor]] = {
    "logit": lambda logit: logit,
    "-log(1-D)": F.softplus,
    "log D": F.logsigmoid,
}
_ROWS = 4096  # transitions of each agent at a time when an offset is computed: bounds the memory


class DistributionMatcher(Matcher):
    """All agents' discriminators, what they are trained on, and the reward they pay.

    One matcher serves all copies of an environment: it cannot be copied or pickled (use `state_dict`).

    Args:
        demonstrations: The experts' (`Demonstrations`).
        updates: Minibatches an `update`.
        batch_size: Live transitions of each side, expert and policy, a minibatch and agent; drawn with replacement.
        buffer_size: An agent's newest live transitions to draw the policy's side from.
        gradient_penalty: Weight of the gradient penalty.
        learning_rate: Adam's.
        hidden: Widths of the discriminators' tanh layers.
        reward: "logit" (log D - log(1 - D)), "-log(1-D)" or "log D".
        center: Pay the reward less an offset: its mean, after an update, over the agent's live transitions recorded
            since the update before (of more than ``buffer_size``, over those kept). Before the first update the
            offset is 0; an update without new live transitions of an agent leaves its offset as it is.
        keep_buffer: Keep policy transitions across updates; False empties the buffer after each.
        module: ``module(agent, size)`` makes an agent's network instead of ``hidden``; trained with autograd.
        seed: Of weights and minibatches; an agent's depend on the seed and its name only.
        device: Where discriminators, demonstrations and buffer live.

    Attributes:
        demonstrations: As given.
        options: The other arguments but ``module`` and ``device``, as JSON can hold them.
        custom_networks: Whether ``module`` was given.

    Raises:
        ValueError: An option that cannot work, or an agent without a live observation in the demonstrations.
    """

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
        # Everything that, with the demonstrations, makes a matcher like this one; numbers and strings only.
        self.options: dict[str, Any] = {
            "updates": _checks.integer("updates", updates, least=1),
            "batch_size": _checks.integer("batch_size", batch_size, least=1),
            "buffer_size": _checks.integer("buffer_size", buffer_size, least=1),
            "gradient_penalty": _checks.number("gradient_penalty", gradient_penalty, least=0),
            "learning_rate": _checks.number("learning_rate", learning_rate, above=0),
            "hidden": list(_checks.widths("hidden", hidden)),
            "reward": _checks.choice("reward", reward, tuple(_REWARDS)),
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
        self._experts = self._inputs.stacked(observations)
        self._expert_counts = [len(rows) for rows in observations]
        self._buffer = TransitionBuffer(self.buffer_size, self.num_agents, max(self.sizes), self._device)
        self._new = torch.zeros(self.num_agents, dtype=torch.int64)  # live transitions since the last update, an agent
        self._offsets = torch.zeros(self.num_agents, dtype=torch.float64)
        self._streams = [np.random.default_rng(derive_seed(seed, "minibatches", agent)) for agent in self.agents]

    @classmethod
    def paper(cls, demonstrations: Demonstrations, scenario: str, **overrides: Any) -> DistributionMatcher:
        """The paper's settings for one of its SMAC scenarios (its c is in ``matching.paper.COEFFICIENTS``).

        120 minibatches of 64 whole episodes a side, here of as many transitions as an agent lives through in 64
        episodes of the demonstrations; policy data of the last rollout only; the raw logit.

        Raises:
            ValueError: Not one of the paper's scenarios.
        """
        return cls(demonstrations, **{**paper.settings(demonstrations, scenario), **overrides})

    @property
    def num_agents(self) -> int:
        """K, the number of agents."""
        return len(self.agents)

    def record(self, observations: ArrayLike | Tensor, alive: ArrayLike, *, broken: ArrayLike | None = None) -> None:
        """Keep what the agents saw before their actions: the data of line 6.

        Args:
            observations: Float32 [T, N, K, D], padded to the widest agent.
            alive: Bool [T, N, K]; what the dead see trains no discriminator.
            broken: Bool [T, N]; steps to forget, because the simulator broke their episode.

        Raises:
            ValueError: A shape that does not fit, or a live observation that is not finite. Nothing is kept then.
        """
        rows, live = self._inputs.joint(observations, alive, broken)
        if rows.ndim != 4:
            raise ValueError(f"expected observations [T, N, K, D], got {tuple(rows.shape)}; add axes of length 1")
        self._buffer.add(rows, live)
        self._new += live.sum((0, 1)).cpu()

    def update(self) -> dict[str, float]:
        """Train every agent's discriminator (lines 8 and 9) on what was recorded; nothing new, no training.

        Returns:
            "trained", 1 or 0; "transitions", the new live ones of all agents; "offset/<agent>"; and if it trained, as
            means over minibatches, "loss", "gradient_penalty", "expert_accuracy", "policy_accuracy", "expert_logit"
            and "policy_logit", of all trained agents together and as "<name>/<agent>". An agent of which the buffer
            holds nothing is not trained and has none of the latter.
        """
        metrics = {"trained": float(self._new.any()), "transitions": float(self._new.sum())}
        if self._new.any():
            metrics |= self._train()
            if self.center:
                self._offsets = self._means_since_last_update()
            self._new.zero_()
            if not self.keep_buffer:
                self._buffer.clear()
        return metrics | {f"offset/{a}": float(o) for a, o in zip(self.agents, self._offsets, strict=True)}

    @overload
    def rewards(self, observations: Mapping[str, Any], alive: None = None) -> dict[str, float]: ...
    @overload
    def rewards(self, observations: ArrayLike | Tensor, alive: ArrayLike | None = None) -> NDArray[np.float32]: ...
    def rewards(self, observations: Any, alive: Any = None) -> dict[str, float] | NDArray[np.float32]:
        """r_gail of each agent's observations under the discriminators as they are now (line 10).

        Args:
            observations: Float32 [..., K, D]; or ``{agent: observation}`` of some or all agents, each an array of the
                agent's own features or PettingZoo's ``{"observation": ..., "action_mask": ...}``.
            alive: Bool [..., K], all by default; the reward of the dead is 0.

        Returns:
            Float32 [..., K]; or ``{agent: reward}`` of the agents given.

        Raises:
            ValueError: A shape that does not fit, an unknown agent, a live observation that is not finite.
        """
        if isinstance(observations, Mapping):
            joint, given = self._inputs.by_name(observations)
            of_all = self.rewards(joint, given)
            return {agent: float(of_all[self.agents.index(agent)]) for agent in observations}
        rows, live = self._inputs.joint(observations, alive)
        paid = _REWARDS[self.reward](self.discriminators.logits(rows)) - self._offsets.to(rows)
        return torch.where(live, paid, 0.0).cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that changes (not the demonstrations), of what ``torch.load(weights_only=True)`` takes."""
        return {
            "discriminators": self.discriminators.state_dict(),
            "buffer": self._buffer.state_dict(),
            "new": self._new.clone(),
            "offsets": self._offsets.clone(),
            "streams": [json.dumps(stream.bit_generator.state) for stream in self._streams],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; everything goes on bit for bit.

        Raises:
            ValueError: It is of other agents, sizes, networks or ``buffer_size``. Nothing has changed then.
        """
        self.discriminators.check_state(state["discriminators"])
        self._buffer.load_state_dict(state["buffer"])
        self.discriminators.load_state_dict(state["discriminators"])
        self._new, self._offsets = state["new"].clone(), state["offsets"].clone()
        for stream, saved in zip(self._streams, state["streams"], strict=True):
            stream.bit_generator.state = json.loads(saved)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a DistributionMatcher cannot be copied or pickled, because each copy would silently train on a slice of "
            "the data: share the one matcher (wrap after vectorising, with DM2VectorEnv) or save its state_dict()"
        )

    def _train(self) -> dict[str, float]:
        """Lines 8 and 9, `updates` times."""
        counts = self._buffer.counts.tolist()
        active = [count > 0 for count in counts]
        shape = (self.updates, self.batch_size)
        experts, policies = np.zeros((2, self.num_agents, *shape), dtype=np.int64)
        alphas = np.zeros((self.num_agents, *shape), dtype=np.float32)
        first = 0
        for k, stream in enumerate(self._streams):  # agent k draws the same alone or among others
            if active[k]:
                experts[k] = first + stream.integers(self._expert_counts[k], size=shape)
                policies[k] = stream.integers(counts[k], size=shape)
                alphas[k] = stream.random(shape, dtype=np.float32)
            first += self._expert_counts[k]
        indices = [torch.from_numpy(array).to(self._device).unbind(1) for array in (experts, policies, alphas)]
        history = []
        for expert_rows, policy_rows, alpha in zip(*indices, strict=True):
            expert = self._experts.index_select(0, expert_rows.flatten()).unflatten(0, expert_rows.shape)  # line 8
            policy = self._buffer.gather(policy_rows)
            history.append(self.discriminators.update(expert, policy, alpha, active))  # line 9
        metrics: dict[str, float] = {}
        for name in history[0]:
            means = torch.stack([minibatch[name] for minibatch in history]).mean(0).tolist()
            of_agents = {f"{name}/{agent}": means[k] for k, agent in enumerate(self.agents) if active[k]}
            metrics |= {name: sum(of_agents.values()) / len(of_agents), **of_agents}
        return metrics

    def _means_since_last_update(self) -> Tensor:
        """Each agent's mean reward, without offset, over what was recorded since the last update: float64 [K]."""
        counts = self._buffer.counts.cpu()
        new = self._new.minimum(counts)
        age = torch.arange(int(new.max()))  # 0: an agent's newest transition
        total = torch.zeros_like(self._offsets)
        for some in age.split(_ROWS):
            rows = self._buffer.gather((counts[:, None] - 1 - some).clamp(min=0).to(self._device))
            paid = _REWARDS[self.reward](self.discriminators.logits(rows.transpose(0, 1))).T.cpu()
            total += torch.where(some < new[:, None], paid.double(), 0.0).sum(1)
        return torch.where(new > 0, total / new.clamp(min=1), self._offsets)
