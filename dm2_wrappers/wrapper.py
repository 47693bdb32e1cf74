"""Wrappers that add DM2 to an environment: each agent's reward becomes r_env + c * r_gail.

This is Algorithm 1 "online": r_gail is computed at each step with the current discriminators, and ``update()`` (lines 8
and 9) trains the discriminators between rollouts. This works with any learner. `JointRollout` and ``dm2_wrappers.sb3`` have
the exact order of Algorithm 1, which computes the rewards of a rollout after the update.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper

from dm2_wrappers import _checks
from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.episodes import team_rewards
from dm2_wrappers.matching import AfterStep, Coefficient, DistributionMatcher, PendingSteps, SelfImitation
from dm2_wrappers.matching.episode_collector import EpisodeCollector
from dm2_wrappers.matching.mixing import Mixing
from dm2_wrappers.unwrap import owns_matcher
from dm2_wrappers.vector import Infos, MultiAgentVectorEnv, MultiAgentVectorWrapper, StepResult
from dm2_wrappers.vector.base import EpisodeClock, joint_ends, present_after, present_at_reset
from dm2_wrappers.vector.layout import Layout, check_parallel_env
from dm2_wrappers.vector.outcome import Seen
from dm2_wrappers.vector.reader import ParallelReader


def matcher_of(demos_or_matcher: Any) -> DistributionMatcher:
    """Return a matcher unchanged, or make one with the default options from demonstrations or self-imitation.

    Raises:
        TypeError: The argument is neither.
    """
    if isinstance(demos_or_matcher, Demonstrations | SelfImitation):
        return DistributionMatcher(demos_or_matcher)
    if isinstance(demos_or_matcher, DistributionMatcher):
        return demos_or_matcher
    advice = "read the file with Demonstrations.load(path)"
    if not isinstance(demos_or_matcher, str | os.PathLike):
        advice = "make demonstrations with Demonstrations.record or Demonstrations.load"
    raise TypeError(f"expected Demonstrations or a DistributionMatcher, got {demos_or_matcher!r}; {advice}")


class _RewardMixer:
    """Base of both wrappers: mixes rewards, collects observations and updates the discriminators.

    Attributes:
        matcher: The discriminators. It can be shared, but not copied.
        env_coefficient: Factor on the environment's reward. With 0 the agents are paid r_gail alone.
        update_every: Joint environment steps between two automatic updates. None: you call ``update()`` yourself.
        training: While False, nothing is recorded and ``update_every`` does not count steps. Rewards are still mixed.
        metrics: What the last ``update()`` returned.
    """

    def _set_up(
        self,
        demos_or_matcher: Demonstrations | SelfImitation | DistributionMatcher,
        coefficient: Coefficient,
        env_coefficient: float,
        update_every: int | None,
    ) -> None:
        self.matcher = matcher_of(demos_or_matcher)
        self.coefficient = coefficient
        self.env_coefficient = _checks.number("env_coefficient", env_coefficient, least=0)
        self.update_every = _checks.integer("update_every", update_every, least=1, none=True)
        self.training = True
        self.metrics: dict[str, float] = {}
        self._pending = PendingSteps()
        self._clock, self._episodes = EpisodeClock(), EpisodeCollector(self.matcher)
        self._unrecorded_steps = 0
        self._steps_before_update: int | None = 0  # None once an update was made, or the warning given

    @property
    def _needs_actions(self) -> bool:
        return self.matcher.needs_actions or self.matcher.self_imitation is not None

    @property
    def coefficient(self) -> Coefficient:
        """The paper's c, for all agents or ``{agent: c}``, or a schedule. You can assign it at any time."""
        return self._mixing.coefficient

    @coefficient.setter
    def coefficient(self, value: Coefficient) -> None:
        self._mixing = Mixing(value, self.matcher)

    @property
    def current_coefficient(self) -> dict[str, float]:
        """Each agent's present c."""
        return self._mixing.by_agent()

    def update(self) -> dict[str, float]:
        """Train the discriminators (lines 8 and 9 of Algorithm 1) and return the metrics of `DistributionMatcher.update`."""
        self.flush()
        self._steps_before_update = None
        self.metrics = self.matcher.update()
        self._mixing.updated(self.env_coefficient)
        return self.metrics

    def state_dict(self) -> dict[str, Any]:
        """The matcher's state and the schedule's; what was seen is handed to the matcher first, as by `flush`."""
        self.flush()
        return {"matcher": self.matcher.state_dict(), "schedule": self._mixing.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; ``coefficient`` must be the same schedule. Then reset the environment.

        Raises:
            ValueError: Those of `DistributionMatcher.load_state_dict`, or a state of another schedule. Then nothing changes.
        """
        if not isinstance(state, Mapping) or not {"matcher", "schedule"} <= state.keys():
            found = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(
                f"expected what state_dict() of a DM2 wrapper returned, with the keys 'matcher' and 'schedule', got {found}"
            )
        before = self.matcher.state_dict()
        self.matcher.load_state_dict(state["matcher"])
        try:
            self._mixing.load_state_dict(state["schedule"])
        except Exception:
            self.matcher.load_state_dict(before)
            raise
        self._pending.clear()

    def flush(self) -> None:
        """Pass the observations since the last update to the matcher now. ``update_every`` starts counting again."""
        self._unrecorded_steps = 0
        self._hand_over()

    def _hand_over(self) -> None:
        if len(self._pending):
            observations, alive, broken, more = self._pending.take_all()
            self.matcher.record(observations, alive, broken=broken, **more)

    def _saw(
        self,
        observations: NDArray[np.float32],
        alive: NDArray[np.bool_],
        ended: NDArray[np.bool_],
        broken: NDArray[np.bool_] | None,
        actions: NDArray[Any] | None,
        after: AfterStep | None,
        time: NDArray[np.int64],
        present: NDArray[np.bool_],
        rewards: tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.float32]],
    ) -> None:
        """Record one joint step that was taken from these observations [N, K, D] (line 6).

        ``rewards`` are the environment's own, those that it paid (which another wrapper may have shaped), and r_gail.
        """
        if not self.training:
            return
        own, env_rewards, gail_rewards = rewards
        self._mixing.count(own, present, ended, broken)
        self._mixing.paid(env_rewards, gail_rewards, alive)
        if self.matcher.self_imitation is not None:
            self._episodes.step(observations, alive, actions, team_rewards(own, present), ended, broken, time)
        done = actions if self.matcher.needs_actions else None
        self._pending.append(observations, alive, ended, broken, actions=done, after=after)
        self._unrecorded_steps += len(observations)
        if len(self._pending) * len(observations) >= self.matcher.buffer_size:
            self._hand_over()  # without updates: the matcher keeps the newest steps, and memory stays bounded
        if self.update_every is not None:
            if self._unrecorded_steps >= self.update_every:
                self.update()
        elif self._steps_before_update is not None:
            self._steps_before_update += len(observations)
            if self._steps_before_update >= self.matcher.buffer_size:
                self._steps_before_update = None
                warnings.warn(
                    f"the discriminators have not been trained in the first {self.matcher.buffer_size} steps: call update() "
                    "after each rollout, or set update_every",
                    stacklevel=3,
                )


def _refuse_second_matcher(env: Any) -> None:
    if owns_matcher(env):
        raise ValueError(
            f"{type(env).__name__} already has a DM2 wrapper: r_gail would be paid twice; wrap the environment once"
        )


class DM2ParallelEnv(_RewardMixer, BaseParallelWrapper):
    """A PettingZoo ``ParallelEnv`` whose rewards are r_env + c * r_gail (Algorithm 1, line 11).

    The wrapped environment is still a ``ParallelEnv``. The wrapper adds ``"env_reward"`` and ``"gail_reward"`` to
    ``infos[agent]`` (0 at reset) and passes everything else through. If the environment does not report
    ``infos[agent]["alive"]``, all ``agents`` count as alive.

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
        _refuse_second_matcher(env)
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
    def agents(self) -> list[str]:
        """The agents that act next: those in the environment's ``agents`` that are not terminated or truncated."""
        agents = getattr(self.env, "agents", [])
        if self._seen is None:
            return list(agents)
        present = {self.possible_agents[k] for k in np.flatnonzero(self._seen.present)}
        return [agent for agent in agents if agent in present]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start a new episode."""
        observations, env_infos = self._reader.reset(seed, options)
        self._pending.cut()
        self._mixing.restart()
        self._clock.restart()
        self._seen = self._reader.read_reset(observations, env_infos)
        infos = dict(env_infos or {})
        for agent in observations:
            # The same keys as after a step, because some learners take the keys of infos from the first reset.
            infos[agent] = {**(infos.get(agent) or {}), "env_reward": 0.0, "gail_reward": 0.0}
        return observations, infos

    def step(self, actions: dict[str, Any]) -> tuple[Any, dict[str, float], Any, Any, dict[str, Any]]:
        """Take one joint step; the rewards are the mixed ones."""
        if self._seen is None:
            raise RuntimeError("call reset() before step()")
        before = self._seen
        done = self._joint_action(actions, before.present) if self._needs_actions else None
        observations, env_rewards, terminations, truncations, env_infos = self._reader.step(actions)
        outcome = self._reader.read_step(observations, env_rewards, terminations, truncations, env_infos)
        self._seen = outcome.seen
        ended = np.array([outcome.over])
        time, after = self._clock.tick(ended), None
        if self.matcher.needs_after:
            truncated = outcome.truncations & ~outcome.terminations
            after = AfterStep(outcome.final_observations[None], outcome.final_alive[None], ended, truncated[None], time)
        seen, alive = before.observations[None], before.alive[None]
        gail_rewards = self.matcher.rewards(seen, alive, actions=done, after=after)[0]
        rewards, infos = dict(env_rewards), dict(env_infos or {})
        each = zip(
            self.possible_agents, outcome.rewards.tolist(), gail_rewards.tolist(), self._mixing.array.tolist(), strict=True
        )
        for agent, env_reward, gail_reward, coefficient in each:
            if agent in rewards:  # an absent agent earns nothing, and one that has just joined has no r_gail yet
                rewards[agent] = self.env_coefficient * env_reward + coefficient * gail_reward
                # A new dict, because the environment may keep its own from step to step.
                infos[agent] = {**(infos.get(agent) or {}), "env_reward": env_reward, "gail_reward": gail_reward}
        own = outcome.rewards if outcome.env_rewards is None else outcome.env_rewards
        rewards_seen = (own[None], outcome.rewards[None], gail_rewards[None])
        self._saw(seen, alive, ended, np.array([outcome.broken]), done, after, time, before.present[None], rewards_seen)
        return observations, rewards, terminations, truncations, infos

    def _joint_action(self, actions: Mapping[str, Any], present: NDArray[np.bool_]) -> NDArray[Any]:
        """The present agents' actions, counted from 0 or flat and padded: integers [1, K] or floats [1, K, A]."""
        layout = self._layout
        width = () if layout.discrete else (max(layout.action_sizes),)
        joint = np.zeros((1, len(layout.agents), *width), layout.action_dtype)
        for k in map(int, np.flatnonzero(present)):
            action = layout.array_action(k, actions[layout.agents[k]])
            joint[0, k, ...] = action if layout.discrete else np.pad(action, (0, joint.shape[2] - len(action)))
        return joint


class DM2VectorEnv(_RewardMixer, MultiAgentVectorWrapper):
    """A vector environment whose rewards are r_env + c * r_gail, with one matcher for all sub-environments.

    The wrapper adds ``"env_reward"`` and ``"gail_reward"`` to ``infos``, both [N, K], 0 at reset. Arguments and errors are
    those of `DM2ParallelEnv`. ``update_every`` counts joint steps summed over the sub-environments.
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
        _refuse_second_matcher(venv)
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
        self._mixing.restart()
        self._clock.restart()
        self._see(observations, infos, present_at_reset(infos))
        nothing = np.zeros(self._alive.shape, np.float32)
        return observations, {**infos, "env_reward": nothing, "gail_reward": nothing.copy()}

    def _see(self, observations: NDArray[np.float32], infos: Infos, present: NDArray[np.bool_]) -> None:
        """Keep what the agents see now, in copies: the environment, or who called, may use its arrays again."""
        self._observations, self._alive = np.array(observations), np.array(infos["alive"], dtype=bool)
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
        infos = {**infos, "env_reward": env_rewards, "gail_reward": gail_rewards}
        self._saw(before, alive, ended, broken, done, after, time, present, (own, env_rewards, gail_rewards))
        return observations, rewards, terminations, truncations, infos
