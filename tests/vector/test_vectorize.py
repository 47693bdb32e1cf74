from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from mpe2 import simple_speaker_listener_v4, simple_spread_v3
from pettingzoo.utils import BaseParallelWrapper

from dm2_wrappers import Demonstrations, DistributionMatcher, MultiAgentVectorEnv, vectorize
from dm2_wrappers.vector import SubprocVectorEnv, SyncVectorEnv
from tests.helpers.tiny_envs import FailingEnv, StateEnv, TinyEnv, ToldEnv

CASES = {
    "plain": functools.partial(TinyEnv),
    "one agent": functools.partial(TinyEnv, (3,), wins=True),
    "27 agents": functools.partial(TinyEnv, (3,) * 27, masks=True),
    "unlike": functools.partial(TinyEnv, (4, 2, 3), (3, 2, 5), masks=True, start=2, random_limit=True, wins=True),
    "death": functools.partial(TinyEnv, (4, 2, 3), lifetimes=(None, 2, 3), masks=True, random_limit=True, limit=7),
    "all die": functools.partial(TinyEnv, (2, 2), lifetimes=(1, 3)),
    "absorbed": functools.partial(TinyEnv, (4, 2, 3), lifetimes=(None, 2, 3), absorb=True, truncates=False),
    "continuous": functools.partial(TinyEnv, (3, 3), (1, 3), continuous=True, random_limit=True),
    "state": functools.partial(StateEnv, limit=3, broken=(1,)),
    "spread": functools.partial(simple_spread_v3.parallel_env, max_cycles=6),
    "spread, continuous": functools.partial(simple_spread_v3.parallel_env, max_cycles=6, continuous_actions=True),
    "speaker": functools.partial(simple_speaker_listener_v4.parallel_env, max_cycles=6),
}


def legal_actions(venv: MultiAgentVectorEnv, infos: dict, rng: np.random.Generator) -> np.ndarray:
    shape = (venv.num_envs, venv.num_agents)
    if venv.discrete:
        return np.where(infos["action_mask"], rng.random(infos["action_mask"].shape), -1).argmax(-1)
    width = max(venv.action_space(agent).shape[0] for agent in venv.possible_agents)
    return rng.random((*shape, width), dtype=np.float32)


def same(one, other, where=""):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            same(one[name], other[name], f"{where} {name}")
    elif isinstance(one, tuple):
        for i, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, f"{where} {i}")
    else:
        assert one.dtype == other.dtype, where
        assert np.array_equal(one, other), where


# --- against a plain loop over single environments --------------------------------------------------------------------


def features_of(observation) -> np.ndarray:
    return np.asarray(observation["observation"] if isinstance(observation, dict) else observation)


def check_shown(env, seen, agent_infos, venv, i, observations, infos):
    """What copy i shows must be what the single environment's present agents see, and nothing of the absent."""
    for k, agent in enumerate(venv.possible_agents):
        mask = infos["action_mask"][i, k] if venv.discrete else None
        if agent not in env.agents:
            assert not observations[i, k].any()
            assert not infos["alive"][i, k]
            assert mask is None or mask.tolist() == [True] + [False] * (len(mask) - 1)
            continue
        expected = features_of(seen[agent])
        assert np.array_equal(observations[i, k, : len(expected)], expected)
        assert not observations[i, k, len(expected) :].any()
        assert infos["alive"][i, k] == agent_infos[agent].get("alive", True)
        if mask is not None:
            n = env.action_space(agent).n
            own = seen[agent]["action_mask"] if isinstance(seen[agent], dict) else np.ones(n)
            assert np.array_equal(mask[:n], own.astype(bool))
            assert not mask[n:].any()


@pytest.mark.parametrize("case", CASES)
def test_each_copy_plays_what_a_single_env_plays(case):
    make_env, n, seed = CASES[case], 3, 11
    venv = vectorize(make_env, n)
    singles = [make_env() for _ in range(n)]
    observations, infos = venv.reset(seed=seed)
    starts = [env.reset(seed=seed + i) for i, env in enumerate(singles)]
    assert observations.dtype == np.float32
    for i, env in enumerate(singles):
        check_shown(env, *starts[i], venv, i, observations, infos)
    rng, ends = np.random.default_rng(0), 0
    gone = np.zeros((n, venv.num_agents), dtype=bool)
    for _ in range(25):
        actions = legal_actions(venv, infos, rng)
        observations, rewards, terminations, truncations, infos = venv.step(actions)
        for i, env in enumerate(singles):
            joint = {}
            for agent in env.agents:
                k, space = venv.possible_agents.index(agent), env.action_space(agent)
                discrete = isinstance(space, spaces.Discrete)
                joint[agent] = actions[i, k] + space.start if discrete else actions[i, k, : space.shape[0]]
            acted = list(env.agents)
            seen, reward, term, trunc, agent_infos = env.step(joint)
            for k, agent in enumerate(venv.possible_agents):
                if agent in acted:
                    assert rewards[i, k] == np.float32(reward[agent])
                    assert (terminations[i, k], truncations[i, k]) == (term[agent], trunc[agent])
                    final = features_of(seen[agent])
                    assert np.array_equal(infos["final_obs"][i, k, : len(final)], final)
                    assert not infos["final_obs"][i, k, len(final) :].any()
                else:
                    assert gone[i, k]
                    assert terminations[i, k]
                    assert rewards[i, k] == 0
                    assert not infos["final_obs"][i, k].any()
            ended = not env.agents
            assert (terminations | truncations)[i].all() == ended
            assert infos["broken"][i] == any(info.get("broken", False) for info in agent_infos.values())
            if "battle_won" in infos:
                assert infos["battle_won"][i] == any(info.get("battle_won", False) for info in agent_infos.values())
            gone[i] = [agent not in env.agents for agent in venv.possible_agents]
            if ended:
                ends += 1
                gone[i] = False
                seen, agent_infos = env.reset()
            check_shown(env, seen, agent_infos, venv, i, observations, infos)
    assert ends >= n


def test_wins_state_and_broken_by_hand():
    venv = vectorize(lambda: StateEnv(limit=2, wins=True, broken=(1,)), 2, state=True)
    _, infos = venv.reset(seed=0)
    assert infos["state"].tolist() == [[0, 0]] * 2
    actions, seen = np.ones((2, 2), int), []
    for _ in range(4):
        *_, infos = venv.step(actions)
        seen.append((infos.get("battle_won"), infos["broken"].tolist(), infos["state"][0], infos["final_state"][0]))
    assert [won if won is None else won.tolist() for won, *_ in seen] == [None, [True, True], None, [False, False]]
    assert [broken for _, broken, *_ in seen] == [[False] * 2] * 3 + [[True] * 2]
    assert [state.tolist() for *_, state, _ in seen] == [[0, 1], [1, 0], [1, 1], [2, 0]]
    assert [state.tolist() for *_, state in seen] == [[0, 1], [0, 2], [1, 1], [1, 2]]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_outcome_that_is_not_reported_is_not_a_loss_because_another_one_is(workers):
    # Sub-environment 0 is won, not reported, lost, without a word; sub-environment 1 begins with the second of these.
    with vectorize(functools.partial(ToldEnv, limit=1), 2, workers=workers) as venv:
        _, infos = venv.reset(seed=0)
        assert "_battle_won" not in infos
        steps = [venv.step(np.ones((2, 2), int))[4] for _ in range(4)]
    assert [infos["battle_won"].tolist() for infos in steps] == [[True, False], [False] * 2, [False] * 2, [False, True]]
    assert [infos["_battle_won"].tolist() for infos in steps] == [[True, False], [False, True]] * 2
    assert {infos[name].dtype for infos in steps for name in ("battle_won", "_battle_won")} == {np.dtype(bool)}


def test_attributes():
    venv = vectorize(CASES["unlike"], 2)
    assert venv.num_envs == 2
    assert venv.num_agents == 3
    assert venv.possible_agents == ("agent_0", "agent_1", "agent_2")
    assert venv.observation_sizes == (4, 2, 3)
    assert venv.action_space("agent_2") == spaces.Discrete(5)
    assert venv.discrete
    assert venv.env_id == "tiny"
    assert vectorize(CASES["spread"], 1).env_id == "simple_spread_v3"
    assert not vectorize(CASES["continuous"], 1).discrete
    observations, infos = venv.reset(seed=0)
    assert observations.shape == (2, 3, 4)
    assert infos["action_mask"].shape == (2, 3, 5)
    assert venv.render().shape == (2, 2, 3)


def test_other_observation_spaces_are_flattened():
    class Odd(TinyEnv):
        def observation_space(self, agent):
            return spaces.Discrete(4) if agent == "agent_0" else spaces.Box(0, 1, (2, 3), np.float64)

        def _observe(self, agent):
            return self.t % 4 if agent == "agent_0" else np.full((2, 3), 0.5)

    venv = vectorize(Odd, 1)
    assert venv.observation_sizes == (4, 6)
    observations, _ = venv.reset(seed=0)
    assert observations[0].tolist() == [[1, 0, 0, 0, 0, 0], [0.5] * 6]


# --- seeds ------------------------------------------------------------------------------------------------------------


def test_seeds():
    venv = vectorize(TinyEnv, 2)
    first, _ = venv.reset(seed=5)
    listed, _ = venv.reset(seed=[5, 6])
    same(first, listed)
    swapped, _ = venv.reset(seed=[6, 5])
    same(first, swapped[::-1])
    later, _ = venv.reset()
    assert not np.array_equal(later, swapped)  # the copies go on with their own random streams
    with pytest.raises(ValueError, match="one for each of 2 sub-environments, got 3"):
        venv.reset(seed=[1, 2, 3])


def test_arrays_are_the_callers_to_keep():
    venv = vectorize(TinyEnv, 1)
    first, infos = venv.reset(seed=0)
    kept, mask = first.copy(), infos["action_mask"].copy()
    venv.step(np.ones((1, 2), int))
    same(first, kept)
    same(infos["action_mask"], mask)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((2, 3), int), r"shape \(2, 2\), got int64 of shape \(2, 3\)"),
        (np.zeros((2, 2)), "integers .* float64"),
        (np.zeros((2, 2), bool), "bool"),
        (np.array([[0, 0], [0, 3]]), r"'agent_1' in sub-environment 1 was given the action 3, .* Discrete\(3\)"),
        (np.array([[0, -1], [0, 0]]), "'agent_1' in sub-environment 0 was given the action -1"),
    ],
)
@pytest.mark.parametrize("start", [0, 7])
def test_wrong_discrete_actions(actions, message, start):
    venv = vectorize(lambda: TinyEnv(start=start), 2)
    venv.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        venv.step(actions)
    assert venv.envs[0].t == 0  # nothing has changed


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5, -2.0])
def test_wrong_continuous_actions(value):
    venv = vectorize(CASES["continuous"], 2)
    venv.reset(seed=0)
    actions = np.zeros((2, 2, 3), np.float32)
    actions[1, 0, 2] = value  # padding: nobody's action
    venv.step(actions)
    actions[1, 1, 2] = value
    with pytest.raises(ValueError, match="'agent_1' in sub-environment 1"):
        venv.step(actions)


class MultiDiscreteEnv(TinyEnv):
    def action_space(self, agent):
        return spaces.MultiDiscrete([2, 2])


class MixedActionsEnv(TinyEnv):
    def action_space(self, agent):
        return spaces.Discrete(2) if agent == "agent_0" else spaces.Box(-1, 1, (2,))


class GraphEnv(TinyEnv):
    def observation_space(self, agent):
        return spaces.Graph(spaces.Box(-1, 1, (3,)), None)


class ShapedEnv(TinyEnv):
    def __init__(self):
        super().__init__()
        demos = Demonstrations.record(TinyEnv(), lambda seen: dict.fromkeys(seen, 0), 1)
        self.matcher = DistributionMatcher(demos)


@pytest.mark.parametrize(
    ("make_env", "error", "message"),
    [
        (TinyEnv(), TypeError, "pass a function that makes one"),
        (MultiDiscreteEnv, ValueError, "'agent_0' has MultiDiscrete"),
        (MixedActionsEnv, ValueError, "all Discrete or all Box"),
        (GraphEnv, ValueError, "fixed length"),
        (ShapedEnv, ValueError, r"DM2VectorEnv\(vectorize"),
        (lambda: BaseParallelWrapper(ShapedEnv()), ValueError, "DM2VectorEnv"),
        (lambda: gymnasium.make("CartPole-v1"), TypeError, "ParallelEnv, got"),
        (simple_spread_v3.env, TypeError, "aec_to_parallel"),
    ],
)
def test_what_cannot_be_vectorized(make_env, error, message):
    with pytest.raises(error, match=message):
        vectorize(make_env, 2)


def test_copies_must_be_several_and_alike():
    env = TinyEnv()
    with pytest.raises(ValueError, match="same one twice"):
        vectorize(lambda: env, 2)
    assert env.closed == 1
    sizes = iter([(3, 2), (3, 4)])
    with pytest.raises(ValueError, match=r"1 differs from sub-environment 0: agent 'agent_1' has Box.*\(4,\)"):
        vectorize(lambda: TinyEnv(next(sizes)), 2)
    for n, workers in ((0, 0), (2, -1)):
        with pytest.raises(ValueError, match="must be an integer of at least"):
            vectorize(TinyEnv, n, workers=workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_step_needs_a_reset_first(workers):
    with vectorize(TinyEnv, 2, workers=workers) as venv:
        with pytest.raises(RuntimeError, match="first reset"):
            venv.step(np.zeros((2, 2), int))
        venv.reset(seed=0)
        venv.step(np.zeros((2, 2), int))


def test_close():
    venv = vectorize(TinyEnv, 2)
    envs = venv.envs
    with venv:
        venv.reset(seed=0)
    venv.close()
    assert [env.closed for env in envs] == [1, 1]
    with pytest.raises(RuntimeError, match="closed"):
        venv.reset()


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["unlike", "death", "continuous", "state", "spread"])
def test_processes_play_bit_for_bit_the_same(case):
    with vectorize(CASES[case], 5) as one, vectorize(CASES[case], 5, workers=2) as many:
        assert (one.possible_agents, one.env_id) == (many.possible_agents, many.env_id)
        assert one.observation_spaces == many.observation_spaces
        rng = np.random.default_rng(1)
        start = one.reset(seed=3)
        same(start, many.reset(seed=3))
        infos = start[1]
        for _ in range(12):
            actions = legal_actions(one, infos, rng)
            result = one.step(actions)
            same(result, many.step(actions))
            infos = result[-1]
        same(one.reset(), many.reset())
        if case == "unlike":
            assert np.array_equal(one.render(), many.render())


def test_close_leaves_no_process():
    venv = vectorize(lambda: TinyEnv(), 3, workers=8)  # a lambda travels too; more workers than copies is fine
    pids = [process.pid for process in venv.workers.processes]
    assert len(pids) == 3
    venv.reset(seed=0)
    with pytest.raises(ValueError, match="sub-environment 2"):  # a caller's mistake does not end the workers
        venv.step(np.array([[0, 0], [0, 0], [0, 9]]))
    venv.step(np.zeros((3, 2), int))
    venv.close()
    venv.close()
    assert_gone(pids)
    with pytest.raises(RuntimeError, match="closed"):
        venv.reset()


def assert_gone(pids):
    assert not [process for process in multiprocessing.active_children() if process.pid in pids]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_workers_error_is_raised_here_and_ends_all():
    venv = vectorize(functools.partial(FailingEnv, fail_at=2), 2, workers=2)
    pids = [process.pid for process in venv.workers.processes]
    venv.reset(seed=0)
    venv.step(np.zeros((2, 2), int))
    with pytest.raises(RuntimeError, match=r"worker 0 \(sub-environments 0 to 0\)(.|\n)*the simulator fell over"):
        venv.step(np.zeros((2, 2), int))
    assert_gone(pids)


def test_an_error_while_making_copies_is_raised_here():
    with pytest.raises(RuntimeError, match=r"DM2VectorEnv"):
        vectorize(ShapedEnv, 2, workers=1)
    assert not [process for process in multiprocessing.active_children() if process.name == "dm2-vectorize"]


def test_a_killed_worker_is_noticed():
    venv = vectorize(TinyEnv, 2, workers=2)
    pids = [process.pid for process in venv.workers.processes]
    venv.reset(seed=0)
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"worker 1 .* exit code -9"):
        venv.step(np.zeros((2, 2), int))
    assert_gone(pids)


def test_ctrl_c_ends_the_workers(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent("""
        import signal, time, numpy as np
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in whatever a shell has put in the background
        from dm2_wrappers import vectorize
        from tests.helpers.tiny_envs import TinyEnv

        class Slow(TinyEnv):
            def step(self, actions):
                time.sleep(1.0)
                return super().step(actions)

        if __name__ == "__main__":
            venv = vectorize(Slow, 2, workers=2)
            venv.reset(seed=0)
            print(*[process.pid for process in venv.workers.processes], flush=True)
            venv.step(np.zeros((2, 2), int))
            venv.step(np.zeros((2, 2), int))
        """)
    )
    root = str(Path(__file__).parents[2])
    program = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pids = [int(pid) for pid in program.stdout.readline().split()]
    assert len(pids) == 2
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    _, errors = program.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert "Process dm2-vectorize" not in errors  # the workers do not print tracebacks of their own
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_global_state_is_asked_for_only_on_demand():
    for make in (SyncVectorEnv, functools.partial(SubprocVectorEnv, workers=1)):
        for options, told in (({}, False), ({"state": True}, True)):
            venv = make(StateEnv, 2, **options)
            _, infos = venv.reset(seed=0)
            assert ("state" in infos) == told
            venv.close()


def test_after_an_error_in_one_sub_environment_the_others_are_not_stepped_on():
    class Once(TinyEnv):
        fails = False

        def step(self, actions):
            if self.fails:
                self.fails = False
                raise OSError("for a moment")
            return super().step(actions)

    venv = vectorize(Once, 2)
    venv.reset(seed=0)
    venv.envs[1].fails = True
    with pytest.raises(OSError, match="for a moment"):
        venv.step(np.zeros((2, 2), int))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"a first reset\(\), and a new one after an error in step\(\)"):
            venv.step(np.zeros((2, 2), int))
    venv.reset(seed=0)
    with pytest.raises(ValueError, match="actions must be"):
        venv.step(np.zeros(2, int))  # nothing was stepped
    venv.step(np.zeros((2, 2), int))
    assert [env.t for env in venv.envs] == [1, 1]
