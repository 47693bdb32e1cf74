"""`DistributionMatcher.algorithm1`, the joint rollout, and the guard against use in another process."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import textwrap

import numpy as np
import pytest

import dm2_wrappers as dm2
from dm2_wrappers.matching.joint_rollout import JointRollout
from tests.helpers.tiny_matchers import SIZES, make, rollout, same


def by_hand(matcher, observations, alive):
    matcher.record(observations, alive)
    metrics = matcher.update()
    return matcher.rewards(observations, alive), metrics


def test_one_chunk_per_agent_is_record_update_and_rewards():
    one, other = make(), make()
    for seed in range(2):
        observations, _ = rollout(steps=12, copies=1, seed=seed)
        paid, metrics = by_hand(one, observations, np.ones((12, 1, 2), bool))
        chunks = [("b", observations[:, 0, 1, :2]), ("a", observations[:, 0, 0])]
        of_b, of_a = other.algorithm1(chunks)
        assert of_a.dtype == of_b.dtype == np.float32
        np.testing.assert_array_equal(of_a, paid[:, 0, 0])
        np.testing.assert_array_equal(of_b, paid[:, 0, 1])
        assert other.metrics == metrics
        assert same(one.state_dict(), other.state_dict())


def test_ragged_chunks_in_any_order():
    one, other = make(), make()
    observations, _ = rollout(steps=9, copies=1)
    alive = np.ones((9, 1, 2), bool)
    alive[5:, :, 0] = False  # agent a has 5 observations, agent b 9
    paid, _ = by_hand(one, observations, alive)
    a, b = observations[:5, 0, 0], observations[:, 0, 1, :2]
    chunks = [("b", b[:4]), ("a", a[:2]), ("b", b[4:4]), ("a", a[2:]), ("b", b[4:].tolist())]
    rewards = other.algorithm1(chunks)
    assert [part.shape for part in rewards] == [(4,), (2,), (0,), (3,), (5,)]
    np.testing.assert_array_equal(np.concatenate([rewards[1], rewards[3]]), paid[:5, 0, 0])
    np.testing.assert_array_equal(np.concatenate([rewards[0], rewards[4]]), paid[:, 0, 1])
    assert same(one.state_dict(), other.state_dict())
    rewards[0][:] = 9  # the caller's own


def test_absent_agents_and_no_chunks_at_all():
    matcher = make()
    start = matcher.state_dict()["discriminators"]["weights"]
    observations, _ = rollout(copies=1)
    (paid,) = matcher.algorithm1([("a", observations[:, 0, 0])])
    assert paid.mean() == pytest.approx(0, abs=1e-5)  # centered
    assert same(matcher.state_dict()["discriminators"]["weights"][1], start[1])
    assert matcher.metrics["transitions"] == 10
    before = matcher.state_dict()
    assert matcher.algorithm1([]) == []
    assert matcher.metrics["trained"] == 0
    assert same(matcher.state_dict(), before)


def test_images_are_flattened():
    matcher = make()
    (paid,) = matcher.algorithm1([("b", np.ones((4, 2, 1)))])
    assert paid.shape == (4,)


@pytest.mark.parametrize(
    ("chunk", "match"),
    [
        (("z", np.zeros((2, 3))), r"expected agents among \['a', 'b'\], got 'z'"),
        (("b", np.zeros((2, 3))), r"chunk 1 must hold \[n, 2\] numbers of agent 'b', got \(2, 3\)"),
        (("b", np.zeros(2)), "chunk 1 must hold"),
        (np.zeros((2, 3)), "chunk 1 must be a pair"),
        ((np.zeros((2, 3)), "a"), "expected the name of an agent .* got ndarray"),
        (("b", np.full((1, 2), np.nan)), "agent 'b' is nan"),
    ],
)
def test_chunks_that_do_not_fit_are_refused_and_nothing_is_recorded(chunk, match):
    matcher = make()
    before = matcher.state_dict()
    with pytest.raises(ValueError, match=match):
        matcher.algorithm1([("a", np.zeros((2, 3))), chunk])
    assert same(matcher.state_dict(), before)


def test_the_joint_rollout_is_record_update_and_rewards_without_broken_episodes():
    assert dm2.JointRollout is JointRollout
    one, other = make(), make()
    joint = JointRollout(other)
    with pytest.raises(RuntimeError, match="the rollout is empty: call append"):
        joint.gail_rewards()
    for seed in range(2):
        observations, alive = rollout(seed=seed)
        ended, broke = np.zeros((2, 10, 2), bool)
        ended[6, 0] = ended[4, 1] = broke[4, 1] = True
        broken = np.zeros((10, 2), bool)
        broken[:5, 1] = True  # the first episode of sub-environment 1
        one.record(observations, alive, broken=broken)
        metrics = one.update()
        for step in zip(observations, alive, ended, broke, strict=True):
            joint.append(*step)
        paid = joint.gail_rewards()
        np.testing.assert_array_equal(paid, one.rewards(observations, alive))
        assert joint.gail_rewards() is paid  # the other agents' loops: no second update
        assert joint.metrics == metrics
    joint.append(observations[0], alive[0], ended[0])
    joint.clear()
    with pytest.raises(RuntimeError, match="empty"):
        joint.gail_rewards()


class Venv:
    """Two sub-environments of three steps; every agent's observation is a constant, and its reward 1."""

    def __init__(self):
        self.t = 0

    def reset(self, seed=None):
        return self.result()[0], {"alive": np.ones((2, 2), bool)}

    def result(self):
        observations = np.full((2, 2, 3), -1, np.float32)
        observations[:, 1, 2] = 0
        return observations, np.ones((2, 2), np.float32)

    def step(self, actions):
        self.t += 1
        over = np.full((2, 2), self.t % 3 == 0)
        return *self.result(), over, np.zeros_like(over), {"alive": np.ones((2, 2), bool)}


def test_the_docstrings_loop_by_hand_runs(monkeypatch):
    code = textwrap.dedent(inspect.getdoc(JointRollout).split("::\n", 1)[1])
    learned = []
    matcher = make(center=False)
    monkeypatch.setattr(dm2, "DistributionMatcher", lambda demos: matcher)
    names = {"dm2": dm2, "np": np, "demos": None, "venv": Venv(), "iterations": 2, "n_steps": 4, "coefficient": 0.3}
    exec(code, {**names, "policy": lambda observations: None, "learn": learned.append})
    assert [rewards.shape for rewards in learned] == [(4, 2, 2)] * 2
    expected = 1 + 0.3 * matcher.rewards(Venv().result()[0])
    np.testing.assert_allclose(learned[1][3], expected, atol=1e-6)


def use_elsewhere(matcher, queue):
    said = []
    observations, alive = rollout()
    for use in (
        lambda: matcher.record(observations, alive),
        lambda: matcher.update(),
        lambda: matcher.rewards(observations),
        lambda: matcher.rewards({"a": np.zeros(3)}),
        lambda: matcher.algorithm1([("a", np.zeros((1, SIZES[0])))]),
    ):
        try:
            use()
            said.append("nothing")
        except RuntimeError as error:
            said.append(str(error))
    queue.put((os.getpid(), said))


def test_a_matcher_in_a_forked_process_is_one_sentence():
    matcher = make()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=use_elsewhere, args=(matcher, queue))
    process.start()
    pid, said = queue.get(timeout=60)
    process.join()
    sentence = f"made in process {os.getpid()} but is used in process {pid}, where training would not reach it"
    assert len(said) == 5
    assert all(sentence in one and "DM2VectorEnv" in one for one in said)


def test_natural_mistakes_are_one_sentence():
    demos = make().demonstrations
    with pytest.raises(TypeError, match=r"matcher must be a DistributionMatcher, got .*; make one: DistributionMatcher\("):
        JointRollout(demos)
    for chunks in (3, "a", {"a": np.zeros((1, 2))}):
        with pytest.raises(TypeError, match=r"chunks must be a list of pairs \(agent, observations\), got (int|str|dict)"):
            make().algorithm1(chunks)
