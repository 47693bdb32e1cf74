"""Lines 6 to 11 of Algorithm 1 between a TorchRL collector and the advantages.

====== ============================================================ ===========================================
line   paper                                                        here
====== ============================================================ ===========================================
6      gather M steps of data (s, a, r_env)                         a collector, with any number of workers
8-10   sample demonstrations, update D_k, r_GAIL = D_k(s)           `DistributionMatching`
11     r_mix = r_env + c * r_GAIL                                   `DistributionMatching`
12     update policy pi_k on (s, a, r_mix)                          your GAE, loss and optimizer
====== ============================================================ ===========================================

The environments stay as they are, so workers need neither the discriminators nor a DM2 wrapper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from dm2_wrappers import _checks
from dm2_wrappers.matching import Coefficient, DistributionMatcher
from dm2_wrappers.matching.coefficient import as_array, checked_fixed
from dm2_wrappers.matching.matcher import checked_matcher


class DistributionMatching:
    """Pays the agents of a collected batch r_env + c * r_gail: ``batch = matching(batch)``, before advantages are computed.

    Each call records the batch, updates the discriminators once, and pays with the updated ones. Call it once for each
    batch, in the process that made the matcher. It can be a collector's ``postproc`` too.

    It reads the keys that TorchRL's ``PettingZooWrapper`` writes, for each group of agents:

    * ``(group, "observation")``, or ``(group, "observation", "observation")`` where the environment's observations hold an
      action mask;
    * ``("next", group, "reward")``, which is replaced. What it was is kept in ``("next", group, "env_reward")``, and r_gail
      in ``("next", group, "gail_reward")``;
    * ``(group, "mask")`` (``use_mask=True``) and ``(group, "info", "alive")``, where they exist: the steps at which an agent
      was absent or dead train no discriminator, and their r_gail is 0;
    * ``("next", group, "info", "broken")``, where it exists: the simulator failed, and the episode is not recorded;
    * ``("collector", "mask")``, where trajectories were split and padded.

    ``PettingZooWrapper`` ends an episode at the first agent's death unless it gets ``done_on_any=False``.

    Args:
        matcher: The discriminators.
        coefficient: The paper's c, for all agents or ``{agent: c}``.
        group_map: ``env.group_map``: each group's agents, in the order of the group's agent axis.
        env_coefficient: Factor on r_env; 0 is GAIL alone.

    Attributes:
        metrics: What the newest call measured: what ``matcher.update()`` returned, and each agent's mean rewards at its live
            steps, ``"env_reward/<agent>"`` and ``"gail_reward/<agent>"``, and its ``"coefficient/<agent>"``.

    Raises:
        TypeError: ``matcher`` is not a `DistributionMatcher`.
        ValueError: An option out of range, other agents than the matcher's, or a matcher that needs more than observations.

    Example:
        >>> matching = dm2.torchrl.DistributionMatching(matcher, coefficient=0.3, group_map=env.group_map)
        >>> for batch in collector:
        ...     batch = matching(batch)
        ...     loss.value_estimator(batch)
    """

    def __init__(
        self,
        matcher: DistributionMatcher,
        *,
        coefficient: Coefficient,
        group_map: Mapping[str, Sequence[str]],
        env_coefficient: float = 1.0,
    ) -> None:
        checked_matcher(matcher).check_needs_observations_only("dm2.torchrl")
        self.matcher = matcher
        self.coefficient = coefficient
        self.env_coefficient = _checks.number("env_coefficient", env_coefficient, least=0)
        self.group_map = {group: list(agents) for group, agents in group_map.items()}
        agents = [agent for members in self.group_map.values() for agent in members]
        if sorted(agents) != sorted(matcher.agents):
            raise ValueError(f"group_map has the agents {agents}, and the demonstrations {list(matcher.agents)}")
        # Where each group's agents are on the matcher's agent axis.
        self._places = {g: [matcher.agents.index(agent) for agent in members] for g, members in self.group_map.items()}
        self.metrics: dict[str, float] = {}

    @property
    def coefficient(self) -> Coefficient:
        """The paper's c, for all agents or ``{agent: c}``. You can assign it between two batches."""
        return self._coefficient

    @coefficient.setter
    def coefficient(self, value: Coefficient) -> None:
        self._coefficient: Coefficient = checked_fixed(value, self.matcher.agents, "dm2.torchrl")

    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        """Record the batch, update the discriminators, and add their rewards.

        Args:
            batch: What a collector returned: one or more batch dimensions, of which the last is time.

        Returns:
            The same batch, with mixed rewards.

        Raises:
            KeyError: A group has no rewards of its own.
            ValueError: Observations of another size than the demonstrations', or those of `DistributionMatcher.record` and
                `DistributionMatcher.update`.
        """
        observations, live, broken = self._joint(batch)
        self.matcher.record(observations, live, broken=broken)
        self.metrics = dict(self.matcher.update())
        paid = torch.as_tensor(self.matcher.rewards(observations, live))  # [T, N, K]
        # Back to the batch's own dimensions.
        gail_rewards, live = (each.transpose(0, 1).reshape(*batch.batch_size, -1) for each in (paid, live))
        c = torch.as_tensor(as_array(self.coefficient, self.matcher.agents))
        self.metrics |= {f"coefficient/{agent}": value for agent, value in zip(self.matcher.agents, c.tolist(), strict=True)}
        for group, places in self._places.items():
            env_reward = batch.get(("next", group, "reward"))
            own = gail_rewards[..., places].unsqueeze(-1).to(env_reward)
            mixed = self.env_coefficient * env_reward + c[places].unsqueeze(-1).to(env_reward) * own
            for name, value in (("env_reward", env_reward), ("gail_reward", own), ("reward", mixed)):
                batch.set(("next", group, name), value)
            for i, agent in enumerate(self.group_map[group]):
                rows = live[..., places[i]]
                self._measure(f"env_reward/{agent}", env_reward[..., i, 0], rows)
                self._measure(f"gail_reward/{agent}", own[..., i, 0], rows)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The matcher's, for your checkpoint."""
        return self.matcher.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; see `DistributionMatcher.load_state_dict`."""
        self.matcher.load_state_dict(state)

    def _measure(self, name: str, values: Tensor, rows: Tensor) -> None:
        rows = rows.to(values.device)
        self.metrics[name] = float(values[rows].mean()) if rows.any() else 0.0

    def _joint(self, batch: TensorDictBase) -> tuple[Tensor, Tensor, Tensor]:
        """Observations [T, N, K, D], who was alive [T, N, K], and which steps to discard [T, N]."""
        sizes, k = self.matcher.sizes, len(self.matcher.agents)
        observations = torch.zeros(*batch.batch_size, k, max(sizes))
        live = torch.ones(*batch.batch_size, k, dtype=torch.bool)
        broken = torch.zeros(batch.batch_size, dtype=torch.bool)
        for group, places in self._places.items():
            rows = _features(batch, group)
            for agent, place in zip(self.group_map[group], places, strict=True):
                if rows.shape[-1] != sizes[place]:
                    raise ValueError(
                        f"agent {agent!r} has {rows.shape[-1]} observation features in the batch, but {sizes[place]} in the "
                        "demonstrations"
                    )
            observations[..., places, : rows.shape[-1]] = rows.to(observations)
            for key in ((group, "mask"), (group, "info", "alive")):
                if (flags := batch.get(key, None)) is not None:
                    live[..., places] &= _bool(flags, (*batch.batch_size, len(places)))
            if (flags := batch.get(("next", group, "info", "broken"), None)) is not None:
                broken |= _bool(flags, (*batch.batch_size, len(places))).any(-1)
        if (padding := batch.get(("collector", "mask"), None)) is not None:
            live &= _bool(padding, (*batch.batch_size, 1))
        if broken.any():
            broken = _whole_episodes(broken, batch)
        steps = batch.batch_size[-1]
        return (
            observations.reshape(-1, steps, k, observations.shape[-1]).transpose(0, 1),
            live.reshape(-1, steps, k).transpose(0, 1),
            broken.reshape(-1, steps).T,
        )


def _features(batch: TensorDictBase, group: str) -> Tensor:
    """A group's observations, flat: [*B, n, D]."""
    observation = batch.get((group, "observation"))
    if isinstance(observation, TensorDictBase) and set(observation.keys()) == {"observation"}:
        observation = observation.get("observation")
    if isinstance(observation, TensorDictBase):
        raise ValueError(
            f"the observations of group {group!r} have the parts {sorted(observation.keys())}, but one vector is "
            "needed: concatenate them in a transform of the environment"
        )
    return observation.flatten(batch.batch_dims + 1)


def _bool(flags: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Flags as bool of this shape, on the CPU; infos hold them as numbers, sometimes with a last axis of 1."""
    return (flags != 0).reshape(shape).cpu()


def _whole_episodes(broken: Tensor, batch: TensorDictBase) -> Tensor:
    """All steps of the trajectories of which one step is marked."""
    trajectories = batch.get(("collector", "traj_ids"), None)
    if trajectories is None:
        raise ValueError("the simulator broke an episode, and the batch has no ('collector', 'traj_ids') to find its steps")
    trajectories = trajectories.reshape(broken.shape).cpu()
    return torch.isin(trajectories, trajectories[broken])
