"""K ordinary single-agent training loops in lockstep on one multi-agent environment.

Each loop runs as a coroutine (a greenlet). Its environment is one agent's view of the joint environment: ``reset`` and
``step`` hand in the agent's request and wait. When all K loops wait, the joint environment steps once. Then the loops
continue in the order of the agents, each with its own agent's part of the result. The loops need no change.

Each loop and the joint environment have their own random streams: Python's, NumPy's and torch's global states are
swapped whenever the loops take turns. A run is therefore reproducible, and no agent's draws depend on another's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers._extras import require
from dm2_wrappers.rng_state import GlobalRNGState, derive_seed
from dm2_wrappers.vector import Infos, MultiAgentVectorEnv
from dm2_wrappers.vector.base import EpisodeClock, joint_ends, present_after, present_at_reset


class LoopStopped(BaseException):
    """Raised in a loop that waits in ``step`` or ``reset``, when another agent's loop has ended."""


@dataclass(frozen=True)
class JointStep:
    """One step of the joint environment, as arrays [N, K, ...]; `MultiAgentVectorEnv` describes them."""

    observations: NDArray[np.float32]  # before the actions
    present: NDArray[np.bool_]  # the agents that acted
    alive: NDArray[np.bool_]  # the agents that were alive at those observations
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    next_observations: NDArray[np.float32]  # after them: the next episode's where this one ended
    next_present: NDArray[np.bool_]  # the agents that act next
    infos: Infos
    time: NDArray[np.int64]  # [N], how many steps of its episode each sub-environment had taken before


@dataclass(frozen=True)
class Reset:
    """A loop's request: reset the environment."""


@dataclass(frozen=True)
class Act:
    """A loop's request: step the environment with its agent's actions, [N] or [N, A]."""

    actions: NDArray[Any] = field(repr=False)


class Elsewhere(Protocol):
    """The loops of some agents of a lockstep that run in other processes.

    Attributes:
        agents: These agents.
    """

    agents: Collection[str]

    def requests(self) -> Mapping[str, Reset | Act] | None:
        """Wait until each of these loops asks for something; None if one of them has ended."""

    def answer(self, lockstep: Lockstep) -> None:
        """The joint environment was reset or has stepped as all loops asked: let these loops continue."""


class Lockstep:
    """Runs one loop per agent on a joint environment.

    Args:
        env: The joint environment. Close it yourself.
        seed: Seeds every agent's streams, each differently, and the environment at the first reset. None: random.

    Attributes:
        agents: The agents whose loops take turns.
        streams: Each agent's random streams, as they are between two of its turns.
        listeners: Functions that are called with the `JointStep` after each joint step, before any loop continues.
        resets: How often the joint environment was reset.
    """

    def __init__(self, env: MultiAgentVectorEnv, *, seed: int | None = None) -> None:
        self.env = env
        self.agents = env.possible_agents
        self.streams = {agent: GlobalRNGState.seeded(derive_seed(seed, "agent", agent)) for agent in env.possible_agents}
        self.env_stream = GlobalRNGState.seeded(derive_seed(seed, "environment"))
        self.listeners: list[Callable[[JointStep], None]] = []
        self.resets = 0
        self.last_step: JointStep | None = None
        self.observations: NDArray[np.float32] | None = None
        self.present: NDArray[np.bool_] | None = None
        self.infos: Infos = {}
        self._clock = EpisodeClock()
        self._env_seed: int | None = None
        self.seed_env(seed)
        self._greenlet = require("greenlet", "sb3")
        self._hub: Any = None
        self._turn: str | None = None  # the agent whose loop is running

    def seed_env(self, seed: int | None, step: int = 0) -> None:
        """Seed the environment at its next reset with ``seed``, or, later in a run, with one derived from seed and step."""
        self._env_seed = seed if seed is None or step == 0 else derive_seed(seed, "environment", str(step)) % 2**31

    @contextmanager
    def as_agent(self, agent: str) -> Iterator[None]:
        """Run the body on the agent's random streams: for building or loading its learner."""
        outer = GlobalRNGState.capture()
        self.streams[agent].restore()
        try:
            yield
        finally:
            self.streams[agent] = GlobalRNGState.capture()
            outer.restore()

    def run(self, loops: Mapping[str, Callable[[], Any]], elsewhere: Elsewhere | None = None) -> dict[str, Any]:
        """Run every agent's loop until the first one ends. `LoopStopped` is then raised in the others.

        Args:
            loops: One function per agent, which uses only that agent's view of the environment.
            elsewhere: The agents whose loops run in other processes at the same time; ``loops`` has the others.

        Returns:
            What each loop returned (None if `LoopStopped` ended it).

        Raises:
            ValueError: ``loops`` does not have exactly the environment's agents.
            RuntimeError: This lockstep is already running, or one loop resets while another steps.
            Exception: The exception of a loop, with a note that names the agent. The process's random streams are restored
                even then, and you can call ``run`` again.
        """
        if self.running:
            raise RuntimeError("this Lockstep is already running: call run() after the current run has ended")
        agents = [agent for agent in self.agents if elsewhere is None or agent not in elsewhere.agents]
        if set(loops) != set(agents):
            raise ValueError(f"expected one loop for each of {list(agents)}, got loops for {list(loops)}")
        outer = GlobalRNGState.capture()
        workers: dict[str, Any] = {agent: self._greenlet.greenlet(loops[agent]) for agent in agents}
        results: dict[str, Any] = dict.fromkeys(agents)
        try:
            try:
                self._hub = self._greenlet.getcurrent()
                self._take_turns(workers, results, elsewhere)
            finally:
                self._end(workers, outer)
        finally:
            # Again, because a KeyboardInterrupt may have cut the first call short. Nothing is done twice.
            self._end(workers, outer)
        return results

    @property
    def running(self) -> bool:
        """Whether `run` is under way."""
        return self._hub is not None

    def current_streams(self) -> dict[str, GlobalRNGState]:
        """Each agent's random streams as they are now, also in the middle of an agent's turn."""
        now = {} if self._turn is None else {self._turn: GlobalRNGState.capture()}
        return {**self.streams, **now}

    def _take_turns(self, workers: Mapping[str, Any], results: dict[str, Any], elsewhere: Elsewhere | None) -> None:
        """Let the loops take turns until one ends, then stop the others."""
        replies: dict[str, Any] = dict.fromkeys(workers)
        started: set[str] = set()
        while True:
            requests = {}
            for agent, worker in workers.items():
                # The first switch starts the loop, which takes no argument; later ones answer its request.
                answer = (replies[agent],) if agent in started else ()
                started.add(agent)
                message = self._resume(agent, worker.switch, *answer)
                if worker.dead:
                    results[agent] = message
                else:
                    requests[agent] = message
            others = {} if elsewhere is None else elsewhere.requests()
            if len(requests) < len(workers) or others is None:
                break  # a loop has ended: the others must not step without it
            replies = self._answer({**requests, **others})
            if elsewhere is not None:
                elsewhere.answer(self)
        for agent in requests:
            results[agent] = self._stop(agent, workers[agent])

    def _end(self, workers: Mapping[str, Any], outer: GlobalRNGState) -> None:
        """Stop all loops that still wait, restore the process's random streams and allow the next run.

        Loops wait here only after an error or Ctrl-C, which is raised; errors while they stop are not.
        """
        for agent, worker in workers.items():
            with suppress(Exception):  # stop all of them
                self._stop(agent, worker)
        outer.restore()
        self._turn = self._hub = None

    def request_reset(self, agent: str) -> JointStep | None:
        """Called by a view inside its loop: wait until all agents reset."""
        return self._wait(agent, Reset())

    def request_step(self, agent: str, actions: NDArray[Any]) -> JointStep:
        """Called by a view inside its loop: hand in the agent's actions [N] or [N, A], wait for all the others'."""
        return self._wait(agent, Act(actions))

    def _wait(self, agent: str, request: Reset | Act) -> Any:
        if self._hub is None or self._greenlet.getcurrent() is self._hub:
            raise RuntimeError(
                f"the environment of agent {agent!r} steps only together with the others': call it inside Lockstep.run()"
            )
        return self._hub.switch(request)

    def _resume(self, agent: str, switch: Callable[..., Any], *args: Any) -> Any:
        """Switch to a loop, on its own random streams, until it asks for something or ends."""
        self.streams[agent].restore()
        self._turn = agent
        try:
            return switch(*args)
        except LoopStopped:
            return None
        except BaseException as error:
            error.add_note(f"raised in the training loop of agent {agent!r}")
            raise
        finally:
            self.streams[agent] = GlobalRNGState.capture()
            self._turn = None

    def _stop(self, agent: str, worker: Any) -> Any:
        """End a loop that waits; one that has ended or never started is left alone."""
        result = None
        while worker and not worker.dead:
            result = self._resume(agent, worker.throw, LoopStopped())
        return result

    def _answer(self, requests: Mapping[str, Reset | Act]) -> dict[str, Any]:
        """Reset or step the joint environment, as all agents ask for."""
        resetting = [agent for agent, request in requests.items() if isinstance(request, Reset)]
        if resetting and len(resetting) < len(requests):
            stepping = [agent for agent in requests if agent not in resetting]
            raise RuntimeError(
                f"all agents must make the same call: {', '.join(resetting)} called reset(), but {', '.join(stepping)} "
                "called step()"
            )
        self.env_stream.restore()
        try:
            answer = None if resetting else self._step(requests)
            if resetting:
                observations, self.infos = self.env.reset(seed=self._env_seed)
                self.observations = np.array(observations)  # the environment may use its array again
                self._env_seed = None
                self.resets += 1
                self._clock.restart()
                self.present = present_at_reset(self.infos)
                self._check_finite("observation", self.observations)
        finally:
            self.env_stream = GlobalRNGState.capture()
        return dict.fromkeys(requests, answer)

    def _step(self, requests: Mapping[str, Any]) -> JointStep:
        if self.observations is None or self.present is None:
            raise RuntimeError("the loops must reset the environment before they step it")
        actions = self._joint_actions([requests[agent].actions for agent in self.env.possible_agents])
        before, present, alive = self.observations, self.present, np.array(self.infos["alive"], dtype=bool)
        observations, rewards, terminations, truncations, self.infos = self.env.step(actions)
        self.observations, rewards = np.array(observations), np.array(rewards)  # the environment may use its arrays again
        self._check_finite("reward", rewards)
        self._check_finite("observation", self.observations)
        self._check_finite("observation", self.infos["final_obs"])
        self.present = present_after(terminations, truncations, self.infos)
        self.last_step = JointStep(
            observations=before,
            present=present,
            alive=alive,
            actions=actions,
            rewards=rewards,
            terminations=terminations,
            truncations=truncations,
            next_observations=self.observations,
            next_present=self.present,
            infos=self.infos,
            time=self._clock.tick(joint_ends(terminations, truncations)),
        )
        for listener in self.listeners:
            listener(self.last_step)
        return self.last_step

    def _check_finite(self, what: str, values: NDArray[np.float32]) -> None:
        """Raise ``ValueError`` if an agent's values [N, K, ...] hold NaN or infinity, which would ruin its learner."""
        if not np.isfinite(values).all():
            i, k, *_ = np.argwhere(~np.isfinite(values))[0]
            agent = self.env.possible_agents[k]
            raise ValueError(
                f"the {what} of agent {agent!r} in sub-environment {i} holds NaN or infinity; correct the environment"
            )

    def _joint_actions(self, actions: list[NDArray[Any]]) -> NDArray[Any]:
        """The agents' actions as one array [N, K] or, padded to the widest with 0, [N, K, A]."""
        if self.env.discrete:
            return np.stack(actions, axis=1)
        width = max(each.shape[1] for each in actions)
        return np.stack([np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in actions], axis=1)
