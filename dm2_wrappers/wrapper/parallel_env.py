"""DM2 around a PettingZoo ``ParallelEnv``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper

from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.matching import AfterStep, Coefficient, DistributionMatcher, SelfImitation
from dm2_wrappers.vector.layout import Layout, check_parallel_env
from dm2_wrappers.vector.outcome import Seen
from dm2_wrappers.vector.reader import ParallelReader
from dm2_wrappers.wrapper.reward_mixer import RewardMixer, refuse_second_matcher


class DM2ParallelEnv(RewardMixer, BaseParallelWrapper):
    """A PettingZoo ``ParallelEnv`` whose rewards are r_env + c * r_gail (Algorithm 1, line 11).

    The wrapped environment is still a ``ParallelEnv``. The wrapper adds ``"env_reward"`` and ``"gail_reward"`` to
    ``infos[agent]`` (0 at reset) and passes everything else through. If a wrapper inside shapes rewards and keeps the
    environment's own in ``infos[agent]["env_reward"]``, these are kept as ``"own_reward"``. If the environment does not
    report ``infos[agent]["alive"]``, all ``agents`` count as alive.

    Args:
        env: Any ``ParallelEnv`` with the demonstrations' agents, with or without action masks.
        demos_or_matcher: ``Demonstrations``, ``SelfImitation``, or a ``DistributionMatcher`` if you want other options than
            the defaults.
        coefficient: The paper's c, for all agents or ``{agent: c}``, or a schedule (`dm2_wrappers.matching.schedules`).
        env_coefficient: Factor on the environment's reward. With 0 the agents are paid r_gail alone.
        update_every: Call ``update()`` automatically after this many joint steps. None: call it yourself after each rollout.

    Raises:
        TypeError: ``env`` is not a ParallelEnv, or ``demos_or_matcher`` is none of the three.
        ValueError: An option is out of range, the demonstrations have other agents or observation sizes, or ``env`` already
            has a DM2 wrapper.
    """

    def __init__(
        self,
        env: ParallelEnv,
        demos_or_matcher: Demonstrations | SelfImitation | DistributionMatcher,
        *,
        coefficient: Coefficient,
        env_coefficient: float = 1.0,
        update_every: int | None = None,
    ) -> None:
        check_parallel_env(env, "DM2ParallelEnv wraps")
        refuse_second_matcher(env)
        super().__init__(env)
        self._set_up(demos_or_matcher, coefficient, env_coefficient, update_every)
        layout = Layout(env, flatten_actions=True)
        self.matcher.demonstrations.check_compatible(layout.agents, layout.sizes, layout.env_id)
        self.observation_spaces = layout.native_observation_spaces
        self.action_spaces = layout.native_action_spaces
        self.matcher.use_time_limit_of(env)
        self._layout, self._reader = layout, ParallelReader(env, layout)
        self._seen: Seen | None = None

    @property
    def possible_agents(self) -> list[str]:
        """All agents, in the order in which the environment listed them when it was wrapped."""
        return list(self._layout.agents)

    @property
    def agents(self) -> list[str]:
        """The agents that act next: those in the environment's ``agents`` that are not terminated or truncated."""
        agents = getattr(self.env, "agents", [])
        if self._seen is None:
            return list(agents)
        present = {self._layout.agents[k] for k in np.flatnonzero(self._seen.present)}
        return [agent for agent in agents if agent in present]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start a new episode."""
        observations, env_infos = self._reader.reset(seed, options)
        self._pending.cut()
        self._clock.restart()
        self._seen = self._reader.read_reset(observations, env_infos)
        infos = dict(env_infos or {})
        for agent in self._layout.agents:
            if agent in observations or isinstance(infos.get(agent), Mapping):
                # The same keys as after a step, because some learners take the keys of infos from the first reset.
                infos[agent] = _with_rewards(infos.get(agent), 0.0, 0.0)
        return observations, infos

    def step(self, actions: dict[str, Any]) -> tuple[Any, dict[str, float], Any, Any, dict[str, Any]]:
        """Take one joint step; the rewards are the mixed ones. A step after the episode's end is passed through."""
        if self._seen is None:
            raise RuntimeError("call reset() before step()")
        before = self._seen
        if not before.present.any():  # nobody acts: no step of an episode, and nothing to pay
            observations, env_rewards, terminations, truncations, env_infos = self._reader.step(actions)
            return observations, env_rewards, terminations, truncations, env_infos
        done = self._layout.joint_action(actions, before.present, "step() was given") if self._needs_actions else None
        observations, env_rewards, terminations, truncations, env_infos = self._reader.step(actions)
        outcome = self._reader.read_step(observations, env_rewards, terminations, truncations, env_infos)
        self._seen = outcome.seen
        ended = np.array([outcome.over])
        time, after = self._clock.tick(ended), None
        if self.matcher.needs_after:
            final = {"final_obs": outcome.final_observations[None], "final_alive": outcome.final_alive[None]}
            after = AfterStep.of(outcome.terminations[None], outcome.truncations[None], final, time)
        seen, alive = before.observations[None], before.alive[None]
        gail_rewards = self.matcher.rewards(seen, alive, actions=done, after=after)[0]
        rewards, infos = dict(env_rewards), dict(env_infos or {})
        each = zip(
            self._layout.agents, outcome.rewards.tolist(), gail_rewards.tolist(), self._mixing.array.tolist(), strict=True
        )
        # An absent agent earns nothing, and one that has just joined has no r_gail yet.
        for agent, env_reward, gail_reward, coefficient in each:
            if agent in rewards:
                rewards[agent] = self.env_coefficient * env_reward + coefficient * gail_reward
            if agent in rewards or agent in observations or isinstance(infos.get(agent), Mapping):
                infos[agent] = _with_rewards(infos.get(agent), env_reward, gail_reward)
        own = outcome.rewards if outcome.env_rewards is None else outcome.env_rewards
        rewards_seen = (own[None], outcome.rewards[None], gail_rewards[None])
        self._saw(seen, alive, ended, np.array([outcome.broken]), done, after, time, before.present[None], rewards_seen)
        return observations, rewards, terminations, truncations, infos


def _with_rewards(info: Mapping[str, Any] | None, env_reward: float, gail_reward: float) -> dict[str, Any]:
    """A new info with both rewards: a new dict, because the environment may keep its own from step to step."""
    own = {} if not info or "env_reward" not in info else {"own_reward": info["env_reward"]}
    return {**(info or {}), **own, "env_reward": env_reward, "gail_reward": gail_reward}
