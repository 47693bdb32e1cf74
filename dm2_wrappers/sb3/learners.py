"""IndependentLearners: one Stable-Baselines3 algorithm object per agent, trained in lockstep."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from typing import Any

from pettingzoo import ParallelEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback

from dm2_wrappers import _checks, evaluation
from dm2_wrappers.lockstep import Lockstep
from dm2_wrappers.matching import Coefficient, Convergence, DistributionMatcher
from dm2_wrappers.matching.torch_modes import standard_modes, usable_device
from dm2_wrappers.rng_state import derive_seed
from dm2_wrappers.sb3 import checkpoint, learner_state, modes, team_state
from dm2_wrappers.sb3.buffers import reconnect, set_after_death, use_live_buffer
from dm2_wrappers.sb3.callbacks import Callbacks, agent_callbacks, user_callbacks
from dm2_wrappers.sb3.logs import TeamLogs, folder_of
from dm2_wrappers.sb3.options import (
    check_relabel,
    check_train_freq,
    check_workers,
    checked_algorithm,
    checked_coefficient,
    checked_log_dir,
    checked_order,
    checked_policy,
    checked_timesteps,
    default_algorithm,
    made,
    per_agent,
    take_over,
    warn_of_idle_learners,
)
from dm2_wrappers.sb3.playing import PlayingTeam
from dm2_wrappers.sb3.replay_buffer import LiveReplayBuffer
from dm2_wrappers.sb3.spread import SpreadLearners
from dm2_wrappers.sb3.training import run_loops
from dm2_wrappers.sb3.turns import TurnMode
from dm2_wrappers.sb3.vec_env import AgentVecEnv
from dm2_wrappers.unwrap import owns_matcher
from dm2_wrappers.vector import MultiAgentVectorEnv, as_vector_env

Algorithm = Callable[..., BaseAlgorithm]  # an SB3 algorithm class, or functools.partial of one


class IndependentLearners(PlayingTeam):
    """K unmodified SB3 (or sb3-contrib) learners, one per agent. The learners share nothing.

    Each learner has its own networks, optimizer, buffer, logger and random streams. With a ``matcher`` they follow the
    paper's Algorithm 1, or with ``order="turn"`` its Algorithm 2; see ``mode``.

    Args:
        algorithm: An SB3 algorithm class for all agents, or ``{agent: class}``. Use a ``functools.partial`` of a class to
            give one agent its own arguments. None is Algorithm 2's TRPO, with ``order="turn"``.
        env: A ``ParallelEnv`` or a `MultiAgentVectorEnv`. If it is wrapped in ``DM2ParallelEnv`` or ``DM2VectorEnv``, the
            wrapper's matcher, coefficients and ``update_every`` are used; passing them here as well is an error.
        policy: SB3's policy name or class, for all agents or ``{agent: policy}``.
        matcher: The discriminators. None: independent learning without DM2.
        coefficient: The paper's c in r_env + c * r_gail, for all agents or ``{agent: c}``, or a schedule
            (`dm2_wrappers.matching.schedules`). Required with a matcher.
        env_coefficient: Factor on r_env, 1 by default. With 0 the agents are paid r_gail alone.
        mode: "exact" is Algorithm 1 as written, for on-policy algorithms with equal ``n_steps``: when a rollout is
            complete, the discriminators are updated, and the rollout's rewards and advantages are computed with the
            updated ones. "online" computes r_gail at each step with the current discriminators and updates them every
            ``update_every`` steps. "auto" is exact if all algorithms are on-policy, and online otherwise.
        order: "simultaneous": all agents learn from each rollout, as in Algorithm 1. "turn" is Algorithm 2: of each rollout
            only one agent learns, after its discriminator has converged, then the next agent from the next rollout. It
            needs a matcher and on-policy algorithms; see `dm2_wrappers.sb3.turns`.
        convergence: With ``order="turn"``: when a discriminator has converged.
        after_death: How rewards received after an agent's death are credited (on-policy learners only): "earned",
            "mean" or "critic"; see `dm2_wrappers.sb3.rollout_buffers`.
        update_every: Online mode: joint environment steps, summed over sub-environments, between two updates; 4,096 by
            default.
        relabel: Off-policy learners in online mode: keep the environment's rewards in the replay buffer, and add
            c * r_gail from the current discriminators whenever a batch is sampled, instead of the reward that was paid
            when the step was played.
        seed: Seeds the learners (each differently), the environment and the random streams. None: random.
        log_dir: Folder in which each agent logs to ``<agent>/progress.csv`` (a loaded team to
            ``progress_from_<step>.csv``) and for TensorBoard. ``team/`` beside them has the means over the agents.
            Characters of a name that a folder's name cannot have are percent-encoded: agent ``a/b`` logs to ``a%2Fb/``,
            and an agent called "team" to ``%74eam/``. Use it instead of ``tensorboard_log``.
        workers: How many processes to start, over which the agents are spread as evenly as possible; this one takes part,
            too. The results are the same as in one process that uses one torch thread (``torch.set_num_threads(1)``), as
            each worker does. For on-policy algorithms on the CPU. Your program must start under
            ``if __name__ == "__main__":``. The first agents learn in this process, with any callbacks; those of other agents
            must pickle. 0: no further process.
        **algorithm_kwargs: Passed to every algorithm: ``n_steps``, ``learning_rate``, ``device``, ``tensorboard_log``
            (each agent gets a folder below it), ...

    Attributes:
        models: The K learners, ``{agent: SB3 algorithm}``.

    Raises:
        TypeError: ``env`` is not a multi-agent environment, or ``matcher`` is not a `DistributionMatcher`.
        ValueError: Options do not fit together, the demonstrations have other agents, or, in an exact run, the agents have
            different ``n_steps``.
        ImportError: ``log_dir`` was given, but the package tensorboard is not installed.
    """

    env = _checks.Fixed[MultiAgentVectorEnv]()
    matcher = _checks.Fixed[DistributionMatcher | None]()
    env_coefficient = _checks.Fixed[float]()
    mode = _checks.Fixed[str]()
    order = _checks.Fixed[str]()
    convergence = _checks.Fixed[Convergence | None]()
    update_every = _checks.Fixed[int]()
    relabel = _checks.Fixed[bool]()
    workers = _checks.Fixed[int]()
    log_dir = _checks.Fixed[str | os.PathLike[str] | None]()

    @standard_modes
    def __init__(
        self,
        algorithm: Algorithm | Mapping[str, Algorithm] | None,
        env: ParallelEnv | MultiAgentVectorEnv,
        *,
        policy: Any = "MlpPolicy",
        matcher: DistributionMatcher | None = None,
        coefficient: Coefficient | None = None,
        env_coefficient: float | None = None,
        mode: str = "auto",
        order: str = "simultaneous",
        convergence: Convergence | None = None,
        after_death: str = "earned",
        update_every: int | None = None,
        relabel: bool = False,
        seed: int | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        workers: int = 0,
        **algorithm_kwargs: Any,
    ) -> None:
        env, matcher, coefficient, env_coefficient, update_every = take_over(
            env, matcher, coefficient, env_coefficient, update_every
        )
        self._prepare(
            env,
            matcher,
            coefficient=coefficient,
            env_coefficient=env_coefficient,
            mode=mode,
            order=order,
            convergence=convergence,
            after_death=after_death,
            update_every=update_every,
            relabel=relabel,
            seed=seed,
            log_dir=log_dir,
            workers=workers,
        )
        agents = self.env.possible_agents
        algorithms = per_agent(default_algorithm(algorithm, order), agents, "algorithm")
        policies = per_agent(policy, agents, "policy")
        tensorboard_log = algorithm_kwargs.pop("tensorboard_log", None)
        for agent in agents:
            # Copies: some of SB3's algorithms write into the policy_kwargs that they are given.
            kwargs = copy.deepcopy(algorithm_kwargs)
            if tensorboard_log is not None:
                kwargs["tensorboard_log"] = os.path.join(tensorboard_log, folder_of(agent))
            if self.seed is not None:
                kwargs["seed"] = derive_seed(self.seed, "learner", agent) % 2**31
            make = checked_algorithm(agent, algorithms[agent])
            chosen_policy = checked_policy(agent, make, policies[agent])
            with self._lockstep.as_agent(agent):
                self.models[agent] = made(agent, make, chosen_policy, self._views[agent], **kwargs)
            if self.log_dir is not None and self.models[agent].tensorboard_log is not None:
                raise ValueError("log_dir writes TensorBoard's files, too: pass log_dir or tensorboard_log, not both")
        self._connect()

    def _prepare(
        self,
        env: ParallelEnv | MultiAgentVectorEnv,
        matcher: DistributionMatcher | None,
        *,
        coefficient: Coefficient | None,
        env_coefficient: float,
        mode: str,
        order: str,
        convergence: Convergence | None,
        after_death: str,
        update_every: int,
        relabel: bool,
        seed: int | None,
        log_dir: str | os.PathLike[str] | None,
        workers: int,
    ) -> None:
        """Everything but the learners."""
        self._asked_mode = _checks.choice("mode", mode, ("auto", "exact", "online"))
        self.order, self.convergence = checked_order(order, convergence, matcher)
        self.relabel = _checks.flag("relabel", relabel)
        self.env_coefficient = _checks.number("env_coefficient", env_coefficient, least=0)
        self.update_every = _checks.integer("update_every", update_every, least=1)
        self.seed = _checks.integer("seed", seed, none=True)
        self.env = as_vector_env(env, "IndependentLearners takes")
        if matcher is not None:
            demos = matcher.demonstrations
            demos.check_compatible(self.env.possible_agents, self.env.observation_sizes, self.env.env_id)
        self.matcher, self.log_dir = matcher, checked_log_dir(log_dir)
        self.workers = _checks.integer("workers", workers, least=0)
        self._spread = SpreadLearners(self.env.possible_agents, self.workers)
        self.models: dict[str, Any] = {}
        self.after_death = after_death
        self._logs = TeamLogs(log_dir)
        self._lockstep = Lockstep(self.env, seed=self.seed)
        self._matching = modes.NoMatcher()
        self.coefficient = coefficient
        self._goes_on = False  # whether learn() continues to count by default: the team comes from a checkpoint
        self._in_step = True  # whether every learner is at the environment's current step, or at none
        self._known_masks: set[str] = set()
        self._views = {
            agent: AgentVecEnv(self._lockstep, agent, env_coefficient=self.env_coefficient)
            for agent in self.env.possible_agents
        }

    def _connect(self) -> None:
        """Connect the learners, the matcher and the environment, as the mode requires."""
        for agent, model in self.models.items():
            check_train_freq(agent, model)
        self.mode = modes.chosen(self._asked_mode, self.models, self.matcher, self.order)
        check_relabel(self.relabel, self.models, self.matcher, self.mode)
        check_workers(self.workers, self.models, self.matcher, self.mode, self.order)
        if self.matcher is not None:
            self.matcher.use_bootstrapping()
        if self.matcher is not None and self.coefficient is not None:
            if self.convergence is not None:
                payment = (self.matcher, self.coefficient, self.env_coefficient)
                self._matching = TurnMode(self._lockstep, *payment, self.convergence)
            elif self.mode == "exact":
                self._matching = modes.ExactMode(self._lockstep, self.matcher, self.coefficient, self.env_coefficient)
            else:
                options = (self.matcher, self.coefficient, self.env_coefficient, self.update_every, self.relabel)
                self._matching = modes.OnlineMode(self._lockstep, self._views, *options)
        for agent, model in self.models.items():
            use_live_buffer(model, self._views[agent], self.after_death, self._matching.present_pay(agent))

    def __repr__(self) -> str:
        names = {agent: type(model).__name__ for agent, model in self.models.items()}
        same = set(names.values())
        algorithms = same.pop() if len(same) == 1 else ", ".join(f"{agent}: {name}" for agent, name in names.items())
        text = f"{algorithms} for {len(self.agents)} agents on {self.env.env_id} ({self.env.num_envs} sub-environments)"
        if self.matcher is not None:
            turns = ", turn by turn" if self.order == "turn" else ""
            text += f", {self.mode} distribution matching with c={self.coefficient}{turns}"
            text += f" and {len(self.matcher.demonstrations)} expert episodes"
        return f"<IndependentLearners: {text}, {self.num_timesteps:,} steps>"

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents' names, in the order of the agent axis."""
        return self.env.possible_agents

    @property
    def after_death(self) -> str:
        """How rewards received after an agent's death are credited. You can change it between two calls of ``learn``."""
        return self._after_death

    @after_death.setter
    def after_death(self, value: str) -> None:
        self._after_death = _checks.choice("after_death", value, ("earned", "mean", "critic"))
        for agent, model in self.models.items():
            set_after_death(model, self._views[agent], value)

    @property
    def coefficient(self) -> Coefficient | None:
        """The paper's c; None without a matcher.

        You can change it at any time. An exact run reads it at the end of a rollout, an online run at each step.
        """
        return self._coefficient

    @coefficient.setter
    def coefficient(self, value: Coefficient | None) -> None:
        self._coefficient = checked_coefficient(value, self.agents, self.matcher)
        self._matching.set_coefficient(self._coefficient)

    @property
    def current_coefficient(self) -> dict[str, float] | None:
        """Each agent's present c; None without a matcher."""
        mixing = self._matching.mixing
        return None if mixing is None else mixing.by_agent()

    @property
    def num_timesteps(self) -> int:
        """Environment steps so far, summed over sub-environments, as one SB3 learner counts them."""
        return int(next(iter(self.models.values())).num_timesteps)

    @standard_modes
    def learn(
        self,
        total_timesteps: int,
        callback: Callbacks = None,
        progress_bar: bool = False,
        *,
        reset_num_timesteps: bool | None = None,
        **learn_kwargs: Any,
    ) -> IndependentLearners:
        """Train all agents. When one agent's loop ends, after its last complete rollout or by its callback, all loops end.

        If another agent is in the middle of a rollout then, as with different ``n_steps``, it does not learn from this
        unfinished rollout. The next ``learn`` then begins with new episodes. It also does so after a callback has stopped
        training.

        Args:
            total_timesteps: Environment steps, summed over sub-environments, as one SB3 learner counts them. SB3 rounds
                up to complete rollouts.
            callback: ``{agent: callback}``, or a function from an agent's name to its callback.
            progress_bar: Show one progress bar for all agents.
            reset_num_timesteps: Count steps from 0 again, and begin new episodes, as in SB3. By default False for a team
                that was loaded or restored, and True otherwise.
            **learn_kwargs: Passed to every ``model.learn``, such as ``log_interval``.

        Raises:
            RuntimeError: Called by a callback of this team's ``learn``.
            ValueError: Callbacks that do not fit, or a learner that was given another environment or buffer.
            Exception: Whatever one agent's loop raised, with a note that names the agent.

        Warns:
            UserWarning: An agent would not train, because its first rollout would not be finished.
        """
        self._refuse_while_learning("learn()")
        total_timesteps = checked_timesteps(total_timesteps)
        progress_bar = _checks.flag("progress_bar", progress_bar)
        if learn_kwargs.get("log_interval") is not None:
            learn_kwargs["log_interval"] = _checks.integer("log_interval", learn_kwargs["log_interval"], least=1)
        if reset_num_timesteps is None:
            reset_num_timesteps = not self._goes_on
        reset_num_timesteps = _checks.flag("reset_num_timesteps", reset_num_timesteps)
        warn_of_idle_learners(self.models, total_timesteps)
        of_user = user_callbacks(callback, self.agents)
        callbacks = self._callbacks(of_user, progress_bar)
        for agent, model in self.models.items():
            reconnect(agent, model, self._views[agent], self._matching.present_pay(agent))
            self._views[agent].allow_reset()
        name = learn_kwargs.get("tb_log_name")
        self._logs.attach(self.models, tb_log_name=name, reset_num_timesteps=reset_num_timesteps)
        self._matching.begin()
        if not self._in_step:
            self._forget_episodes()
        self._in_step = False
        learn_kwargs["reset_num_timesteps"] = reset_num_timesteps
        try:
            # False: some learners stopped in the middle of a rollout, and their last observations are of different steps.
            if self._spread.agents:
                payment = self._matching.payment if isinstance(self._matching, modes.ExactMode) else None
                self._in_step = self._spread.learn(
                    self._lockstep, self.models, callbacks, of_user, payment, total_timesteps, **learn_kwargs
                )
            else:
                self._in_step = run_loops(self._lockstep, self.models, callbacks, total_timesteps, **learn_kwargs)
        finally:
            if not self._in_step:
                self._forget_episodes()
        return self

    def _callbacks(self, of_user: Mapping[str, list[BaseCallback]], progress_bar: bool) -> dict[str, list[BaseCallback]]:
        """Each agent's callbacks: ours first, so that the user's see the mixed rewards."""
        callbacks: dict[str, list[BaseCallback]] = {}
        for agent in self.agents:
            callbacks[agent] = agent_callbacks(self._matching.callback(agent), self._views[agent], of_user[agent])
        if progress_bar:
            callbacks[self.agents[0]].append(ProgressBarCallback())
        return callbacks

    def close(self) -> None:
        """End the worker processes, if there are any; safe to call twice. The environment is yours to close."""
        self._spread.close()

    def _refuse_stale_learners(self, what: str) -> None:
        """Within ``learn``, the learners of workers are here as they were before it."""
        if self._spread.agents and self._lockstep.running:
            raise RuntimeError(
                f"{what} was called while learn() is under way, and the learners of {', '.join(self._spread.agents)} are in "
                "worker processes then: call it between two calls of learn(), or use workers=0"
            )

    def _refuse_while_learning(self, what: str) -> None:
        if self._lockstep.running:
            raise RuntimeError(f"{what} was called while learn() is under way: call it between two calls of learn()")

    def restart_episodes(self) -> None:
        """Let the next `learn` begin with new episodes, from a seed derived from the run's seed and its steps so far.

        `load` does the same, because environments cannot be saved. If a run calls this at each checkpoint, it gives the same
        results whether it was interrupted there or not.

        Raises:
            RuntimeError: Called by a callback while `learn` is under way.
        """
        self._refuse_while_learning("restart_episodes()")
        self._matching.flush()
        self._forget_episodes()
        self._lockstep.seed_env(self.seed, self.num_timesteps)

    def _forget_episodes(self) -> None:
        """Abandon the episodes under way: the next `learn` resets the environment."""
        for model in self.models.values():
            model._last_obs = None
            if isinstance(getattr(model, "replay_buffer", None), LiveReplayBuffer):
                model.replay_buffer.forget_pending_deaths()

    @standard_modes
    def evaluate(
        self,
        env: ParallelEnv | MultiAgentVectorEnv,
        episodes: int = 32,
        seed: int | None = None,
        *,
        deterministic: bool = False,
    ) -> dict[str, float]:
        """Play test episodes with the environment's own rewards; see `dm2_wrappers.evaluation.evaluate`.

        Use a separate environment: after test episodes in the training environment, the next `learn` begins with new
        episodes.

        Raises:
            RuntimeError: ``env`` is the training environment, and `learn` is under way.
        """
        own = not evaluation.simulators(env).isdisjoint(evaluation.simulators(self.env))
        if own and self._lockstep.running:
            raise RuntimeError("learn() is using this environment: evaluate in a separate one")
        try:
            return evaluation.evaluate(self.policy(deterministic=deterministic), env, episodes, seed)
        finally:
            if own:
                self._forget_episodes()
                self._lockstep.seed_env(self.seed, self.num_timesteps)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint, ``<path>.zip``, with everything that a run needs to continue.

        The previous file is kept until the new one is complete. If a callback saves a checkpoint in the middle of a
        rollout, some agents may have learned from the rollout already. A run that loads it begins new episodes.

        Raises:
            RuntimeError: Called by a callback while `learn` is under way with ``workers``.
        """
        self._refuse_stale_learners("save()")
        self._matching.flush()  # what was seen since the last update belongs to the matcher's state
        checkpoint.write(team_state.collect(self), path)

    @classmethod
    @standard_modes
    def load(
        cls,
        path: str | os.PathLike[str],
        env: ParallelEnv | MultiAgentVectorEnv,
        *,
        matcher: DistributionMatcher | None = None,
        coefficient: Coefficient | None = None,
        device: str = "auto",
        log_dir: str | os.PathLike[str] | None = None,
        workers: int = 0,
    ) -> IndependentLearners:
        """Make a team from a checkpoint. ``learn`` then continues from its step.

        SB3 unpickles a part of each agent's learner, which can run any code. Load only checkpoints that you trust, and
        use `restore` for others.

        Args:
            path: The path that was passed to ``save``.
            env: An environment with the agents of the checkpoint. The matcher, coefficients and ``update_every`` of a
                ``DM2ParallelEnv`` or ``DM2VectorEnv`` replace the saved options.
            matcher: Required if you made the discriminators with ``module``. Their weights come from the checkpoint.
            coefficient: Replaces the saved one. Required if that is a schedule of your own, whose state then comes from
                the checkpoint.
            device: Where networks go.
            log_dir: As in the constructor.
            workers: As in the constructor; the results do not depend on it.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a checkpoint, is damaged, or has other agents; or ``device`` cannot be used.
            ImportError: ``log_dir`` was given, but the package tensorboard is not installed.
        """
        log_dir, workers = checked_log_dir(log_dir), _checks.integer("workers", workers, least=0)
        if device != "auto":
            usable_device(device)
        state = checkpoint.read(path)
        options = dict(state.facts["options"])
        if options["convergence"] is not None:
            with checkpoint.naming(path):
                options["convergence"] = Convergence(**options["convergence"])
        if owns_matcher(env):  # then the wrapper's matcher and coefficients are the ones that are meant
            env, matcher, c, env_coefficient, update_every = take_over(env, matcher, coefficient, None, None)
            options.update(coefficient=c, env_coefficient=env_coefficient, update_every=update_every)
        else:
            take_over(env, matcher, coefficient, None, None)
            with checkpoint.naming(path):
                options["coefficient"] = team_state.coefficient_of(state, coefficient)
        venv = as_vector_env(env, "IndependentLearners takes")
        team_state.check_agents(state, venv)
        team = cls.__new__(cls)
        with checkpoint.naming(path):
            matcher = team_state.matcher_of(state, matcher, device)
            team._prepare(venv, matcher, log_dir=log_dir, workers=workers, **options)
            for i, agent in enumerate(team.agents):
                with team._lockstep.as_agent(agent):
                    view, name = team._views[agent], state.facts["algorithms"][i]
                    team.models[agent] = learner_state.loaded(state.models[i], name, view, device)
            team._connect()
            team_state.apply(state, team)
        team._goes_on = True
        return team

    @standard_modes
    def restore(self, path: str | os.PathLike[str]) -> IndependentLearners:
        """Read a checkpoint into this team, which your program built with the same options. Nothing is unpickled.

        Weights, optimizers, counters, replay buffers, discriminators, random streams and the seed are replaced.
        ``coefficient``, ``after_death`` and the algorithms' own options do not change. ``learn`` then continues as after
        `load`. This is safe for checkpoints from others.

        Args:
            path: The path that was passed to ``save``.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a checkpoint, is damaged, or has other agents, algorithms, networks or options. Then
                nothing changes.
            RuntimeError: Called by a callback while `learn` is under way.
        """
        self._refuse_while_learning("restore()")
        state = checkpoint.read(path)
        team_state.check_agents(state, self.env)
        with checkpoint.naming(path):
            team_state.restore(state, self)
        self._goes_on = True
        return self
