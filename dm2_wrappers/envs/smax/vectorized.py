"""SMAX battles as a vector environment: one jitted step for all of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dm2_wrappers import _checks
from dm2_wrappers.envs.action_masks import available_actions
from dm2_wrappers.envs.options import checked_death, checked_invalid_action, checked_max_steps, checked_num_envs
from dm2_wrappers.envs.smax import maps
from dm2_wrappers.envs.smax.modes import default_modes
from dm2_wrappers.vector import Infos, MultiAgentVectorEnv, StepResult
from dm2_wrappers.vector.reset_arguments import reset_options, sub_env_seeds

STOP = 4  # SMAX's no-op: the actions are four moves, stop, then one per enemy


class SMAXVectorEnv(MultiAgentVectorEnv):
    """N SMAX battles in one jitted step that resets ended ones; see `MultiAgentVectorEnv` for the arrays.

    Args:
        scenario: A name from ``scenarios()``.
        num_envs: N, the number of battles.
        seed: Battle i is seeded with ``seed + i`` at the first ``reset``, unless that is given a seed; None is random.
        reward_scale: Factor on JaxMARL's rewards. Their returns are at most 2, SMAC's at most 20. With the default
            of 10 both are at most 20, so you can use the paper's coefficient.
        death: "absorb": a dead agent stays until the episode ends, with a zero observation and stop as its only
            action, and still earns the team's reward (as in SMAC). "remove": it is terminated at its death.
        invalid_action: "error": an unavailable action is a ``ValueError``, before anything changes. "noop": the
            agent stops instead.
        max_steps: Time limit of an episode, a truncation. None: JaxMARL's own, which is 101 steps.
        **smax_options: Further arguments of JaxMARL's ``HeuristicEnemySMAX``, e.g. ``walls_cause_death=False``,
            ``see_enemy_actions``, ``attack_mode="random"``.
    """

    def __init__(
        self,
        scenario: str,
        num_envs: int,
        *,
        seed: int | None = None,
        reward_scale: float = 10.0,
        death: str = "absorb",
        invalid_action: str = "error",
        max_steps: int | None = None,
        **smax_options: Any,
    ) -> None:
        self.num_envs = checked_num_envs(num_envs)
        self.death = checked_death(death)
        self.invalid_action = checked_invalid_action(invalid_action)
        self.reward_scale = _checks.number("reward_scale", reward_scale)
        max_steps = checked_max_steps(max_steps)
        if max_steps is not None:
            # JaxMARL looks at its clock before the step is counted: its episodes last one step longer than it says.
            smax_options["max_steps"] = max_steps - 1
        if smax_options.get("action_type", "discrete") != "discrete":
            raise ValueError(f"action_type must be 'discrete', got {smax_options['action_type']!r}")
        self.smax, self._reset_all, self._step_all = _simulator(scenario, smax_options)
        self.scenario = scenario
        self.max_steps = int(self.smax.max_steps) + 1
        self.env_id = f"smax:{scenario}"
        self.possible_agents = tuple(self.smax.agents)
        size, num_actions = int(self.smax.obs_size), int(self.smax.num_ally_actions)
        # JaxMARL says [-1, 1], but a unit pushed against the edge of the map stands a little outside of it.
        box = spaces.Box(-2.0, 2.0, (size,), np.float32)
        self.observation_spaces = dict.fromkeys(self.possible_agents, box)
        self.action_spaces = {agent: spaces.Discrete(num_actions) for agent in self.possible_agents}
        self.no_op = STOP
        # The available actions of a dead agent, and of all agents after the episode's end: stop [K, A].
        self.idle_mask = np.tile(np.arange(num_actions) == STOP, (self.num_agents, 1))
        seed = _checks.integer("seed", seed, none=True)
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._keys: Any = None
        self._state: Any = None
        self._masks: NDArray[np.bool_]
        self._alive: NDArray[np.bool_]

    @default_modes()
    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], Infos]:
        """Start a new battle in every sub-environment; an integer seeds sub-environment i with ``seed + i``."""
        import jax

        reset_options(options)
        if seed is not None or self._keys is None:
            given = sub_env_seeds(seed, self.num_envs)
            seeds = [self._seed + i if one is None else one for i, one in enumerate(given)]
            # Seeds outside 32 bits would overflow in JAX; the low bits are what it would use anyway.
            keys = jax.vmap(jax.random.key_data)(
                jax.vmap(jax.random.key)(np.array([one % 2**32 for one in seeds], dtype=np.uint32))
            )
            continues = np.array([one is None for one in given])
            self._keys = keys if self._keys is None else np.where(continues[:, None], self._keys, keys)
        self._state, self._keys, out = self._reset_all(self._keys)
        self._masks, self._alive = np.array(out["action_mask"]), np.array(out["alive"])
        return np.array(out["obs"]), {
            "present": np.ones_like(self._alive),
            "alive": self._alive.copy(),
            "action_mask": self._masks.copy(),
            "state": np.array(out["state"]),
        }

    @default_modes()
    def step(self, actions: NDArray[Any]) -> StepResult:
        """Take one joint step in every battle.

        Args:
            actions: Integers [N, K].

        Raises:
            RuntimeError: ``reset`` was never called.
            ValueError: Wrong shape or type, or an unavailable action with ``invalid_action="error"``; nothing has changed.
        """
        if self._state is None:
            raise RuntimeError("call reset() before step()")
        joint = available_actions(actions, self._masks, STOP, self.possible_agents, replace=self.invalid_action == "noop")
        before = self._alive
        self._state, self._keys, out = self._step_all(self._state, self._keys, joint)
        arrays: dict[str, NDArray[Any]] = {name: np.asarray(array) for name, array in out.items()}
        self._masks, self._alive = np.array(arrays["action_mask"]), np.array(arrays["alive"])
        shape = before.shape
        terminations = np.broadcast_to(arrays["terminated"][:, None], shape).copy()
        truncations = np.broadcast_to(arrays["truncated"][:, None], shape).copy()
        rewards = np.repeat((self.reward_scale * arrays["reward"]).astype(np.float32)[:, None], shape[1], axis=1)
        if self.death == "remove":
            terminations |= ~arrays["final_alive"]
            truncations &= ~terminations
            rewards[~before] = 0.0
        ended = terminations | truncations
        infos: Infos = {
            "present": ~ended | ended.all(axis=1, keepdims=True),
            "alive": self._alive.copy(),
            "action_mask": self._masks.copy(),
            "final_obs": np.array(arrays["final_obs"]),
            "_final_obs": ended.all(axis=1),
            "final_alive": np.array(arrays["final_alive"]),
            "final_action_mask": np.array(arrays["final_action_mask"]),
            "battle_won": np.array(arrays["won"]),
            "broken": np.zeros(self.num_envs, dtype=bool),
            "state": np.array(arrays["state"]),
            "final_state": np.array(arrays["final_state"]),
        }
        return np.array(arrays["obs"]), rewards, terminations, truncations, infos

    @default_modes()
    def units(self, index: int = 0) -> dict[str, NDArray[Any]]:
        """What there is to see of one battle, for U units of both teams, allies first.

        Args:
            index: The number of the battle.

        Returns:
            ``"positions"`` [U, 2], ``"health"`` (as a share) [U], ``"radius"`` [U], ``"team"`` [U], ``"alive"`` [U], and
            ``"target"`` [U], the unit that a unit attacked in the last step from within its range, or -1.

        Raises:
            RuntimeError: Before the first ``reset``.
        """
        if self._state is None:
            raise RuntimeError("call reset() first")
        state = self._state.state
        types, positions = np.asarray(state.unit_types[index]), np.asarray(state.unit_positions[index])
        alive = np.asarray(state.unit_alive[index])
        return {
            "positions": positions,
            "health": np.asarray(state.unit_health[index]) / np.asarray(self.smax.unit_type_health)[types],
            "radius": np.asarray(self.smax.unit_type_radiuses)[types],
            "team": np.asarray(state.unit_teams[index]),
            "alive": alive,
            "target": self._targets(np.asarray(state.prev_attack_actions[index]), positions, types, alive),
        }

    def _targets(self, attacks: NDArray[Any], positions: NDArray[Any], types: NDArray[Any], alive: NDArray[Any]) -> Any:
        num_allies, first_attack = self.smax.num_allies, STOP + 1
        units = np.arange(len(attacks))
        order = attacks - first_attack
        # JaxMARL numbers the targets of allies upwards and those of enemies downwards.
        target = np.where(units < num_allies, num_allies + order, num_allies - 1 - order)
        target = np.where(attacks >= first_attack, target, units)
        distance = np.linalg.norm(positions - positions[target], axis=1)
        reach = np.asarray(self.smax.unit_type_attack_ranges)[types]
        # A unit that this shot killed is still a target.
        return np.where(alive & (target != units) & (distance < reach), target, -1)


@default_modes()
def _simulator(scenario: str, smax_options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """JaxMARL's SMAX and its compiled ``reset`` and ``step``, shared among equal ones: compiling takes seconds."""
    options = tuple(sorted(smax_options.items()))
    try:
        hash(options)
    except TypeError:  # arrays, such as unit_type_attacks, are compiled anew
        return _new_simulator(scenario, options)
    return _shared_simulator(scenario, options)


def _new_simulator(scenario: str, options: tuple[tuple[str, Any], ...]) -> tuple[Any, Any, Any]:
    units = maps.get(scenario)
    smax = maps.jaxmarl("heuristic_enemy_smax_env").HeuristicEnemySMAX(scenario=units, **dict(options))
    return smax, *_jitted(smax)


_shared_simulator = functools.lru_cache(maxsize=64)(_new_simulator)


def _jitted(smax: Any) -> tuple[Any, Any]:
    """The batched ``reset(keys)`` and ``step(states, keys, actions [N, K])`` of one SMAX, compiled.

    A battle's stream of keys is split once per reset and in three per step, whether the step ends the episode or not,
    so a battle does not depend on the others.
    """
    import jax
    import jax.numpy as jnp

    agents, num_allies = tuple(smax.agents), smax.num_allies

    def stack(per_agent: dict[str, Any]) -> Any:
        return jnp.stack([per_agent[agent] for agent in agents])

    def strong(tree: Any) -> Any:
        # JaxMARL's reset returns weakly typed arrays: without this the step would compile a second time.
        return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), tree)

    def view(state: Any, observations: dict[str, Any]) -> dict[str, Any]:
        return {
            "obs": stack(observations).astype(jnp.float32),
            "state": observations["world_state"].astype(jnp.float32),
            "alive": state.state.unit_alive[:num_allies],
        }

    def mask(state: Any) -> Any:
        return stack(smax.get_avail_actions(state)).astype(jnp.bool_)

    def reset_one(key_data: Any) -> tuple[Any, Any, dict[str, Any]]:
        key, reset_key = jax.random.split(jax.random.wrap_key_data(key_data))
        observations, state = smax.reset(reset_key)
        return strong(state), jax.random.key_data(key), {**view(state, observations), "action_mask": mask(state)}

    def step_one(state: Any, key_data: Any, actions: Any) -> tuple[Any, Any, dict[str, Any]]:
        key, step_key, reset_key = jax.random.split(jax.random.wrap_key_data(key_data), 3)
        # step_env, not step: step hides the observation that ends an episode.
        observations, state, rewards, dones, _ = smax.step_env(step_key, state, dict(zip(agents, actions, strict=True)))
        allies, enemies = jnp.split(state.state.unit_alive, [num_allies])
        terminated = ~allies.any() | ~enemies.any()
        done = dones["__all__"]
        first_observations, first_state = smax.reset(reset_key)
        final, final_mask = view(state, observations), mask(state)
        first = view(first_state, first_observations)
        state, shown = jax.tree.map(
            lambda new, old: jnp.where(done, new, old), (strong(first_state), first), (strong(state), final)
        )
        out = {
            **shown,
            "action_mask": mask(state),
            "final_obs": final["obs"],
            "final_state": final["state"],
            "final_alive": final["alive"],
            "final_action_mask": final_mask,
            "reward": rewards[agents[0]],
            "terminated": terminated,
            "truncated": done & ~terminated,
            "won": allies.any() & ~enemies.any(),  # both sides dead is a draw
        }
        return state, jax.random.key_data(key), out

    return jax.jit(jax.vmap(reset_one)), jax.jit(jax.vmap(step_one))
