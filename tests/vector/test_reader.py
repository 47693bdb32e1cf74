"""What an environment returns against what it declares: each breach is one sentence that names environment and agent."""

from __future__ import annotations

from types import MappingProxyType

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from mpe2 import simple_spread_v3
from pettingzoo import ParallelEnv

import dm2_wrappers as dm2
from dm2_wrappers.evaluation import evaluate
from dm2_wrappers.vector.outcome import episode_news
from tests.helpers.tiny_envs import TinyEnv

NAME = "'broken contract'"


class Env(ParallelEnv):
    """Two agents; what ``reset`` and ``step`` return, and the spaces, can be replaced."""

    metadata = {"name": "broken contract"}
    possible_agents = ["ann", "bob"]

    def __init__(self, space=None, actions=None, **replace):
        self.space = space or spaces.Box(-9, 9, (2,), np.float32)
        self.actions = actions or spaces.Discrete(3)
        self.replace = replace

    def observation_space(self, agent):
        return self.space

    def sample(self):
        return masked(np.ones(3)) if self.space == MASKED else self.space.sample()

    def action_space(self, agent):
        return self.actions

    def reset(self, seed=None, options=None):
        self.agents = self.replace.get("agents_at_reset", ["ann", "bob"])
        observations = self.each("observation_at_reset", self.sample())
        infos = self.each("info_at_reset", {})
        return self.replace.get("reset", lambda *parts: parts)(observations, infos)

    def step(self, actions):
        self.agents = self.replace.get("agents", ["ann", "bob"])
        names = ("observation", "reward", "termination", "truncation", "info")
        parts = [self.each(name, ok) for name, ok in zip(names, (self.sample(), 1.0, False, False, {}), strict=True)]
        return self.replace.get("step", lambda *parts: parts)(*parts)

    def each(self, name, value):
        """``value`` for both agents, with bob's replaced."""
        found = {"ann": value, "bob": self.replace.get(name, value)}
        return {agent: each for agent, each in found.items() if not (isinstance(each, str) and each == "missing")}


MASKED = spaces.Dict({"observation": spaces.Box(-9, 9, (2,), np.float32), "action_mask": spaces.MultiBinary(3)})


def masked(mask):
    return {"observation": np.zeros(2, np.float32), "action_mask": mask}


OLD_API = "must return .observations, rewards, terminations, truncations, infos. from step.., but returned a tuple of 4"

BREACHES = {
    # rewards
    "no reward": ({"reward": "missing"}, "no reward for agent 'bob', which acted"),
    "no reward of one that ended": ({"reward": "missing", "termination": True}, "no reward for agent 'bob', which acted"),
    "vector reward": ({"reward": np.array([1.0, 2.0])}, "the reward array.* for agent 'bob': expected one finite number"),
    "NaN reward": ({"reward": np.nan}, "the reward nan for agent 'bob'"),
    "reward None": ({"reward": None}, "the reward None for agent 'bob'"),
    "reward in words": ({"reward": "ten"}, "the reward 'ten' for agent 'bob'"),
    "reward beyond float32": ({"reward": 1e39}, "the reward 1e[+]39 for agent 'bob': expected one finite number within"),
    "reward with gradients": (
        {"reward": torch.ones(1, requires_grad=True)},
        "the reward tensor.* for agent 'bob': expected one finite number",
    ),
    "ragged reward": ({"reward": [[1], [1, 2]]}, "the reward .* for agent 'bob'"),
    # flags
    "flag None": ({"termination": None}, "the termination None for agent 'bob': expected True or False"),
    "flag in words": ({"truncation": "no"}, "the truncation 'no' for agent 'bob'"),
    "flag out of range": ({"truncation": 2}, "the truncation 2 for agent 'bob'"),
    "several flags": ({"termination": np.zeros(2, bool)}, "the termination array.* for agent 'bob'"),
    "alive None": ({"info": {"alive": "yes"}}, "the alive in infos 'yes' for agent 'bob'"),
    "won in words": ({"info": {"battle_won": "no"}}, "battle_won='no' in the infos of 'bob': expected True, False or None"),
    "broken twice": ({"info": {"broken": np.zeros(2, bool)}}, "broken=array.* in the infos of 'bob': expected True, False"),
    # observations
    "tensor with gradients": (
        {"observation": torch.ones(2, requires_grad=True)},
        r"of agent 'bob' that is not in its .*shape \(2,\), got tensor",
    ),
    "no observation": ({"observation": "missing"}, "no observation for agent 'bob', which is in env.agents"),
    "no observation at reset": ({"observation_at_reset": "missing"}, "no observation for agent 'bob'"),
    "observation None": ({"observation": None}, r"of agent 'bob' that is not in its .*shape \(2,\), got None"),
    "longer": ({"observation": np.zeros(3)}, r"agent 'bob' .* expected shape \(2,\), got shape \(3,\)"),
    "one number": ({"observation": np.zeros(1)}, r"agent 'bob' .* expected shape \(2,\), got shape \(1,\)"),
    "other axes": ({"observation": np.zeros((1, 2))}, r"agent 'bob' .* expected shape \(2,\), got shape \(1, 2\)"),
    "words": ({"observation": ["x", "y"]}, "agent 'bob' .* expected numbers"),
    "NaN": ({"observation": np.array([0, np.nan])}, "agent 'bob' whose feature 1 is nan"),
    "infinite": ({"observation_at_reset": np.array([np.inf, 0])}, "agent 'bob' whose feature 0 is inf"),
    "beyond float32": ({"observation": np.array([0, 1e300])}, "agent 'bob' whose feature 1 is inf"),
    "a number above": ({"space": spaces.Discrete(3), "observation": 3}, r"agent 'bob' .* element of Discrete\(3\), got 3"),
    "a number below": ({"space": spaces.Discrete(3), "observation": -1}, r"agent 'bob' .* got -1"),
    "below its start": ({"space": spaces.Discrete(3, start=2), "observation": 1}, "agent 'bob' .* got 1"),
    "half a number": ({"space": spaces.Discrete(3), "observation": 0.5}, "agent 'bob' .* got 0.5"),
    "one of several": (
        {"space": spaces.MultiDiscrete([2, 3]), "observation": np.array([2, 0])},
        r"agent 'bob' .* MultiDiscrete\(\[2 3\]\), got",
    ),
    "bits": ({"space": spaces.MultiBinary(2), "observation": np.array([0, 2])}, r"agent 'bob' .* MultiBinary\(2\), got"),
    "tuple": (
        {"space": spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)]), "observation": (1,)},
        "agent 'bob' .* tuple of 2 parts",
    ),
    "key too many": (
        {"space": spaces.Dict({"x": spaces.Discrete(2)}), "observation": {"x": 1, "y": 1}},
        r"agent 'bob' .* the keys \['x'\], got \['x', 'y'\]",
    ),
    "key beside the mask": (
        {"space": MASKED, "observation": {**masked(np.ones(3)), "more": 1}},
        r"agent 'bob' .* 'observation' and 'action_mask', got \['more', 'observation'\]",
    ),
    "no dict": ({"space": MASKED, "observation": np.zeros(2)}, "agent 'bob' .* 'action_mask', got ndarray"),
    # masks
    "nothing available": ({"space": MASKED, "observation": masked(np.zeros(3))}, "'bob' without any available action"),
    "mask too short": ({"space": MASKED, "observation": masked(np.ones(2))}, r"'bob' with shape \(2,\).*expected 3 flags"),
    "mask of numbers": (
        {"space": MASKED, "observation": masked(np.array([0.0, -1e9, 0.0]))},
        "action mask .* of agent 'bob': expected zeros and ones",
    ),
    "mask in infos too long": ({"info": {"action_mask": np.ones(4)}}, r"'bob' with shape \(4,\).*expected 3 flags"),
    # agents
    "unknown agent": ({"agents": ["ann", "eve"]}, r"'eve' in agents, which is not in possible_agents \['ann', 'bob'\]"),
    "nobody at reset": ({"agents_at_reset": []}, "no agents after reset"),
    "no agents": ({"agents_at_reset": None}, "must list the agents that act next in its attribute agents"),
    "unknown observation": ({"step": lambda o, *rest: ({**o, "eve": 1}, *rest)}, "returned observations of 'eve'"),
    "unknown reward": ({"step": lambda o, r, *rest: (o, {**r, "eve": 1}, *rest)}, "returned rewards of 'eve'"),
    # the form of the answers
    "old step": ({"step": lambda o, r, d, _, i: (o, r, d, i)}, OLD_API),
    "step None": ({"step": lambda *parts: None}, "from step.., but returned a NoneType"),
    "old reset": ({"reset": lambda o, i: o}, "must return .observations, infos. from reset.., but returned a dict"),
    "reset of one": ({"reset": lambda o, i: (o,)}, "but returned a tuple of 1"),
    "no dict of rewards": ({"step": lambda o, r, *rest: (o, [1, 1], *rest)}, "rewards as a dict .* got a list of 2"),
    "info is no dict": ({"info": [1]}, "the info of agent 'bob' as a dict, got a list of 1"),
}


def play_batch(env):
    venv = dm2.vectorize(lambda: env, 1)
    venv.reset()
    venv.step(np.zeros((1, 2), int))


def play_record(env):
    dm2.Demonstrations.record(env, lambda seen: dict.fromkeys(seen, 0), 1)


@pytest.mark.parametrize("play", [play_batch, play_record])
@pytest.mark.parametrize("breach", BREACHES)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_breach_is_one_sentence(breach, play):
    options, message = BREACHES[breach]
    with pytest.raises(ValueError, match=message) as caught:
        play(Env(**options))
    text = str(caught.value)
    assert NAME in text
    assert "\n" not in text
    assert len(text) < 400


def test_the_parallel_wrapper_names_them_too():
    def last(observations, rewards, *_):
        over = dict.fromkeys(rewards, True)
        return observations, rewards, over, over, {}

    demos = dm2.Demonstrations.record(Env(step=last, agents=[]), lambda seen: dict.fromkeys(seen, 0), 1)
    env = dm2.DM2ParallelEnv(Env(reward=np.array([1.0, 2.0])), demos, coefficient=0.1)
    env.reset()
    with pytest.raises(ValueError, match=f"{NAME} returned the reward array.* for agent 'bob'"):
        env.step({"ann": 0, "bob": 0})


@pytest.mark.parametrize("form", [list, iter, tuple])
def test_any_iterable_of_the_right_length_will_do(form):
    venv = dm2.vectorize(lambda: Env(reset=lambda *parts: form(parts), step=lambda *parts: form(parts), reward=3.0), 1)
    venv.reset()
    assert venv.step(np.zeros((1, 2), int))[1].tolist() == [[1.0, 3.0]]


def test_what_is_no_breach():
    """Flags and rewards as NumPy has them, infos of None, the dead without available actions, extra infos."""

    def step(observations, *_):
        no = {"ann": np.bool_(False), "bob": np.array([0], np.int8), "__all__": False}
        masks = {"ann": masked(np.ones(3)), "bob": masked([0, 0, 0])}
        return masks, {"ann": np.array([2.0]), "bob": np.float32(1)}, no, no, {"ann": None, "bob": {"alive": np.bool_(0)}}

    venv = dm2.vectorize(
        lambda: Env(
            space=MASKED,
            step=step,
            reset=lambda o, i: (o, None),
            observation_at_reset={"observation": np.zeros(2), "action_mask": np.ones(3, bool)},
        ),
        1,
    )
    _, infos = venv.reset()
    assert infos["alive"].all()
    _, rewards, terminations, _, infos = venv.step(np.zeros((1, 2), int))
    assert rewards.tolist() == [[2.0, 1.0]]
    assert not terminations.any()
    assert infos["alive"].tolist() == [[True, False]]
    assert infos["action_mask"].tolist() == [[[True] * 3, [True, False, False]]]


def test_reset_is_given_only_what_the_caller_gives():
    class Bare(TinyEnv):
        def reset(self):
            return super().reset(seed=0)

    venv = dm2.vectorize(Bare, 1)
    venv.reset()
    with pytest.raises(TypeError, match=r"'tiny'.*must take seed and options in reset"):
        venv.reset(seed=1)


# --- bounds of continuous actions -------------------------------------------------------------------------------------


def played(space, action):
    """What the environment gets for one agent's action."""
    heard = []

    class Listening(Env):
        possible_agents = ["ann"]

        def step(self, actions):
            heard.append(actions["ann"])
            return super().step(actions)

        def each(self, name, value):
            return {"ann": value}

    venv = dm2.vectorize(lambda: Listening(actions=space, agents_at_reset=["ann"], agents=["ann"]), 1)
    venv.reset()
    venv.step(np.asarray(action)[None, None])
    return heard[0]


LOW_HIGH = spaces.Box(np.array([-2, 0], np.float32), np.array([0.2, 1e6], np.float32))
WIDE = spaces.Box(-np.inf, np.inf, (2,), np.float32)


@pytest.mark.parametrize(
    ("space", "action", "expected"),
    [
        (LOW_HIGH, np.array([0.20000005, 0], np.float32), [np.float32(0.2), 0]),
        (LOW_HIGH, np.array([-2.0000002, 1e6 + 0.1], np.float32), [-2, 1e6]),
        (spaces.Box(-0.1, 0.1, (2,), np.float64), np.full(2, 0.1, np.float32), [0.1, 0.1]),  # float32's 0.1 is larger
        (WIDE, np.array([3e38, -3e38], np.float32), [np.float32(3e38), np.float32(-3e38)]),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([255, 0]), [255, 0]),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([254.0, 1.0], np.float32), [254, 1]),
    ],
)
def test_rounding_at_a_bound_is_clipped(space, action, expected):
    found = played(space, action)
    assert found.dtype == space.dtype
    assert found.tolist() == np.array(expected, space.dtype).tolist()
    assert space.contains(found)


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (LOW_HIGH, np.array([0.2001, 0], np.float32)),  # the other dimension's large bound allows no slack here
        (LOW_HIGH, np.array([0, -1.5], np.float32)),
        (LOW_HIGH, np.array([0, 1e6 + 10], np.float32)),
        (WIDE, np.array([np.inf, 0], np.float32)),
        (WIDE, np.array([np.nan, 0], np.float32)),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([256, 0])),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([-1, 0])),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([0.5, 0])),
    ],
)
def test_more_than_rounding_is_refused(space, action):
    with pytest.raises(ValueError, match=r"agent 'ann' in sub-environment 0 was given the action .* action space is Box"):
        played(space, action)


# --- other kinds of environments --------------------------------------------------------------------------------------


class MultiAgentEnv:
    """As RLlib's base class is called."""


class RllibEnv(MultiAgentEnv):
    possible_agents = ["ann"]


WRONG = {
    "AEC": (simple_spread_v3.env, "aec_to_parallel"),
    "Gymnasium": (lambda: gymnasium.make("CartPole-v1"), "from_gymnasium"),
    "Gymnasium, vector": (lambda: gymnasium.make_vec("CartPole-v1", 2), "from_gymnasium"),
    "RLlib": (RllibEnv, "around RLlib's MultiAgentEnv"),
    "class": (lambda: TinyEnv, "make an instance"),
    "function": (lambda: lambda: TinyEnv(), "pass an environment with reset, step"),
    "path": (lambda: "env.py", "pass an environment with reset, step"),
    "None": (lambda: None, "pass an environment with reset, step"),
    "vector": (lambda: dm2.vectorize(TinyEnv, 2), "already batched"),
}


def demonstrations():
    return dm2.Demonstrations.record(TinyEnv(), lambda seen: dict.fromkeys(seen, 0), 1)


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_kinds_of_environments_are_told_what_to_do(kind):
    make, advice = WRONG[kind]
    uses = {
        "vectorize": lambda: dm2.vectorize(make, 1),
        "DM2ParallelEnv": lambda: dm2.DM2ParallelEnv(make(), demonstrations(), coefficient=0.1),
        "record": lambda: dm2.Demonstrations.record(make(), lambda seen: {}, 1),
        "evaluate": lambda: evaluate(lambda observations, infos: 0, make(), 1),
    }
    for name, use in uses.items():
        if kind == "vector" and name in ("record", "evaluate"):
            continue  # which take both kinds
        with pytest.raises(TypeError, match=rf"ParallelEnv, got \w+; .*{advice}"):
            use()


@pytest.mark.parametrize("kind", [kind for kind in WRONG if kind != "vector"])
def test_wrong_kinds_of_vector_environments_are_told_what_to_do(kind):
    with pytest.raises(TypeError, match=r"vectorize\(make_env, num_envs\)"):
        dm2.DM2VectorEnv(WRONG[kind][0](), demonstrations(), coefficient=0.1)


def test_black_death_is_refused_underneath():
    supersuit = pytest.importorskip("supersuit")
    make = lambda: supersuit.black_death_v3(TinyEnv(sizes=(3, 3)))  # noqa: E731
    for use in (lambda: dm2.vectorize(make, 1), lambda: dm2.DM2ParallelEnv(make(), demonstrations(), coefficient=0.1)):
        with pytest.raises(ValueError, match="black_death hides which agents are gone"):
            use()


def test_infos_may_be_any_mapping_and_what_is_none_is_ignored():
    news = MappingProxyType({"battle_won": True, "broken": True})
    assert episode_news({"a": {}, "b": news, "c": None}) == (True, True)
    assert episode_news({"a": {"battle_won": False}, "b": "x"}) == (False, False)
    assert episode_news({"a": {}, "b": None}) == (False, None)
    assert episode_news({"a": {"battle_won": None, "broken": None}}) == (False, None)  # not reported
    assert episode_news({"a": {"battle_won": None}, "b": {"battle_won": np.float32(1)}}) == (False, True)


def test_an_episode_is_won_if_any_info_says_so():
    assert episode_news({"ann": {"battle_won": False}, "bob": {"battle_won": True}}) == (False, True)


def test_flags_of_an_agent_that_was_not_there_are_not_about_its_actions():
    class Talking(TinyEnv):
        def step(self, actions):
            observations, rewards, terminations, truncations, infos = super().step(actions)
            return observations, rewards, terminations, {"agent_0": True, **truncations}, infos

    env = dm2.vectorize(lambda: Talking(lifetimes=(1, None), limit=9), 1)
    env.reset(seed=0)
    for _ in range(3):
        _, _, terminations, truncations, _ = env.step(np.zeros((1, 2), int))
        assert (terminations.tolist(), truncations.tolist()) == ([[True, False]], [[False, False]])


def test_who_is_terminated_is_dead_at_the_end_and_who_is_truncated_is_alive_unless_infos_say_otherwise():
    env = dm2.vectorize(lambda: TinyEnv(lifetimes=(1, None), limit=2), 1)
    env.reset(seed=0)
    assert env.step(np.zeros((1, 2), int))[4]["final_alive"].tolist() == [[False, True]]
    assert env.step(np.zeros((1, 2), int))[4]["final_alive"].tolist() == [[False, True]]
