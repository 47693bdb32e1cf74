"""How a team chooses actions outside training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dm2_wrappers.sb3.policy import TeamPolicy
from dm2_wrappers.sb3.vec_env import AgentVecEnv
from dm2_wrappers.vector import MultiAgentVectorEnv


class PlayingTeam:
    """The part of `IndependentLearners` that chooses actions."""

    env: MultiAgentVectorEnv
    models: dict[str, Any]
    _views: dict[str, AgentVecEnv]
    _known_masks: set[str]

    def policy(self, *, deterministic: bool = False) -> TeamPolicy:
        """The team as a joint policy on batched arrays, e.g. for ``Demonstrations.record``.

        Raises:
            RuntimeError: Called by a callback while `learn` is under way with ``workers``.
        """
        self._refuse_stale_learners("policy(), predict() or evaluate()")
        return TeamPolicy(self.models, deterministic=deterministic, masked=self._masked_agents())

    def _refuse_stale_learners(self, what: str) -> None:
        raise NotImplementedError

    def _masked_agents(self) -> set[str]:
        """The agents whose environment is known to have action masks."""
        native = getattr(getattr(self.env, "layout", None), "native_observation_spaces", {})
        declared = {agent for agent, space in native.items() if "action_mask" in (getattr(space, "spaces", None) or ())}
        return declared | self._known_masks | {agent for agent, view in self._views.items() if view.has_masks}

    def predict(
        self,
        observations: Mapping[str, Any],
        deterministic: bool = False,
        policy: TeamPolicy | None = None,
        *,
        infos: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Actions for a ``ParallelEnv``'s observations, both in the form that the environment uses.

        Args:
            observations: ``{agent: observation}`` of the agents that are present. An observation may be
                ``{"observation": ..., "action_mask": ...}``.
            deterministic: Choose the most likely action instead of sampling one.
            policy: What ``policy()`` returned. Recurrent learners need it: pass the same one at each step, and call its
                ``start_episode(np.ones(1, bool))`` at each reset.
            infos: ``{agent: info}``; an ``"action_mask"`` in them counts where the observation has none.

        Returns:
            ``{agent: action}`` of those agents, in their own action spaces.

        Raises:
            TypeError: Something else than dicts, or another ``policy``.
            ValueError: An unknown agent, an observation of another size, a mask that is wrong or missing for
                MaskablePPO in an environment with masks, or recurrent learners without ``policy``.
        """
        if policy is None:
            policy = self.policy(deterministic=deterministic)
            if policy.recurrent:
                raise ValueError(
                    "recurrent learners carry a state from step to step: make policy = team.policy() once, call "
                    "policy.start_episode(np.ones(1, bool)) at each reset and team.predict(observations, policy=policy) at "
                    "each step; to record, use Demonstrations.record(vectorize(make_env, 1), team.policy(), episodes)"
                )
        if not isinstance(policy, TeamPolicy):
            raise TypeError(f"policy must be what team.policy() returned, got {type(policy).__name__}")
        return policy.native_actions(observations, getattr(self.env, "layout", None), infos)
