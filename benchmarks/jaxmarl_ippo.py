"""`IndependentLearners` with SB3's PPO against a fully jitted IPPO in the style of JaxMARL's, on SMAX.

    python benchmarks/jaxmarl_ippo.py [--scenario 5m_vs_6m] [--num-envs 64] [--rounds 5] [--rollouts 2]

JaxMARL's package has no learners; its repository has scripts (baselines/IPPO). The IPPO here is written after them: rollout,
advantages and updates are one jitted program, all agents share one network, value errors are clipped, and a time limit ends
an episode like a defeat. Theirs for SMAX has a GRU. Here actor and critic are the two layers of 64 of examples/ippo_sb3.py,
and rollouts, epochs, minibatches per epoch and Adam are its settings, too. So every network takes equally many gradient
steps. "JAX, one network per agent" is the same without sharing: K networks by ``vmap``. Its work is nearest to that of
`IndependentLearners`, but it also trains on steps after an agent's death (about a quarter), as JaxMARL does.

The programs take turns for several rounds. PyTorch has one thread and XLA one for each operation, but XLA still does some
operations at the same time, so its CPU time exceeds its time. The table shows medians of both: on a machine that does
other work at the same time, only CPU times mean something. "JaxMARL's environment" plays random available
actions, jitted as a whole: no program whose environment is JaxMARL's can be faster. The returns, which are JaxMARL's times
10, show that each program learns.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from _profile import Profile
from sb3_contrib import MaskablePPO

import dm2_wrappers as dm2

PACKAGES = ("torch", "stable-baselines3", "jax", "jaxmarl", "optax")
REWARD_SCALE = 10.0  # as in dm2.envs.smax
OURS, ENVIRONMENT = "IndependentLearners", "JaxMARL's environment"


@dataclass(frozen=True)
class PPO:
    """Settings of all programs."""

    num_envs: int = 64
    num_steps: int = 64
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 1e-3
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    ent_coef: float = 0.01
    vf_coef: float = 0.5
    max_grad_norm: float = 10.0
    hidden: int = 64


class Battles:
    """N battles as arrays with agents first: observations [K, N, D], masks [K, N, A]."""

    def __init__(self, smax: Any, num_envs: int) -> None:
        self.smax, self.agents, self.num_envs = smax, tuple(smax.agents), num_envs
        self.shape = len(self.agents), num_envs

    def reset(self, key: Any) -> tuple[Any, Any]:
        observations, states = jax.vmap(self.smax.reset)(jax.random.split(key, self.num_envs))
        # Without this the program would compile a second time: JaxMARL's reset returns weakly typed arrays.
        return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), (states, self._stack(observations)))

    def masks(self, states: Any) -> Any:
        return self._stack(jax.vmap(self.smax.get_avail_actions)(states)).astype(bool)

    def step(self, key: Any, states: Any, actions: Any) -> tuple[Any, Any, Any, Any]:
        """States, observations, the team's rewards [N], and where an episode ended [N] (and the next one began)."""
        keys = jax.random.split(key, self.num_envs)
        joint = dict(zip(self.agents, actions, strict=True))
        observations, states, rewards, dones, _ = jax.vmap(self.smax.step)(keys, states, joint)
        return states, self._stack(observations), REWARD_SCALE * rewards[self.agents[0]], dones["__all__"]

    def _stack(self, per_agent: dict[str, Any]) -> Any:
        return jnp.stack([per_agent[agent] for agent in self.agents])


def mlp_parameters(key: Any, sizes: list[int], last_scale: float) -> list[tuple[Any, Any]]:
    scales = [2.0**0.5] * (len(sizes) - 2) + [last_scale]
    layers = zip(jax.random.split(key, len(scales)), scales, sizes[:-1], sizes[1:], strict=True)
    return [(jax.nn.initializers.orthogonal(scale)(each, (wide, out)), jnp.zeros(out)) for each, scale, wide, out in layers]


def mlp(layers: list[tuple[Any, Any]], x: Any) -> Any:
    for weights, bias in layers[:-1]:
        x = jax.nn.relu(x @ weights + bias)
    weights, bias = layers[-1]
    return x @ weights + bias


def actor_critic(parameters: Any, observations: Any, masks: Any) -> tuple[Any, Any]:
    """Log-probabilities of the actions [rows, A], and values [rows]."""
    logits = jnp.where(masks, mlp(parameters["actor"], observations), -1e8)
    return jax.nn.log_softmax(logits), mlp(parameters["critic"], observations)[..., 0]


class JaxIPPO:
    """IPPO as one jitted program.

    All arrays have G networks and the R rows that each of them sees: one network and K * N rows if the agents share
    it, K networks and N rows otherwise.
    """

    def __init__(self, battles: Battles, settings: PPO, *, shared: bool, seed: int = 0) -> None:
        self.battles, self.ppo = battles, settings
        self.networks = 1 if shared else len(battles.agents)
        self.optimizer = optax.chain(
            optax.clip_by_global_norm(settings.max_grad_norm), optax.adam(settings.learning_rate, eps=1e-5)
        )
        network_key, env_key, key = jax.random.split(jax.random.key(seed), 3)
        states, observations = battles.reset(env_key)
        size, actions = observations.shape[-1], battles.masks(states).shape[-1]

        def new_network(key: Any) -> Any:
            actor, critic = jax.random.split(key)
            hidden = [size, settings.hidden, settings.hidden]
            return {
                "actor": mlp_parameters(actor, [*hidden, actions], 0.01),
                "critic": mlp_parameters(critic, [*hidden, 1], 1.0),
            }

        parameters = jax.vmap(new_network)(jax.random.split(network_key, self.networks))
        learner = parameters, jax.vmap(self.optimizer.init)(parameters)
        self._state = (learner, (states, observations, jnp.zeros(battles.num_envs)), key)
        self._run: dict[int, Any] = {}

    def compile(self, updates: int) -> None:
        self._run[updates] = jax.jit(self._train, static_argnums=1).lower(self._state, updates).compile()

    def run(self, updates: int) -> np.ndarray:
        """Train; the mean returns of the episodes that ended in each rollout."""
        self._state, returns = self._run[updates](self._state)
        return np.asarray(returns)

    def _train(self, state: Any, updates: int) -> tuple[Any, Any]:
        return jax.lax.scan(self._update, state, None, updates)

    def _rows(self, arrays: Any) -> Any:
        """[K, N, ...] to [G, R, ...]."""
        return arrays.reshape(self.networks, -1, *arrays.shape[2:])

    def _update(self, state: Any, _: None) -> tuple[Any, Any]:
        """One rollout, then one training on it."""
        (parameters, optimizer), env, key = state
        key, play_key, learn_key = jax.random.split(key, 3)

        def step(env: Any, key: Any) -> tuple[Any, dict[str, Any]]:
            states, observations, returns = env
            action_key, env_key = jax.random.split(key)
            seen = {"observations": self._rows(observations), "masks": self._rows(self.battles.masks(states))}
            log_probs, values = jax.vmap(actor_critic)(parameters, *seen.values())
            actions = jax.random.categorical(action_key, log_probs)
            joint = actions.reshape(self.battles.shape)
            states, observations, rewards, ended = self.battles.step(env_key, states, joint)
            returns = returns + rewards
            step = {
                **seen,
                "values": values,
                "actions": actions,
                "log_probs": jnp.take_along_axis(log_probs, actions[..., None], axis=-1)[..., 0],
                "rewards": self._rows(jnp.broadcast_to(rewards, joint.shape)),
                "ended": self._rows(jnp.broadcast_to(ended, joint.shape)),
                "returns": jnp.where(ended, returns, jnp.nan),
            }
            return (states, observations, jnp.where(ended, 0.0, returns)), step

        env, rollout = jax.lax.scan(step, env, jax.random.split(play_key, self.ppo.num_steps))
        last = self._rows(env[1])
        _, last_values = jax.vmap(actor_critic)(parameters, last, jnp.ones((*last.shape[:2], 1), bool))
        rollout["advantages"] = self._advantages(rollout, last_values)
        rollout["targets"] = rollout["advantages"] + rollout["values"]
        mean_return = jnp.nanmean(rollout.pop("returns"))
        # [T, G, R, ...] to [G, T * R, ...]
        rows = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(self.networks, -1, *x.shape[3:]), rollout)
        learner = jax.vmap(self._learn)(parameters, optimizer, rows, jax.random.split(learn_key, self.networks))
        return (learner, env, key), mean_return

    def _advantages(self, rollout: dict[str, Any], last_values: Any) -> Any:
        def back(following: tuple[Any, Any], step: dict[str, Any]) -> tuple[Any, Any]:
            advantage, value = following
            goes_on = self.ppo.gamma * ~step["ended"]
            delta = step["rewards"] + goes_on * value - step["values"]
            advantage = delta + self.ppo.gae_lambda * goes_on * advantage
            return (advantage, step["values"]), advantage

        return jax.lax.scan(back, (jnp.zeros_like(last_values), last_values), rollout, reverse=True)[1]

    def _learn(self, parameters: Any, optimizer: Any, rows: dict[str, Any], key: Any) -> tuple[Any, Any]:
        """All epochs of one network on its rows [T * R, ...]."""
        number = len(rows["actions"])

        def minibatch(learner: Any, batch: dict[str, Any]) -> tuple[Any, None]:
            parameters, optimizer = learner
            gradients = jax.grad(self._loss)(parameters, batch)
            updates, optimizer = self.optimizer.update(gradients, optimizer, parameters)
            return (optax.apply_updates(parameters, updates), optimizer), None

        def epoch(learner: Any, key: Any) -> tuple[Any, None]:
            order = jax.random.permutation(key, number).reshape(self.ppo.minibatches, -1)
            return jax.lax.scan(lambda each, own: minibatch(each, {k: v[own] for k, v in rows.items()}), learner, order)

        learner, _ = jax.lax.scan(epoch, (parameters, optimizer), jax.random.split(key, self.ppo.epochs))
        return learner

    def _loss(self, parameters: Any, batch: dict[str, Any]) -> Any:
        clip = self.ppo.clip_range
        log_probs, values = actor_critic(parameters, batch["observations"], batch["masks"])
        chosen = jnp.take_along_axis(log_probs, batch["actions"][:, None], axis=-1)[:, 0]
        ratio = jnp.exp(chosen - batch["log_probs"])
        advantages = (batch["advantages"] - batch["advantages"].mean()) / (batch["advantages"].std() + 1e-8)
        policy = -jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - clip, 1 + clip) * advantages).mean()
        near = batch["values"] + jnp.clip(values - batch["values"], -clip, clip)
        value = 0.5 * jnp.maximum((values - batch["targets"]) ** 2, (near - batch["targets"]) ** 2).mean()
        entropy = -(jnp.exp(log_probs) * log_probs).sum(axis=-1).mean()
        return policy + self.ppo.vf_coef * value - self.ppo.ent_coef * entropy


class RandomPlay:
    """JaxMARL's environment alone, jitted as a whole: masks, random available actions, steps and resets."""

    def __init__(self, battles: Battles, settings: PPO) -> None:
        self.battles, self.num_steps = battles, settings.num_steps
        states, _ = battles.reset(jax.random.key(0))
        self._state = states, jax.random.key(1)
        self._run: dict[int, Any] = {}

    def compile(self, updates: int) -> None:
        def step(carry: Any, _: None) -> tuple[Any, Any]:
            states, key = carry
            key, action_key, env_key = jax.random.split(key, 3)
            actions = jax.random.categorical(action_key, jnp.where(self.battles.masks(states), 0.0, -1e8))
            states, observations, rewards, ended = self.battles.step(env_key, states, actions)
            # The sum of the observations, so that they are computed.
            return (states, key), (observations.sum(), rewards.sum(), ended.sum())

        def play(state: Any) -> Any:
            return jax.lax.scan(step, state, None, updates * self.num_steps)

        self._run[updates] = jax.jit(play).lower(self._state).compile()

    def run(self, updates: int) -> None:
        self._state, sums = self._run[updates](self._state)
        jax.block_until_ready(sums)


class OurTeam:
    """One ``MaskablePPO`` per agent, in lockstep."""

    def __init__(self, scenario: str, settings: PPO) -> None:
        self.venv = dm2.envs.smax.vector_env(scenario, settings.num_envs, reward_scale=REWARD_SCALE)
        self.rollout = settings.num_envs * settings.num_steps
        self.team = dm2.sb3.IndependentLearners(
            MaskablePPO,
            self.venv,
            seed=0,
            n_steps=settings.num_steps,
            batch_size=self.rollout // settings.minibatches,
            n_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            gamma=settings.gamma,
            gae_lambda=settings.gae_lambda,
            clip_range=settings.clip_range,
            ent_coef=settings.ent_coef,
            vf_coef=settings.vf_coef,
            max_grad_norm=settings.max_grad_norm,
            policy_kwargs={"activation_fn": torch.nn.ReLU, "net_arch": [settings.hidden, settings.hidden]},
            device="cpu",
        )
        self.model = self.team.models[self.team.agents[0]]

    def compile(self, updates: int) -> None:
        self.venv.reset(seed=0)
        self.venv.step(np.full((self.venv.num_envs, self.venv.num_agents), self.venv.no_op))

    def run(self, updates: int) -> np.ndarray:
        """Train; the mean return of the last 100 episodes."""
        self.team.learn(updates * self.rollout, reset_num_timesteps=False)
        return np.array([np.mean([each["r"] for each in self.model.ep_info_buffer])])

    def watch(self, profile: Profile) -> None:
        profile.watch("environment", type(self.venv), "step")
        profile.watch("policies", type(self.model.policy), "forward", "predict_values")
        profile.watch("learning", type(self.model), "train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="5m_vs_6m")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rollouts", type=int, default=2, help="rollouts of 64 steps in each round, each with an update")
    args = parser.parse_args()
    torch.set_num_threads(1)
    versions = [f"Python {platform.python_version()}", *(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {', '.join(versions)}")
    print(
        f"{args.scenario}, {args.num_envs} sub-environments, {args.rounds} rounds of {args.rollouts} rollouts, "
        f"load {os.getloadavg()[0]:.1f} at the start\n",
        flush=True,
    )
    # Compilations are timed, so what an earlier run has kept on disk is not used.
    jax.config.update("jax_enable_compilation_cache", False)
    settings = PPO(num_envs=args.num_envs)
    ours = OurTeam(args.scenario, settings)
    battles = Battles(ours.venv.smax, args.num_envs)
    programs: dict[str, Any] = {
        OURS: ours,
        "JAX, one network per agent": JaxIPPO(battles, settings, shared=False),
        "JAX, one shared network": JaxIPPO(battles, settings, shared=True),
        ENVIRONMENT: RandomPlay(battles, settings),
    }
    compiled = {name: timed(lambda each=each: each.compile(args.rollouts)) for name, each in programs.items()}
    first = {name: each.run(args.rollouts) for name, each in programs.items()}
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    last: dict[str, Any] = {}
    with Profile() as profile:
        ours.watch(profile)
        for _ in range(args.rounds):
            for name, each in programs.items():
                # The last round's value is kept.
                measured[name].append(timed(lambda name=name, each=each: last.update({name: each.run(args.rollouts)})))
    report(measured, compiled, args.rollouts * ours.rollout, {name: (first[name], last[name]) for name in programs})
    total = sum(seconds for seconds, _ in measured[OURS])
    shares = {**profile.seconds, "the rest": total - sum(profile.seconds.values())}
    print(f"\nTime of {OURS}: " + ", ".join(f"{name} {100 * own / total:.0f} %" for name, own in shares.items()))


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds and CPU seconds."""
    start, used = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - used


def report(
    measured: dict[str, list[tuple[float, float]]],
    compiled: dict[str, tuple[float, float]],
    steps: int,
    returns: dict[str, tuple[Any, Any]],
) -> None:
    """Print the table. Ratios are medians over rounds of the other program's time by ours."""
    columns = (
        "steps/s (median, range)",
        "steps per CPU second",
        "ours / it",
        "the same in CPU time",
        "compiled in",
        "return",
    )
    print(f"| program | {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|")
    ours = np.array(measured[OURS])
    for name, values in measured.items():
        times = np.array(values)
        speeds = steps / times
        ratio, of_cpu = np.median(times / ours, axis=0)
        wall, cpu = speeds.T
        before, after = returns[name]
        shown = "" if after is None else f"{before[0]:.1f} to {after[-1]:.1f}"
        speed = f"{np.median(wall):,.0f} ({wall.min():,.0f} - {wall.max():,.0f}) | {np.median(cpu):,.0f}"
        taken = f"{compiled[name][0]:.0f} s ({compiled[name][1]:.0f} s CPU)"
        print(f"| {name} | {speed} | {ratio:.2f} | {of_cpu:.2f} | {taken} | {shown} |")


if __name__ == "__main__":
    main()
