"""IndependentLearners: one Stable-Baselines3 algorithm object per agent, trained in lockstep."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pettingzoo import ParallelEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from dm2_wrappers import _checks, evaluation
from dm2_wrappers._extras import require
from dm2_wrappers.lockstep import JointStep, Lockstep, LoopStopped
from dm2_wrappers.matching import Coefficient, DistributionMatcher, JointRollout
from dm2_wrappers.matching.coefficient import as_array
from dm2_wrappers.rng_state import GlobalRNGState, derive_seed
from dm2_wrappers.sb3 import checkpoint, learner_state
from dm2_wrappers.sb3.algorithm1 import MixRewards
from dm2_wrappers.sb3.buffers import set_after_death, use_live_buffer
from dm2_wrappers.sb3.callbacks import (
    AgentCallbacks,
    Callbacks,
    LogOnline,
    PauseWithoutSteps,
    log_into,
    user_callbacks,
)
from dm2_wrappers.sb3.checkpoint import TeamState
from dm2_wrappers.sb3.options import (
    checked_algorithm,
    checked_coefficient,
    checked_policy,
    per_agent,
    take_over,
    warn_of_idle_learners,
)
from dm2_wrappers.sb3.policy import TeamPolicy
from dm2_wrappers.sb3.replay_buffer import LiveReplayBuffer
from dm2_wrappers.sb3.vec_env import AgentVecEnv
from dm2_wrappers.unwrap import owns_matcher
from dm2_wrappers.vector import MultiAgentVectorEnv, vectorize
from dm2_wrappers.vector.base import joint_ends
from dm2_wrappers.wrapper import DM2VectorEnv

Algorithm = Callable[..., BaseAlgorithm]  # an SB3 algorithm class, or functools.partial of one


class IndependentLearners:
    """K unmodified SB3 (or sb3-contrib) learners, one per agent, which share nothing.

    Each has its own networks, optimizer, buffer, logger and random streams. With a ``matcher`` they follow the paper's
    Algorithm 1: see ``mode``. How an agent's steps after its death are treated: `dm2_wrappers.sb3.rollout_buffers`.

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
            `dm2_wrappers.sb3.rollout_buffers`.
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
            make = checked_algorithm(agent, algorithms[agent])
            with self._lockstep.as_agent(agent):
                self.models[agent] = make(checked_policy(agent, make, policies[agent]), self._views[agent], **kwargs)
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
        self.mode = _checks.choice("mode", mode, ("auto", "exact", "online"))
        self.env_coefficient = _checks.number("env_coefficient", env_coefficient, least=0)
        self.update_every = _checks.integer("update_every", update_every, least=1)
        self.seed = _checks.integer("seed", seed, none=True)
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
            self._lockstep.listeners.append(self._append_to_rollout)
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

    def _append_to_rollout(self, step: JointStep) -> None:
        assert self._rollout is not None
        ended = joint_ends(step.terminations, step.truncations)
        self._rollout.append(step.observations, step.alive, ended, step.infos.get("broken"))

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
        self._after_death = _checks.choice("after_death", value, ("earned", "mean", "critic"))
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
        return float(as_array(self._c, self.agents)[k])

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
        of_user = user_callbacks(callback, self.agents)
        for agent in self.agents:
            # Ours first, so that the user's see the mixed rewards.
            chosen: list[BaseCallback] = [self._own_callbacks[agent]] if agent in self._own_callbacks else []
            chosen += [PauseWithoutSteps(), *of_user[agent]]
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
        """Play test episodes with the environment's own rewards; see `dm2_wrappers.evaluation.evaluate`.

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
        """Write a checkpoint, ``<path>.zip``: everything a run needs to go on. The previous one stays whole until then."""
        checkpoint.write(self._state(), path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        env: ParallelEnv | MultiAgentVectorEnv,
        *,
        matcher: DistributionMatcher | None = None,
        device: str = "auto",
        log_dir: str | os.PathLike[str] | None = None,
    ) -> IndependentLearners:
        """Read a checkpoint; ``learn(..., reset_num_timesteps=False)`` then goes on with it.

        An agent's model in it is SB3's own file, parts of which SB3 unpickles: load only checkpoints that you trust, and
        use `restore` for others.

        Args:
            path: What ``save`` was given.
            env: An environment with the agents of the checkpoint.
            matcher: Needed where the discriminators are networks of your own; their weights are read from the checkpoint.
            device: Where networks go.
            log_dir: As in the constructor.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: Not a checkpoint, or one of other agents.
        """
        state = checkpoint.read(path)
        options = dict(state.facts["options"])
        if owns_matcher(env):  # then the wrapper's matcher and coefficients are the ones that are meant
            env, matcher, c, env_coefficient, update_every = take_over(env, matcher, None, None, None)
            options.update(coefficient=c, env_coefficient=env_coefficient, update_every=update_every)
        venv = env if isinstance(env, MultiAgentVectorEnv) else vectorize(lambda: env, 1)
        cls._check_state(state, venv)
        team = cls.__new__(cls)
        team._prepare(venv, team._matcher_from(state, matcher, device), log_dir=log_dir, **options)
        for i, agent in enumerate(team.agents):
            algorithm = learner_state.class_of(state.facts["algorithms"][i])
            with team._lockstep.as_agent(agent):
                team.models[agent] = algorithm.load(io.BytesIO(state.models[i]), env=team._views[agent], device=device)
        team._choose_mode()
        team._load_tensors(state)
        return team

    def restore(self, path: str | os.PathLike[str]) -> IndependentLearners:
        """Take over a checkpoint into this team, which your program built with the same options; nothing is unpickled.

        Weights, optimizers, counters, buffers, discriminators and random streams are replaced; ``learn(...,
        reset_num_timesteps=False)`` then goes on as after `load`. Safe with a stranger's checkpoint.

        Args:
            path: What ``save`` was given.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: Not a checkpoint, or one of other agents, algorithms, networks or options.
        """
        state = checkpoint.read(path)
        self._check_state(state, self.env)
        names = [learner_state.class_name(model) for model in self.models.values()]
        if names != list(state.facts["algorithms"]):
            raise ValueError(f"the checkpoint is of the algorithms {state.facts['algorithms']}, this team has {names}")
        if (self.matcher is None) != (state.facts["matcher"] is None):
            has, lacks = ("the checkpoint", "this team") if self.matcher is None else ("this team", "the checkpoint")
            raise ValueError(f"{has} has a matcher and {lacks} has none; build the team as the saved one was built")
        for i, (agent, model) in enumerate(self.models.items()):
            learner_state.restore(model, state.models[i], state.facts["counters"][agent])
        self._load_tensors(state)
        return self

    def _state(self) -> TeamState:
        """Everything that a run needs to go on."""
        if isinstance(self._lockstep.env, DM2VectorEnv):
            self._lockstep.env.flush()  # what was seen since the last update belongs to the matcher's state
        models, matcher = self.models, self.matcher
        options = ("coefficient", "env_coefficient", "mode", "after_death", "update_every", "seed")
        return TeamState(
            facts={
                "env_id": self.env.env_id,
                "agents": list(self.agents),
                "sizes": list(self.env.observation_sizes),
                "algorithms": [learner_state.class_name(model) for model in models.values()],
                "options": {name: getattr(self, name) for name in options},
                "matcher": None if matcher is None else matcher.options,
                "custom_networks": matcher is not None and matcher.custom_networks,
                "num_timesteps": self.num_timesteps,
                "counters": {agent: learner_state.counters(model) for agent, model in models.items()},
            },
            tensors={
                "streams": {agent: stream.state_dict() for agent, stream in self._lockstep.streams.items()},
                "env_stream": self._lockstep.env_stream.state_dict(),
                "matcher": None if matcher is None else matcher.state_dict(),
                "action_streams": {agent: learner_state.action_stream(model) for agent, model in models.items()},
                "dead_values": {
                    agent: model.rollout_buffer.dead_value
                    for agent, model in models.items()
                    if hasattr(model, "rollout_buffer")
                },
                "replay_buffers": {
                    agent: model.replay_buffer.state_dict()
                    for agent, model in models.items()
                    if isinstance(getattr(model, "replay_buffer", None), LiveReplayBuffer)
                },
            },
            models=[learner_state.saved(model) for model in models.values()],
            demonstrations=None if matcher is None else matcher.demonstrations,
        )

    @staticmethod
    def _matcher_from(state: TeamState, matcher: DistributionMatcher | None, device: str) -> DistributionMatcher | None:
        """The saved matcher, or ``matcher`` with its weights."""
        if state.facts["matcher"] is None:
            if matcher is not None:
                raise ValueError(
                    "this checkpoint was saved without a matcher, so the one that was given would be ignored: load it "
                    "without, or build a new team with the matcher and take over the weights of the checkpoint's models"
                )
            return None
        if matcher is not None:
            return matcher
        if state.facts["custom_networks"]:
            raise ValueError(
                "the discriminators of this checkpoint are networks of your own, whose code is not in it: pass matcher=, "
                "made as it was made then"
            )
        assert state.demonstrations is not None
        on = "cpu" if device == "auto" else device
        return DistributionMatcher(state.demonstrations, device=on, **state.facts["matcher"])

    @staticmethod
    def _check_state(state: TeamState, env: MultiAgentVectorEnv) -> None:
        expected = dict(zip(state.facts["agents"], state.facts["sizes"], strict=True))
        found = dict(zip(env.possible_agents, env.observation_sizes, strict=True))
        if list(found.items()) != list(expected.items()):
            raise ValueError(
                f"the checkpoint is of agents and observation sizes {expected}, but the environment has {found}"
            )

    def _load_tensors(self, state: TeamState) -> None:
        tensors = state.tensors
        if self.matcher is not None:
            self.matcher.load_state_dict(tensors["matcher"])
        for agent, buffer in tensors["replay_buffers"].items():
            self.models[agent].replay_buffer.load_state_dict(buffer)
        for agent, stream in tensors["action_streams"].items():
            learner_state.set_action_stream(self.models[agent], stream)
        for agent, value in tensors["dead_values"].items():
            self.models[agent].rollout_buffer.dead_value = value
        lockstep = self._lockstep
        lockstep.streams = {a: GlobalRNGState.from_state_dict(stream) for a, stream in tensors["streams"].items()}
        self.restart_episodes()
        lockstep.env_stream = GlobalRNGState.from_state_dict(tensors["env_stream"])
