"""Environments that keep the contract pass; each broken one is refused with a sentence of its own."""

from __future__ import annotations

import re

import mpe2.simple_spread_v3 as spread
import numpy as np
import pytest
from gymnasium import spaces

import dm2_wrappers as dm2
from dm2_wrappers.testing import check_dm2_env
from dm2_wrappers.testing.bait_env import BaitEnv
from tests.docs.pages import blocks
from tests.helpers.tiny_envs import TinyEnv, ToldEnv


@pytest.mark.parametrize(
    "env",
    [
        TinyEnv(),
        TinyEnv(masks=True, actions=(3, 5), lifetimes=(None, 2), random_limit=True),
        TinyEnv(masks=True, absorb=True, lifetimes=(2, None)),
        TinyEnv(continuous=True, truncates=False),
        BaitEnv(),
        spread.parallel_env(max_cycles=5),
        dm2.DM2ParallelEnv(
            TinyEnv(), dm2.Demonstrations.record(TinyEnv(), lambda seen: dict.fromkeys(seen, 1), 2), coefficient=1
        ),
    ],
    ids=("plain", "deaths", "dead stay", "continuous", "bait", "simple_spread", "wrapped"),
)
def test_an_environment_that_keeps_the_contract_passes(env, capsys):
    assert check_dm2_env(env) is None
    assert capsys.readouterr().out == ""


FAR = (np.array([5, 5], np.float32), 0)


@pytest.mark.parametrize(
    ("space", "wrong"),
    [
        (spaces.Text(4), None),
        (spaces.OneOf([spaces.Box(0, 1, (2,)), spaces.Discrete(2)]), None),
        (spaces.Tuple([spaces.Box(0, 1, (2,)), spaces.Discrete(2)]), FAR),
        (
            spaces.Dict({"text": spaces.Text(4), "pair": spaces.Tuple([spaces.Box(0, 1, (2,)), spaces.Discrete(2)])}),
            {"text": "abc", "pair": FAR},
        ),
    ],
)
def test_observations_of_any_form_pass_and_are_shown_where_they_do_not(space, wrong):
    class Any(TinyEnv):
        far = False

        def observation_space(self, agent):
            return space

        def _observe(self, agent):
            space.seed(int(self.t))
            return wrong if self.far else space.sample()

    env = Any()
    check_dm2_env(env, steps=10)
    if wrong is not None:
        env.far = True
        with pytest.raises(AssertionError, match=r"got .*float32 of shape \(2,\) from 5 to 5"):
            check_dm2_env(env, steps=10)


def test_agents_that_change_their_order_are_refused():
    class Turning(TinyEnv):
        def reset(self, seed=None, options=None):
            self.possible_agents = self.possible_agents[::-1]
            return super().reset(seed, options)

    with pytest.raises(
        AssertionError, match=r"\['agent_0', 'agent_1'\], and after reset\(\) \['agent_1', 'agent_0'\]: keep"
    ):
        check_dm2_env(Turning())


def test_smax_passes():
    pytest.importorskip("jaxmarl")
    check_dm2_env(dm2.envs.smax.parallel_env("3m", invalid_action="noop"), steps=30)


def test_the_tutorials_environment_passes():
    names: dict = {}
    exec(blocks("docs/tutorials/own_environment.md")[0].code, names)
    env = names["Meeting"]()
    assert [set(info) for info in env.reset(seed=0)[1].values()] == [set()] * 3
    infos = env.step(dict.fromkeys(env.agents, 1))[4]
    assert [set(info) for info in infos.values()] == [{"battle_won"}] * 3  # the keys are not those of the reset
    check_dm2_env(env)


def broken_at_the_end(env, results):
    if not env.agents:
        for info in results[4].values():
            info["broken"] = True


@pytest.mark.parametrize("absorb", [False, True])
def test_what_is_known_only_at_the_end_may_be_told_only_there(absorb):
    check_dm2_env(ToldEnv(absorb=absorb))
    check_dm2_env(Changed(broken_at_the_end, absorb=absorb))


class Changed(TinyEnv):
    """A TinyEnv whose step results are changed by ``change(self, results)`` before they are returned."""

    def __init__(self, change, **options):
        super().__init__(**options)
        self.change = change

    def step(self, actions):
        results = super().step(actions)
        self.change(self, results)
        return results


def no_available_action(env, results):
    for seen in results[0].values():
        seen["action_mask"][:] = 0


def short_mask(env, results):
    for seen in results[0].values():
        seen["action_mask"] = seen["action_mask"][:2]


def more_info(env, results):
    results[4]["agent_0"]["score"] = 1


def alive_for_one(env, results):
    results[4]["agent_0"].pop("alive", None)


def back_to_life(env, results):
    if env.t == 4:
        results[4]["agent_0"]["alive"] = True


def no_final_observation(env, results):
    if results[2]["agent_1"]:
        del results[0]["agent_1"]


def stays_after_the_end(env, results):
    env.agents = list(env.possible_agents)


def leaves_without_a_word(env, results):
    env.agents = ["agent_0"]


def out_of_bounds(env, results):
    results[0]["agent_0"][0] = 1000


def other_dtype(env, results):
    results[0]["agent_0"] = results[0]["agent_0"].astype(np.float64)


def longer(env, results):
    results[0]["agent_0"] = np.zeros(9, np.float32)


def not_a_number(env, results):
    results[1]["agent_0"] = float("nan")


def unseeded(env, results):
    results[1]["agent_0"] = float(np.random.random())


@pytest.mark.parametrize(
    ("change", "options", "fault"),
    [
        (no_available_action, {"masks": True}, "without any available action"),
        (short_mask, {"masks": True}, "expected 3 flags"),
        (more_info, {}, "the info keys ['score'] of 'agent_0' from step(), but [] before"),
        (alive_for_one, {"absorb": True}, "info keys [] of 'agent_0' from step(), but ['alive'] before"),
        (back_to_life, {"absorb": True, "lifetimes": (2, None)}, "reports 'agent_0' as alive after it was dead"),
        (no_final_observation, {"lifetimes": (None, 2)}, "returned no observations of 'agent_1', which acted in this step"),
        (stays_after_the_end, {"lifetimes": (None, 2)}, "keeps 'agent_1' in agents after it was terminated"),
        (leaves_without_a_word, {}, "took 'agent_1' out of agents without terminating or truncating it"),
        (out_of_bounds, {}, "an observation of 'agent_0' that is not in its observation space"),
        (other_dtype, {}, "got float64 of shape (3,)"),
        (longer, {}, "agent_0"),
        (not_a_number, {}, "expected one finite number"),
        (unseeded, {}, "different episodes from the same seed and actions, from step 1 on"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_broken_environment_is_refused(change, options, fault):
    with pytest.raises(AssertionError, match=re.escape(fault)) as refusal:
        check_dm2_env(Changed(change, **options))
    assert "\n" not in str(refusal.value)


class AliveForOne(TinyEnv):
    def _info(self, agent):
        return {"alive": True} if agent == "agent_0" else {}


class RandomStart(TinyEnv):
    def reset(self, seed=None, options=None):
        return super().reset()


class NewSpaces(TinyEnv):
    def observation_space(self, agent):
        return self._observation_space(agent)


@pytest.mark.parametrize(
    ("env", "fault"),
    [
        (AliveForOne(), "reports infos[agent]['alive'] for some agents but not for 'agent_1'"),
        (RandomStart(), "different episodes from the same seed and actions, from reset on"),
        (NewSpaces(), "PettingZoo's parallel_api_test refuses NewSpaces: observation_space should return the exact same"),
        (TinyEnv, "this is a class: make an instance of it"),
        (dm2.vectorize(TinyEnv, 1), "a vector environment is already batched"),
    ],
)
def test_other_faults(env, fault):
    with pytest.raises(AssertionError, match=re.escape(fault)):
        check_dm2_env(env)
