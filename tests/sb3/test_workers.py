"""Learners in worker processes: the numbers of one process, and what happens when something goes wrong."""

import csv
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, EveryNTimesteps

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners
from dm2_wrappers.sb3.spread import shares
from dm2_wrappers.vector.workers import Workers
from tests.helpers.processes import gone
from tests.helpers.sb3_teams import ON_POLICY, SMALL, assert_equal_weights, weights
from tests.helpers.tiny_envs import FailingEnv, TinyEnv

# The agents die at different times, and rollouts of 6 steps end amid episodes of up to 7, which end by a time limit.
OPTIONS = {"sizes": (4, 3, 5), "limit": 7, "random_limit": True, "lifetimes": (None, 3, 5), "absorb": True, "wins": True}


def matcher():
    env, rng = TinyEnv(**OPTIONS), np.random.default_rng(0)
    demos = dm2.Demonstrations.record(env, lambda seen: {a: int(rng.integers(3)) for a in seen}, 8, seed=5)
    return dm2.DistributionMatcher(demos, updates=2, batch_size=8, seed=0)


def make_team(algorithm=PPO, *, workers=0, make_env=TinyEnv, **options):
    venv = dm2.vectorize(lambda: make_env(**OPTIONS), 3)
    return IndependentLearners(algorithm, venv, seed=3, workers=workers, **{**SMALL, **ON_POLICY[algorithm], **options})


@pytest.fixture
def spread(request):
    """Makes teams, and ends their workers after the test."""
    teams = []

    def make(*args, workers=2, **options):
        teams.append(make_team(*args, workers=workers, **options))
        return teams[-1]

    yield make
    for team in teams:
        team.close()


def logs(folder):
    """All of a team's CSV files, without what depends on the clock."""
    found = {}
    for path in sorted(folder.rglob("progress.csv")):
        with path.open() as file:
            found[path.parent.name] = [
                {k: v for k, v in row.items() if k not in ("time/fps", "time/time_elapsed")} for row in csv.DictReader(file)
            ]
    return found


def assert_same(one, many):
    """The learners, their buffers and random streams, and the discriminators of two teams are equal, bit for bit."""
    assert_equal_weights(weights(one), weights(many))
    for agent in one.agents:
        a, b = one.models[agent], many.models[agent]
        for first, second in zip(a.policy.optimizer.state.values(), b.policy.optimizer.state.values(), strict=True):
            assert all(torch.equal(first[name], second[name]) for name in first)
        for name in ("observations", "actions", "rewards", "advantages", "live", "episode_starts"):
            np.testing.assert_array_equal(getattr(a.rollout_buffer, name), getattr(b.rollout_buffer, name), name)
        assert a.rollout_buffer.dead_value == b.rollout_buffer.dead_value
        assert (a.num_timesteps, a._n_updates) == (b.num_timesteps, b._n_updates)
        rewards = [[episode["r"] for episode in model.ep_info_buffer] for model in (a, b)]
        assert rewards[0] == rewards[1]
        first, second = (team._lockstep.streams[agent] for team in (one, many))
        assert first.python == second.python
        np.testing.assert_equal(first.numpy, second.numpy)
        assert torch.equal(first.torch, second.torch)
    if one.matcher is not None:
        networks = [team.matcher.state_dict()["discriminators"]["weights"] for team in (one, many)]
        for first, second in zip(*networks, strict=True):
            assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("algorithm", "workers", "matched"), [(PPO, 1, False), (MaskablePPO, 2, True), (RecurrentPPO, 7, False)]
)
def test_workers_give_the_numbers_of_one_process(algorithm, workers, matched, spread, tmp_path):
    teams = []
    for made_by, count in ((make_team, 0), (spread, workers)):
        matching = {"matcher": matcher(), "coefficient": 0.5} if matched else {}
        if algorithm is RecurrentPPO:
            matching = {"policy_kwargs": {"net_arch": [8], "lstm_hidden_size": 4}}
        team = made_by(algorithm, workers=count, log_dir=tmp_path / str(count), **matching)
        team.learn(36, log_interval=1)
        # Episodes go on, and so do the numbers that the loggers have not written yet.
        teams.append(team.learn(36, log_interval=1, reset_num_timesteps=False))
    assert_same(*teams)
    assert [view.has_masks for view in teams[0]._views.values()] == [view.has_masks for view in teams[1]._views.values()]
    assert logs(tmp_path / "0") == logs(tmp_path / str(workers))
    assert len(logs(tmp_path / "0")["team"]) == 4


def test_checkpoints_go_from_one_process_to_several_and_back(spread, tmp_path):
    make_team(matcher=matcher(), coefficient=0.5).learn(18).save(tmp_path / "at_18")
    one = make_team(matcher=matcher(), coefficient=0.5).restore(tmp_path / "at_18").learn(18)
    many = spread(matcher=matcher(), coefficient=0.5).restore(tmp_path / "at_18").learn(18)
    assert_same(one, many)
    many.save(tmp_path / "at_36")
    envs = [dm2.vectorize(lambda: TinyEnv(**OPTIONS), 3) for _ in range(2)]
    one = IndependentLearners.load(tmp_path / "at_36", envs[0], device="cpu").learn(18)
    many = IndependentLearners.load(tmp_path / "at_36", envs[1], workers=1, device="cpu").learn(18)
    many.close()
    assert one.num_timesteps == 54
    assert_same(one, many)


class Stop(BaseCallback):
    """Stops training in a given step of the call."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def _on_step(self):
        return self.n_calls < self.step


# Step 6 is the last one of a rollout, from which the other agents then learn; step 8 is not.
@pytest.mark.parametrize(("agent", "step"), [("agent_0", 6), ("agent_2", 6), ("agent_2", 8)])
def test_a_callback_that_stops_one_agent_stops_all_as_in_one_process(agent, step, spread):
    teams = []
    for made_by in (make_team, spread):
        team = made_by(matcher=matcher(), coefficient=0.5).learn(90, {agent: Stop(step)})
        teams.append(team.learn(18, reset_num_timesteps=False))  # with new episodes
    assert teams[1].num_timesteps == 3 * step + 18
    assert_same(*teams)


class Collect(BaseCallback):
    """Collects what it sees, in a list that its user reads after training."""

    def __init__(self):
        super().__init__()
        self.processes, self.updates = set(), []

    def _on_step(self):
        assert self.locals["infos"] is not None
        self.processes.add(os.getpid())
        return True

    def _on_rollout_end(self):
        self.updates.append(self.model._n_updates)


def test_callbacks_of_workers_come_back_with_what_they_have_seen(spread):
    team = spread()
    callbacks = {agent: Collect() for agent in team.agents}
    inner = Collect()
    for _ in range(2):
        team.learn(36, {**callbacks, "agent_1": [callbacks["agent_1"], EveryNTimesteps(9, inner)]})
    assert all(callback.updates == [0, 2, 4, 6] for callback in callbacks.values())
    assert callbacks["agent_2"].model is team.models["agent_2"]
    first, second, third = (callbacks[agent].processes for agent in team.agents)
    assert first == {os.getpid()}
    assert len(second) == len(third) == 1
    assert len(first | second | third) == 3


def test_a_callback_that_does_not_pickle_belongs_to_an_agent_of_this_process(spread):
    team = spread(workers=1)

    class Locked(Collect):
        lock = None

    before = weights(team)
    locked = Locked()
    locked.lock = threading.Lock()
    expected = (
        "agent 'agent_2' learns in a worker process, so its callbacks must pickle.*lock.*give them to 'agent_0', which"
    )
    with pytest.raises(ValueError, match=expected):
        team.learn(18, {"agent_2": locked})
    locked.lock = team
    with pytest.raises(ValueError, match="the team and its environment stay in the process"):
        team.learn(18, {"agent_2": locked})
    assert_equal_weights(before, weights(team))
    team.learn(18, {"agent_0": locked})
    assert locked.processes == {os.getpid()}


class Raise(BaseCallback):
    """Raises an error in its fourth step."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def _on_step(self):
        if self.n_calls == 4:
            raise self.error
        return True


def test_an_error_in_a_worker_is_raised_here_with_the_agents_name(spread):
    team = spread()
    with pytest.raises(KeyError, match="lost") as caught:
        team.learn(36, {"agent_2": Raise(KeyError("lost"))})
    assert "raised in the training loop of agent 'agent_2'" in caught.value.__notes__
    assert "in _on_step" in caught.value.__notes__[-1]
    with pytest.raises(ValueError, match="here"):
        team.learn(36, {"agent_0": Raise(ValueError("here"))})
    assert team.models["agent_1"].num_timesteps == team.models["agent_0"].num_timesteps > 0
    team.learn(18)  # the same workers go on


def test_an_error_of_the_environment_ends_training(spread):
    team = spread(make_env=lambda **options: FailingEnv(fail_at=4, **options))
    with pytest.raises(ZeroDivisionError, match="the simulator fell over"):
        team.learn(36)
    assert len({model.num_timesteps for model in team.models.values()}) == 1


class Interrupt(BaseCallback):
    """Sends Ctrl-C to the process that started this one while that process waits for this agent."""

    def _on_step(self):
        if self.n_calls == 8:
            time.sleep(0.5)  # until it waits
            os.kill(multiprocessing.parent_process().pid, signal.SIGINT)
            time.sleep(0.3)
        return True


@pytest.fixture
def ctrl_c():
    """Ctrl-C raises KeyboardInterrupt: a shell has processes in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_keeps_what_was_learned_so_far(spread, ctrl_c):
    team = spread()
    with pytest.raises(KeyboardInterrupt):
        team.learn(90, {"agent_2": Interrupt()})
    reference = make_team().learn(18)
    assert_equal_weights(weights(reference), weights(team))  # the first rollout
    assert {model.num_timesteps for model in team.models.values()} == {24}
    team.learn(18)


@pytest.mark.parametrize("method", ["_received", "_send"])
def test_ctrl_c_while_a_message_is_under_way_loses_nothing(spread, ctrl_c, monkeypatch, method):
    team, calls = spread(), []
    exchange = getattr(Workers, method)

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 18:  # in the second rollout: of each worker comes one message a step
            signal.raise_signal(signal.SIGINT)
        return exchange(*args)

    monkeypatch.setattr(Workers, method, interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        team.learn(90)
    assert not hasattr(caught.value, "__notes__")
    reference = make_team().learn(18)
    assert_equal_weights(weights(reference), weights(team))
    steps = [model.num_timesteps for model in team.models.values()]
    assert max(steps) - min(steps) <= 3  # those that were told had gone one joint step further
    team.learn(18)


def test_a_killed_worker_is_one_sentence_and_the_next_learn_starts_new_ones(spread, tmp_path):
    team = spread().learn(18)
    team.save(tmp_path / "team")
    before = weights(team)
    pids = [process.pid for process in team._spread._processes.processes]
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"worker 1 \(agents agent_2\) ended without an answer, exit code -9") as caught:
        team.learn(18, reset_num_timesteps=False)
    assert "the learners of agent_1, agent_2 are as they were before this learn()" in caught.value.__notes__[-1]
    assert all(gone(pid) for pid in pids)
    assert_equal_weights({"agent_2": before["agent_2"]}, {"agent_2": weights(team)["agent_2"]})
    team.restore(tmp_path / "team").learn(18)
    assert_equal_weights(weights(make_team().restore(tmp_path / "team").learn(18)), weights(team))
    pids = [process.pid for process in team._spread._processes.processes]
    team.close()
    team.close()
    assert all(gone(pid) for pid in pids)


def test_the_other_learners_are_out_of_reach_while_they_learn_elsewhere(spread, tmp_path):
    team = spread()

    class Save(BaseCallback):
        def _on_step(self):
            with pytest.raises(RuntimeError, match=r"save\(\) was called while learn\(\) is under way, and the learners of"):
                team.save(tmp_path / "team")
            with pytest.raises(RuntimeError, match="learners of agent_1, agent_2 are in worker processes then"):
                team.policy()
            return False

    team.learn(18, {"agent_0": Save()})


@pytest.mark.parametrize(
    ("algorithm", "options", "message"),
    [
        (PPO, {"workers": -1}, "workers must be"),
        (DQN, {}, "needs on-policy algorithms, such as PPO, and .'DQN'. are not: use workers=0"),
        (PPO, {"matcher": True, "order": "turn"}, "one agent learns at a time"),
        (PPO, {"matcher": True, "mode": "online"}, "needs mode='exact'"),
        (A2C, {"use_sde": True}, "does not support use_sde=True"),
    ],
)
def test_what_workers_cannot_do_is_refused_at_once(algorithm, options, message):
    options, env_options = {"workers": 1, **options}, {**OPTIONS, "continuous": "use_sde" in options}
    if options.get("matcher"):
        options.update(matcher=matcher(), coefficient=0.5)
    env = dm2.vectorize(lambda: TinyEnv(**env_options), 3)
    with pytest.raises(ValueError, match=message):
        IndependentLearners(algorithm, env, device="cpu", **options)


def test_agents_are_spread_as_evenly_as_possible_and_this_process_has_the_fewest():
    assert shares("abcde", 0) == [list("abcde")]
    assert shares("abcde", 1) == [list("ab"), list("cde")]
    assert shares("abcde", 2) == [list("a"), list("bc"), list("de")]
    assert shares("abc", 9) == [["a"], ["b"], ["c"]]
    assert shares("a", 3) == [["a"]]
