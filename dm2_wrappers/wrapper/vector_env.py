"""DM2 around a batched environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from dm2_wrappers import _checks
from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.matching import AfterStep, Coefficient, DistributionMatcher, SelfImitation
from dm2_wrappers.vector import Infos, MultiAgentVectorEnv, MultiAgentVectorWrapper, StepResult
from dm2_wrappers.vector.base import joint_ends, present_after, present_at_reset
from dm2_wrappers.wrapper.reward_mixer import RewardMixer, refuse_second_matcher


class DM2VectorEnv(RewardMixer, MultiAgentVectorWrapper):
    """A vector environment whose rewards are r_env + c * r_gail, with one matcher for all sub-environments.

    The wrapper adds ``"env_reward"`` and ``"gail_reward"`` to ``infos``, both [N, K], 0 at reset; if ``infos`` of a wrapper
    inside had ``"env_reward"``, this is kept as ``"own_reward"``. Arguments and errors are those of `DM2ParallelEnv`.
    ``update_every`` counts joint steps summed over the sub-environments.
    """

    def __init__(
        self,
        venv: MultiAgentVectorEnv,
        demos_or_matcher: Demonstrations | SelfImitation | DistributionMatcher,
        *,
        coefficient: Coefficient,
        env_coefficient: float = 1.0,
        update_every: int | None = None,
    ) -> None:
        if isinstance(venv, ParallelEnv):
            raise TypeError(
                f"DM2VectorEnv wraps a vector environment, got the ParallelEnv {type(venv).__name__}; use DM2ParallelEnv, "
                "or batch it first: DM2VectorEnv(vectorize(make_env, num_envs), ...)"
            )
        super().__init__(venv)
        refuse_second_matcher(venv)
        self._set_up(demos_or_matcher, coefficient, env_coefficient, update_every)
        self.matcher.demonstrations.check_compatible(venv.possible_agents, venv.observation_sizes, venv.env_id)
        self.matcher.use_time_limit_of(venv)
        self._observations: NDArray[np.float32] | None = None
        self._alive: NDArray[np.bool_]
        self._present: NDArray[np.bool_]

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], Infos]:
        """Start a new episode in every sub-environment."""
        observations, infos = self.env.reset(seed=seed, options=options)
        self._pending.cut()
        self._clock.restart()
        self._see(observations, infos, present_at_reset(infos))
        nothing = np.zeros(self._alive.shape, np.float32)
        return observations, {**infos, "env_reward": nothing, "gail_reward": nothing.copy()}

    def _see(self, observations: NDArray[np.float32], infos: Infos, present: NDArray[np.bool_]) -> None:
        """Keep what the agents see now, in copies: the environment, or who called, may use its arrays again."""
        self._observations, self._alive = np.array(observations), _checks.flags("alive in infos", infos["alive"])
        self._present = present

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Take one joint step in every sub-environment; the rewards are the mixed ones."""
        if self._observations is None:
            raise RuntimeError("call reset() before step()")
        before, alive, present = self._observations, self._alive, self._present
        done = np.array(actions) if self._needs_actions else None  # a copy: the caller may use its array again
        observations, env_rewards, terminations, truncations, infos = self.env.step(actions)
        self._see(observations, infos, present_after(terminations, truncations, infos))
        if not np.isfinite(env_rewards).all():
            i, k = np.argwhere(~np.isfinite(env_rewards))[0]
            raise ValueError(
                f"the environment's reward must be a finite number, but agent {self.possible_agents[k]!r} in "
                f"sub-environment {i} got {env_rewards[i, k]}"
            )
        ended, broken = joint_ends(terminations, truncations), infos.get("broken")
        time, after = self._clock.tick(ended), None
        if self.matcher.needs_after:
            after = AfterStep.of(terminations, truncations, infos, time)
        gail_rewards = self.matcher.rewards(before, alive, actions=done, after=after)
        rewards = (self.env_coefficient * env_rewards + self._mixing.array * gail_rewards).astype(np.float32)
        own = infos.get("env_reward", env_rewards)
        shaped = {"own_reward": own} if "env_reward" in infos else {}
        infos = {**infos, **shaped, "env_reward": env_rewards, "gail_reward": gail_rewards}
        self._saw(before, alive, ended, broken, done, after, time, present, (own, env_rewards, gail_rewards))
        return observations, rewards, terminations, truncations, infos
