"""Wrapped tiny environments, demonstrations and matchers for them."""

import numpy as np

import dm2_wrappers as dm2
from tests.helpers.tiny_envs import TinyEnv

OPTIONS = {"sizes": (4, 3), "limit": 5}


def demonstrations(**options):
    env = TinyEnv(**{**OPTIONS, **options})
    rng = np.random.default_rng(0)
    spaces = {agent: env.action_space(agent) for agent in env.possible_agents}

    def policy(observations):
        if env.continuous:
            return {a: spaces[a].sample() for a in observations}
        return {a: spaces[a].start + int(rng.integers(spaces[a].n)) for a in observations}

    return dm2.Demonstrations.record(env, policy, 6, seed=5)


def matcher(demos=None, **options):
    options = {"updates": 2, "batch_size": 8, "seed": 0, **options}
    return dm2.DistributionMatcher(demos or demonstrations(), **options)


def zeros(env):
    return dict.fromkeys(env.agents, 0)


def flat(observation):
    return observation["observation"] if isinstance(observation, dict) else observation


def recording(env):
    """Everything that ``record`` gets, as a list that grows."""
    heard = []
    record = env.matcher.record
    env.matcher.record = lambda obs, alive, broken=None: (
        heard.append((obs, alive, broken)) or record(obs, alive, broken=broken)
    )
    return heard


class KeepingEnv(TinyEnv):
    """Returns the same dicts at every step, as some environments do."""

    def __init__(self, **options):
        super().__init__(**options)
        self.kept = tuple({} for _ in range(5))
        self.own_infos = {agent: {} for agent in self.possible_agents}

    def reset(self, seed=None, options=None):
        observations, _ = super().reset(seed, options)
        return observations, self.own_infos

    def step(self, actions):
        for own, new in zip(self.kept[:4], super().step(actions)[:4], strict=True):
            own.clear()
            own.update(new)
        return *self.kept[:4], self.own_infos


def play(env, steps):
    env.reset(seed=0)
    for _ in range(steps):
        if isinstance(env, dm2.DM2VectorEnv):
            env.step(np.zeros((env.num_envs, 2), int))
        else:
            env.step(zeros(env))
            if not env.agents:
                env.reset()


def before_the_last_step(names, make):
    """What these agents saw before the last step of the episode with seed 1, in which all acted with 1."""
    env = make()
    observations, _ = env.reset(seed=1)
    for _ in range(4):
        observations = env.step(dict.fromkeys(env.agents, 1))[0]
    return {name: observations[name] for name in names}


def paid_for(env, steps, action=1):
    """Mixed rewards of so many joint steps; new episodes as they come."""
    paid = []
    for _ in range(steps):
        if not env.agents:
            env.reset(seed=3)
        _, rewards, *_ = env.step(dict.fromkeys(env.agents, action))
        paid.append(list(rewards.values()))
    return paid


def scheduled(**options):
    schedule = dm2.schedules.LinearFall(0.5, 0.1, steps=40)
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), **{"coefficient": schedule, **options})
    env.reset(seed=3)
    return env
