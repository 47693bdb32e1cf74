"""IndependentLearners: one Stable-Baselines3 algorithm object per agent, trained in lockstep."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pettingzoo import ParallelEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from dm2_wrappers._extras import require
from dm2_wrappers.lockstep import Lockstep, LoopStopped
from dm2_wrappers.matcher import DistributionMatcher
from dm2_wrappers.random_state import derive_seed
from dm2_wrappers.sb3 import checkpoint, evaluation
from dm2_wrappers.sb3.algorithm1 import JointRollout, MixRewards
from dm2_wrappers.sb3.buffers import LiveReplayBuffer, set_after_death, use_live_buffer
from dm2_wrappers.sb3.loops import AgentCallbacks, Callbacks, callbacks_of, log_into, warn_of_idle_learners
from dm2_wrappers.sb3.online import LogOnline
from dm2_wrappers.sb3.options import (
    checked_choice,
    checked_coefficient,
    checked_env_coefficient,
    checked_integer,
    per_agent,
    take_over,
)
from dm2_wrappers.sb3.policy import TeamPolicy
from dm2_wrappers.sb3.vec_env import AgentVecEnv
from dm2_wrappers.vector import MultiAgentVectorEnv, vectorize
from dm2_wrappers.wrapper import Coefficient, DM2VectorEnv, coefficients

Algorithm = Callable[..., BaseAlgorithm]  # an SB3 algorithm class, or functools.partial of one


class IndependentLearners:
    """K unmodified SB3 (or sb3-contrib) learners, one per agent, which share nothing.

    Each has its own networks, optimizer, buffer, logger and random streams. With a ``matcher`` they follow the paper's
    Algorithm 1: see ``mode``. How an agent's steps after its death are treated: `dm2_wrappers.sb3.buffers`.

    Args:
        algorithm: An SB3 algorithm class for all agents, or ``{agent: class}``; a ``functools.partial`` of a class
            carries arguments for one agent alone.
        env: A ``ParallelEnv`` or a `MultiAgentVectorEnv`. One already in ``DM2ParallelEnv`` or ``DM2VectorEnv`` brings
            its matcher, coefficients and ``update_every`` along; giving them here as well is an error.
        policy: SB3's policy name or class, for all or ``{agent: policy}``.
        matcher: The discriminators; None is plain independent learning.
        coefficient: The paper's c: paid is r_env + c * r_gail; for all agents or ``{agent: c}``. Needed with a matcher.
        env_coefficient: Factor on r_env, 1 by default; 0 is GAIL alone.
        mode: "exact" is Algorithm 1 to the letter, for on-policy algorithms of equal ``n_steps``: after a rollout the
            discriminators are updated, then its rewards and advantages computed under the updated ones. "online" pays
            at each step under the present discriminators and updates them every ``update_every`` steps. "auto" is exact
            where all algorithms are on-policy, else online.
        after_death: "earned", "mean" or "critic": what on-policy learners take a death to be followed by; see
            `dm2_wrappers.sb3.buffers`.
        update_every: Online mode: joint environment steps, summed over copies, between two updates; 4,096 by default.
        seed: Seeds learners (each unlike), environment and streams. None: random.
        log_dir: Folder in which each agent logs to ``<agent>/progress.csv`` (a loaded team goes on in
            ``progress_from_<step>.csv``) and TensorBoard. Instead of ``tensorboard_log``.
        **algorithm_kwargs: Passed to every algorithm: ``n_steps``, ``learning_rate``, ``device``, ``tensorboard_log``
            (a folder below it per agent), ...

    Attributes:
        models: The K learners, ``{agent: SB3 algorithm}``.
        coefficient: The paper's c; may be changed at any time. An exact run reads it at the end of a rollout, an online
            run at each step.

    Raises:
        ValueError: Options that do not fit together; demonstrations of other agents; in an exact run, unlike ``n_steps``.
        ImportError: ``log_dir`` without the package tensorboard.
    """

    def __init__(
        self,
        algorithm: Algorithm | Mapping[str, Algorithm],
        env: ParallelEnv | MultiAgentVectorEnv,
        *,
        policy: Any = "MlpPolicy",
        matcher: DistributionMatcher | None = None,
        coefficient: Coefficient | None = None,
        env_coefficient: float | None = None,
        mode: str = "auto",
        after_death: str = "earned",
        update_every: int | None = None,
        seed: int | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        **algorithm_kwargs: Any,
    ) -> None:
        env, matcher, coefficient, env_coefficient, update_every = take_over(
            env, matcher, coefficient, env_coefficient, update_every
        )
        self._prepare(env, matcher, coefficient, env_coefficient, mode, after_death, update_every, seed, log_dir)
        agents = self.env.possible_agents
        algorithms = per_agent(algorithm, agents, "algorithm")
        policies = per_agent(policy, agents, "policy")
        tensorboard_log = algorithm_kwargs.pop("tensorboard_log", None)
        for agent in agents:
            # Copies: some of SB3's algorithms write into the policy_kwargs that they are given.
            kwargs = copy.deepcopy(algorithm_kwargs)
            if tensorboard_log is not None:
                kwargs["tensorboard_log"] = os.path.join(tensorboard_log, agent)
            if self.seed is not None:
                kwargs["seed"] = derive_seed(self.seed, "learner", agent) % 2**31
            with self._lockstep.as_agent(agent):
                self.models[agent] = algorithms[agent](policies[agent], self._views[agent], **kwargs)
            if self.log_dir is not None and self.models[agent].tensorboard_log is not None:
                raise ValueError("log_dir writes TensorBoard's files, too: pass log_dir or tensorboard_log, not both")
        self._choose_mode()

    def _prepare(
        self,
        env: ParallelEnv | MultiAgentVectorEnv,
        matcher: DistributionMatcher | None,
        coefficient: Coefficient | None,
        env_coefficient: float,
        mode: str,
        after_death: str,
        update_every: int,
        seed: int | None,
        log_dir: str | os.PathLike[str] | None,
    ) -> None:
        """Everything but the learners."""
        self.mode = checked_choice("mode", mode, ("auto", "exact", "online"))
        self.env_coefficient = checked_env_coefficient(env_coefficient)
        self.update_every = checked_integer("update_every", update_every, least=1)
        self.seed = None if seed is None else checked_integer("seed", seed)
        if log_dir is not None:
            require("tensorboard", "sb3")
        self.env = env if isinstance(env, MultiAgentVectorEnv) else vectorize(lambda: env, 1)
        if matcher is not None:
            demos = matcher.demonstrations
            demos.check_compatible(self.env.possible_agents, self.env.observation_sizes, self.env.env_id)
        self.matcher, self.log_dir = matcher, log_dir
        self.models: dict[str, Any] = {}
        self.after_death = after_death
        self._rollout: JointRollout | None = None
        self._own_callbacks: dict[str, BaseCallback] = {}
        self._learning = False
        self._lockstep = Lockstep(self.env, seed=self.seed)
        self.coefficient = coefficient
        self._views = {
            agent: AgentVecEnv(self._lockstep, agent, env_coefficient=self.env_coefficient)
            for agent in self.env.possible_agents
        }

    def _choose_mode(self) -> None:
        """Exact or online; then connect learners, matcher and environment accordingly."""
        on_policy = all(isinstance(model, OnPolicyAlgorithm) for model in self.models.values())
        if self.mode == "exact" and not on_policy:
            names = sorted({type(m).__name__ for m in self.models.values() if not isinstance(m, OnPolicyAlgorithm)})
            raise ValueError(f"mode='exact' needs on-policy algorithms, and {names} are not: use mode='online'")
        if self.mode == "auto":
            self.mode = "exact" if on_policy else "online"
        if self.matcher is not None and self.mode == "exact":
            n_steps = {agent: model.n_steps for agent, model in self.models.items()}
            if len(set(n_steps.values())) > 1:
                raise ValueError(f"an exact run needs the same n_steps for all agents, got {n_steps}")
            self._rollout = JointRollout(self.matcher)
            self._lockstep.listeners.append(self._rollout.append)
            for k, agent in enumerate(self.agents):
                self._own_callbacks[agent] = MixRewards(self._rollout, k, agent, partial(self._coefficient_of, k))
        elif self.matcher is not None:
            # The shaped rewards carry env_coefficient already.
            wrapper = self._lockstep.env = DM2VectorEnv(
                self.env,
                self.matcher,
                coefficient=self._c,
                env_coefficient=self.env_coefficient,
                update_every=self.update_every,
            )
            for k, agent in enumerate(self.agents):
                self._views[agent].env_coefficient = 1.0
                self._own_callbacks[agent] = LogOnline(wrapper, self._lockstep, k, agent)
        for agent, model in self.models.items():
            use_live_buffer(model, self._views[agent], self.after_death)

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents' names, in the order of the agent axis."""
        return self.env.possible_agents

    @property
    def after_death(self) -> str:
        """What on-policy learners take a death to be followed by; may be changed between two calls of ``learn``."""
        return self._after_death

    @after_death.setter
    def after_death(self, value: str) -> None:
        self._after_death = checked_choice("after_death", value, ("earned", "mean", "critic"))
        for agent, model in self.models.items():
            set_after_death(model, self._views[agent], value)

    @property
    def coefficient(self) -> Coefficient | None:
        """The paper's c; None where there is no matcher."""
        return self._coefficient

    @coefficient.setter
    def coefficient(self, value: Coefficient | None) -> None:
        self._coefficient = checked_coefficient(value, self.agents, self.matcher)
        if isinstance(self._lockstep.env, DM2VectorEnv):
            self._lockstep.env.coefficient = self._c

    def _coefficient_of(self, k: int) -> float:
        return float(coefficients(self._c, self.agents)[k])

    @property
    def _c(self) -> Coefficient:
        return 0.0 if self.coefficient is None else self.coefficient

    @property
    def num_timesteps(self) -> int:
        """Environment steps so far, summed over copies, as one SB3 learner counts them."""
        return int(next(iter(self.models.values())).num_timesteps)

    def learn(
        self, total_timesteps: int, callback: Callbacks = None, progress_bar: bool = False, **learn_kwargs: Any
    ) -> IndependentLearners:
        """Train all agents; when one agent's loop ends, all end: at its last whole rollout or by its callback.

        Where that is in another agent's rollout, as with unlike ``n_steps``, the unfinished rollout teaches nothing. Then
        and after a callback's stop the next ``learn`` begins with new episodes.

        Args:
            total_timesteps: Environment steps, summed over copies, as one SB3 learner would count; SB3 rounds up to
                whole rollouts.
            callback: ``{agent: callback}`` or a function from an agent's name to its callback.
            progress_bar: Show one bar of environment steps.
            **learn_kwargs: Passed to every ``model.learn``: ``log_interval``, ``reset_num_timesteps=False`` to go on.

        Raises:
            Exception: Whatever one agent's loop raised, with a note that names the agent.

        Warns:
            UserWarning: An agent would not train, because its first rollout would not be finished.
        """
        warn_of_idle_learners(self.models, int(total_timesteps))
        if self._rollout is not None:
            self._rollout.clear()
        callbacks: dict[str, AgentCallbacks] = {}
        for agent in self.agents:
            # Ours first, so that the user's see the mixed rewards.
            chosen = [self._own_callbacks[agent]] if agent in self._own_callbacks else []
            chosen += callbacks_of(agent, self.agents, callback)
            if progress_bar and agent == self.agents[0]:
                chosen.append(ProgressBarCallback())
            callbacks[agent] = AgentCallbacks(chosen)
        loops = {
            agent: partial(self._learn_one, agent, callbacks[agent], int(total_timesteps), learn_kwargs)
            for agent in self.agents
        }
        finished, self._learning = False, True
        try:
            ended = self._lockstep.run(loops)
            finished = all(ended.values()) and not any(each.stopped for each in callbacks.values())
        finally:
            self._learning = False
            if not finished:
                # Stopped amid a rollout: the learners' last observations are of unlike steps. All reset next time.
                self._forget_episodes()
        return self

    def _learn_one(self, agent: str, callback: AgentCallbacks, total_timesteps: int, learn_kwargs: dict[str, Any]) -> bool:
        """One agent's loop; true if it came to its own end."""
        model = self.models[agent]
        if self.log_dir is not None:
            log_into(model, os.path.join(self.log_dir, agent))
        try:
            model.learn(total_timesteps, callback=callback, **learn_kwargs)
        except LoopStopped:
            if callback.started:
                callback.on_training_end()
            raise
        return True

    def restart_episodes(self) -> None:
        """Let the next `learn` begin with new episodes, from a seed made of the run's seed and its steps so far.

        It is what `load` does, since environments cannot be saved: a run that calls this at each checkpoint goes on the
        same whether it was interrupted there or not.
        """
        if isinstance(self._lockstep.env, DM2VectorEnv):
            self._lockstep.env.flush()
        self._forget_episodes()
        self._lockstep.seed_env(self.seed, self.num_timesteps)

    def _forget_episodes(self) -> None:
        """Nobody goes on with the episodes that are under way: the next `learn` resets."""
        for model in self.models.values():
            model._last_obs = None
            if isinstance(getattr(model, "replay_buffer", None), LiveReplayBuffer):
                model.replay_buffer.forget_pending_deaths()

    def policy(self, *, deterministic: bool = False) -> TeamPolicy:
        """The team as a joint policy on batched arrays, e.g. for ``Demonstrations.record``."""
        return TeamPolicy(self.models, deterministic=deterministic)

    def predict(
        self, observations: Mapping[str, Any], deterministic: bool = False, policy: TeamPolicy | None = None
    ) -> dict[str, Any]:
        """Actions for a ``ParallelEnv``'s observations, both as that environment has them.

        Args:
            observations: ``{agent: observation}``, with or without action masks; agents that have left may be missing. Of
                a team on `vectorize`'s copies or on a ``ParallelEnv`` they are of the environment's own spaces.
            deterministic: The most likely action instead of a sampled one.
            policy: What ``policy()`` gave, to carry recurrent states from step to step; a new one otherwise.

        Returns:
            ``{agent: action}`` of those agents, in their own action spaces.

        Raises:
            ValueError: An unknown agent, or an observation of another size.
        """
        policy = policy or self.policy(deterministic=deterministic)
        return policy.native_actions(observations, getattr(self.env, "layout", None))

    def evaluate(
        self,
        env: ParallelEnv | MultiAgentVectorEnv,
        episodes: int = 32,
        seed: int | None = None,
        *,
        deterministic: bool = False,
    ) -> dict[str, float]:
        """Play test episodes with the environment's own rewards; see `dm2_wrappers.sb3.evaluation.evaluate`.

        Best in an environment of its own: after test episodes in the training environment the next `learn` begins with
        new episodes.

        Raises:
            RuntimeError: The training environment, while `learn` is under way.
        """
        own = not evaluation.simulators(env).isdisjoint(evaluation.simulators(self.env))
        if own and self._learning:
            raise RuntimeError("learn() is playing in this environment: evaluate in another one, made alike")
        try:
            return evaluation.evaluate(self.policy(deterministic=deterministic), env, episodes, seed)
        finally:
            if own:
                self._forget_episodes()
                self._lockstep.seed_env(self.seed, self.num_timesteps)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint, ``<path>.zip``: all that a run needs to go on. The previous one stays whole until then."""
        checkpoint.save(self, path)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], env: ParallelEnv | MultiAgentVectorEnv, **options: Any
    ) -> IndependentLearners:
        """Read a checkpoint; ``learn(..., reset_num_timesteps=False)`` then goes on with it.

        An agent's model in it is SB3's own file, which SB3 unpickles: load only checkpoints that you trust.

        Args:
            path: What ``save`` was given.
            env: An environment with the agents of the checkpoint.
            **options: ``device``, ``log_dir``, and ``matcher``, where its discriminators are networks of your own (their
                weights are then read from the checkpoint).

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: Not a checkpoint, or one of other agents.
        """
        return checkpoint.load(cls, path, env, **options)
