"""Absorbing ends against episodes that are padded explicitly to the time limit."""

import numpy as np
import pytest
import torch

import dm2_wrappers as dm2
from dm2_wrappers import AfterStep, Demonstrations, DistributionMatcher, JointRollout
from dm2_wrappers.matching.absorbing import AbsorbingEnds, AbsorbingRow, kept_in, share
from dm2_wrappers.matching.transition_buffer import TransitionBuffer
from tests.helpers.tiny_envs import TinyEnv
from tests.helpers.tiny_matchers import same

LIMIT, GAMMA = 7, 0.9


def demonstrations(units=lambda values: values):
    """Two episodes of 3 and 7 steps; agent b dies after the second step of the first one."""
    rng = np.random.default_rng(0)
    episodes = [{"observations": {a: units(rng.normal(size=(n, size))) for a, size in (("a", 2), ("b", 1))}} for n in (3, 7)]
    for episode in episodes:
        episode["alive"] = {"a": np.ones(len(episode["observations"]["a"]), bool)}
    for episode, b in zip(episodes, ([True, True, False], [True] * 7), strict=True):
        episode["alive"]["b"] = b
    return Demonstrations.from_episodes(episodes)


def make(**options):
    given = {"ends": "absorbing", "gamma": GAMMA, "max_steps": LIMIT, "center": False, "seed": 0, "updates": 2, **options}
    return DistributionMatcher(demonstrations(), batch_size=16, buffer_size=100, **given)


def episodes(rng, number=30):
    """Joint episodes one after the other: observations [T, 1, 2, 2], alive [T, 1, 2] and what followed."""
    columns = [[] for _ in range(7)]
    for _ in range(number):
        length, b_lives = rng.integers(1, LIMIT + 1), rng.integers(1, LIMIT + 1)
        by_limit = length == LIMIT
        for t in range(length):
            alive, alive_next = [True, t < b_lives], [True, t + 1 < b_lives]
            last = t == length - 1
            step = (rng.normal(size=(2, 2)), alive, rng.normal(size=(2, 2)), alive_next, last, [last and by_limit] * 2, t)
            for column, value in zip(columns, step, strict=True):
                column.append([value])
    observations, alive, *rest = (np.array(column) for column in columns)
    observations[..., 1, 1:] = 0
    rest[0][..., 1, 1:] = 0
    return observations.astype(np.float32), alive, AfterStep(rest[0].astype(np.float32), *rest[1:])


def returns(rewards, time, gamma=GAMMA):
    """Discounted sums to each episode's end."""
    following, result = 0.0, np.zeros(len(rewards))
    for t in reversed(range(len(rewards))):
        following = rewards[t] + gamma * following
        result[t] = following
        if time[t] == 0:
            following = 0.0
    return result


def test_the_factor_by_hand():
    absorbing = AbsorbingEnds(0.5, 5, beyond_limit=False, counts_entry=False)
    alive = np.array([[True, True, False]])
    after = AfterStep(
        np.zeros((1, 3, 1)), np.array([[True, False, False]]), np.array([False]), np.zeros((1, 3), bool), np.array([1])
    )
    # Agent 1 died in the second of five steps: three absorbing steps follow.
    np.testing.assert_array_equal(absorbing.remaining(alive, after), [[0, 3, 0]])
    np.testing.assert_allclose(absorbing.factor(alive, after), [[0, 0.5 + 0.25 + 0.125, 0]])
    entry = AbsorbingEnds(0.5, 5, beyond_limit=False, counts_entry=True)
    np.testing.assert_array_equal(entry.remaining(alive, after), [[0, 4, 0]])
    np.testing.assert_allclose(entry.factor(alive, after), [[0, 1.875, 0]])
    forever = AbsorbingEnds(0.5, 5, beyond_limit=True, counts_entry=False)
    np.testing.assert_allclose(forever.factor(alive, after), [[0, 1, 0]])
    np.testing.assert_allclose(AbsorbingEnds(1.0, 5, False, False).factor(alive, after), [[0, 3, 0]])


def test_an_agent_that_leaves_alive_enters_the_absorbing_state():
    infos = {"final_obs": np.zeros((1, 3, 1)), "final_alive": np.array([[True, True, True]])}
    terminations, truncations = np.array([[True, False, False]]), np.array([[False, True, False]])
    after = AfterStep.of(terminations, truncations, infos, np.array([1]))  # two leave in the second of five steps
    assert after.left.tolist() == [[True, True, False]]
    assert AfterStep.stacked([after, after]).left.tolist() == [[[True, True, False]]] * 2
    alive = np.ones((1, 3), bool)
    absorbing = AbsorbingEnds(0.5, 5, beyond_limit=False, counts_entry=False)
    np.testing.assert_array_equal(absorbing.remaining(alive, after), [[3, 3, 0]])
    np.testing.assert_allclose(absorbing.factor(alive, after), [[0.875, 0.875, 0]])
    # Who bootstraps at the limits of single agents has their rest from the bootstrap, but not that of the terminated one.
    forever = AbsorbingEnds(0.5, 5, beyond_limit=True, counts_entry=False)
    np.testing.assert_array_equal(forever.remaining(alive, after), [[3, 0, 0]])
    dead = AfterStep.of(terminations, truncations, {**infos, "final_alive": np.array([[True, False, True]])}, np.array([1]))
    np.testing.assert_allclose(forever.factor(alive, dead), [[1, 1, 0]])  # it died in the step of its limit
    forever = AbsorbingEnds(0.5, 5, beyond_limit=True, counts_entry=False)
    np.testing.assert_allclose(forever.factor(alive, after), [[1, 0, 0]])
    # All leave at once: the episode is over, and what decides is whether a time limit ended it.
    over = AfterStep.of(np.array([[True, False, False]]), np.array([[False, True, True]]), infos, np.array([1]))
    assert not over.left.any()
    np.testing.assert_array_equal(absorbing.remaining(alive, over), [[3, 0, 0]])


def test_an_agents_own_time_limit_is_paid_like_a_joint_one_if_learners_bootstrap_there():
    matcher = make(inputs="transition", beyond_limit=True)
    observations = np.array([[[0.3, 0.4], [0.5, 0]]], np.float32)
    infos, no = {"final_obs": observations.copy(), "final_alive": np.ones((1, 2), bool)}, np.zeros((1, 2), bool)
    own = AfterStep.of(no, np.array([[True, False]]), infos, np.array([1]))
    joint = AfterStep.of(no, ~no, infos, np.array([1]))
    paid = matcher.rewards(observations, ~no, after=own)
    assert paid[0, 0] != 0
    np.testing.assert_array_equal(paid, matcher.rewards(observations, ~no, after=joint))


def test_without_a_kept_buffer_the_absorbing_steps_of_the_last_rollout_are_forgotten_too():
    matcher = make(keep_buffer=False)
    observations, alive, after = episodes(np.random.default_rng(0))
    matcher.record(observations, alive, after=after)
    once = matcher._recorded.absorbing_steps().tolist()
    matcher.update()
    assert matcher._recorded.absorbing_steps().tolist() == [0, 0]
    matcher.record(observations, alive, after=after)
    assert matcher._recorded.absorbing_steps().tolist() == once


@pytest.mark.parametrize("kind", ["state", "transition"])
def test_returns_are_those_of_episodes_padded_to_the_limit(kind):
    matcher = make(inputs=kind)
    observations, alive, after = episodes(np.random.default_rng(1))
    live_rewards = DistributionMatcher.rewards(matcher, observations, alive, after=after)[:, 0]
    width = max(matcher.discriminators.sizes)
    logits = matcher.discriminators.logits
    paid = {}
    for k, size in enumerate(matcher.sizes):
        row = torch.zeros(1, 2, width)
        row[0, k, size * (2 if kind == "transition" else 1)] = 1
        r_abs = float(logits(row)[0, k])
        for t in range(len(observations)):
            # The slow way: append the absorbing steps that follow and sum them one by one.
            time, lives = int(after.time[t, 0]), alive[t, 0, k]
            limit = after.truncated[t, 0, k] and after.alive[t, 0, k]
            entered = lives and not limit and (after.ended[t, 0] or not after.alive[t, 0, k])
            own = torch.zeros(1, 2, width)
            own[0, k, :size] = torch.from_numpy(observations[t, 0, k, :size])
            reward = 0.0
            if kind == "transition" and lives:
                own[0, k, size : 2 * size] = torch.from_numpy(after.observations[t, 0, k, :size])
                reward = r_abs if entered else float(logits(own)[0, k])
            elif lives:
                reward = float(logits(own)[0, k])
            padding = [r_abs] * (LIMIT - time - 1) if entered else []
            paid[t, k] = reward + sum(GAMMA ** (i + 1) * r for i, r in enumerate(padding))
    slow = np.array([[paid[t, k] for k in range(2)] for t in range(len(observations))])
    np.testing.assert_allclose(live_rewards, slow, atol=1e-5)


@pytest.mark.parametrize("beyond_limit", [False, True])
def test_a_constant_logit_is_neutral(beyond_limit):
    """Every live step's return depends on the time left only, or on nothing where a learner bootstraps at the limit."""
    matcher, bias = make(beyond_limit=beyond_limit), -1.5
    matcher._pay.of = lambda rows: torch.full(rows.shape[:-1], bias)
    observations, alive, after = episodes(np.random.default_rng(2))
    paid = matcher.rewards(observations, alive, after=after)[:, 0].astype(np.float64)
    time = after.time[:, 0]
    for k in range(2):
        rewards = paid[:, k].copy()
        if beyond_limit:  # the learner's own estimate of what follows the limit
            rewards += GAMMA * bias / (1 - GAMMA) * (after.truncated & after.alive & alive)[:, 0, k]
        got = returns(rewards, time)[alive[:, 0, k]]
        left = LIMIT - time[alive[:, 0, k]]
        expected = bias / (1 - GAMMA) * (1 if beyond_limit else 1 - GAMMA**left)
        np.testing.assert_allclose(got, np.broadcast_to(expected, got.shape), rtol=1e-5)


def test_what_is_recorded_is_what_padding_would_add():
    matcher = make()
    observations, alive, after = episodes(np.random.default_rng(3), number=8)
    matcher.record(observations, alive, after=after)
    ends = np.flatnonzero(after.ended[:, 0])
    lived = [[int(part[:, 0, k].sum()) for part in np.split(alive, ends[:-1] + 1)] for k in range(2)]
    padded = [sum(LIMIT - n for n in agent) for agent in lived]
    assert matcher._recorded.absorbing_steps().tolist() == padded
    shares = matcher._training.absorbing_shares(matcher._recorded)
    expected = [p / (p + sum(agent)) for p, agent in zip(padded, lived, strict=True)]
    np.testing.assert_allclose(shares.policy_share, expected, rtol=1e-6)
    # Experts: a has lived 3 and 7 steps of 7, b 2 and 7.
    np.testing.assert_allclose(shares.expert_share, [4 / 14, 5 / 14], rtol=1e-6)
    broken = np.ones((len(observations), 1), bool)
    matcher.record(observations, alive, broken=broken, after=after)
    assert matcher._recorded.absorbing_steps().tolist() == padded


def test_the_newest_steps_alone_count():
    buffer = TransitionBuffer(2, 2, 1)
    assert kept_in(buffer).tolist() == [0, 0]
    buffer.add(
        torch.tensor([[[[3.0], [5.0]]], [[[4.0], [6.0]]], [[[7.0], [9.0]]]]),
        torch.tensor([[[1, 1]], [[1, 0]], [[1, 0]]]) > 0,
    )
    assert kept_in(buffer).tolist() == [11, 5]
    assert share(torch.tensor([3, 0]), torch.tensor([1, 0])).tolist() == [0.75, 0]


def test_the_absorbing_row_stands_in_as_often_as_its_share():
    row, ones = torch.tensor([[0.0, 1.0]]), torch.ones(1, 4, 2)
    absorbing = AbsorbingRow(row, torch.tensor([0.5]), torch.tensor([0.25]))
    draw = torch.tensor([[0.1, 0.3, 0.6, 0.9]])
    expert, policy = absorbing.put_in(ones, 2 * ones, draw, draw)
    assert expert[0].tolist() == [[0, 1], [0, 1], [1, 1], [1, 1]]
    assert policy[0].tolist() == [[0, 1], [2, 2], [2, 2], [2, 2]]


def test_experts_that_live_long_make_the_absorbing_state_costly():
    long = {"a": np.zeros((LIMIT, 1))}
    experts = Demonstrations.from_episodes([long] * 4)
    matcher = DistributionMatcher(
        experts, ends="absorbing", gamma=GAMMA, max_steps=LIMIT, seed=0, learning_rate=1e-2, gradient_penalty=0.1
    )
    observations, alive = np.zeros((10, 1, 1, 1), np.float32), np.ones((10, 1, 1), bool)
    one_step = AfterStep(observations, alive, np.ones((10, 1), bool), np.zeros((10, 1, 1), bool), np.zeros((10, 1), int))
    for _ in range(3):
        matcher.record(observations, alive, after=one_step)
        matcher.update()
    to_the_end = matcher.rewards(observations, alive, after=one_step)
    assert (to_the_end < matcher.rewards(observations, alive) - 1).all()


@pytest.mark.parametrize("lifetimes", [(None, None), (None, 2)])
def test_both_wrappers_and_the_joint_rollout_pay_the_same(lifetimes):
    def env():
        env = TinyEnv(sizes=(2, 1), lifetimes=lifetimes, limit=4, truncates=False)
        env.max_steps = LIMIT
        return env

    actions = [{"agent_0": t % 3, "agent_1": 1} for t in range(8)]
    demos = Demonstrations.record(env(), lambda observations: dict.fromkeys(observations, 1), 3, seed=0)

    def matcher():
        return DistributionMatcher(demos, ends="absorbing", gamma=GAMMA, seed=0, updates=2, batch_size=8)

    parallel = dm2.DM2ParallelEnv(env(), matcher(), coefficient=1.0)
    vector = dm2.DM2VectorEnv(dm2.vectorize(env, 1), matcher(), coefficient=1.0)
    bare, rollout = dm2.vectorize(env, 1), JointRollout(matcher())
    rollout.matcher.use_time_limit_of(bare)
    assert parallel.matcher.options["max_steps"] == vector.matcher.options["max_steps"] == LIMIT
    for wrapped in (parallel, vector):  # a reset in mid-episode starts the clock anew
        wrapped.training = False
        wrapped.reset(seed=3)
        wrapped.step({"agent_0": 1, "agent_1": 1} if wrapped is parallel else np.ones((1, 2), int))
        wrapped.training = True
        wrapped.reset(seed=3)
    observations, infos = bare.reset(seed=3)
    of_parallel, of_vector, given = [], [], []
    for t in range(8):
        now = {agent: actions[t][agent] for agent in parallel.agents}
        step_infos = parallel.step(now)[4]
        of_parallel.append([step_infos.get(a, {}).get("gail_reward", 0.0) for a in parallel.possible_agents])
        joint = np.array([[actions[t][a] if a in now else 0 for a in parallel.possible_agents]])
        of_vector.append(vector.step(joint)[4]["gail_reward"][0])
        before, alive = observations, infos["alive"]
        observations, _, terminations, truncations, infos = bare.step(joint)
        after = AfterStep.of(terminations, truncations, infos)
        rollout.append(before, alive, after.ended, after=after)
        given.append((before, alive, after))
        if not parallel.agents:
            parallel.reset()
    np.testing.assert_allclose(of_parallel, of_vector, atol=1e-6)
    # With an untrained discriminator: the last live step is paid r(s) and what is left of 7 steps.
    untrained = matcher()
    untrained.use_time_limit_of(bare)
    r_abs = untrained.discriminators.logits(untrained._joint._absorbing_row[None])[0].numpy()
    plain = untrained.rewards(np.stack([g[0] for g in given]), np.stack([g[1] for g in given]))[:, 0]
    last = {0: 3, 1: 3 if lifetimes[1] is None else 1}
    for k, t in last.items():
        extra = r_abs[k] * sum(GAMMA**i for i in range(1, LIMIT - t))
        assert of_vector[t][k] == pytest.approx(plain[t, k] + extra, abs=1e-5)
        assert of_vector[t + 4][k] - plain[t + 4, k] == pytest.approx(extra, abs=1e-5)
    assert of_vector[0] == pytest.approx(plain[0], abs=1e-6)
    paid = rollout.gail_rewards()
    assert paid.shape == (8, 1, 2)
    vector.update()
    parallel.update()
    assert same(vector.matcher.state_dict(), rollout.matcher.state_dict())
    assert same(parallel.matcher.state_dict(), rollout.matcher.state_dict())


def test_the_state_goes_on_bit_for_bit():
    one, other = make(), make()
    rng = np.random.default_rng(4)
    first, second = episodes(rng, 5), episodes(rng, 5)
    one.record(first[0], first[1], after=first[2])
    one.update()
    other.load_state_dict(one.state_dict())
    for matcher in (one, other):
        matcher.record(second[0], second[1], after=second[2])
        matcher.update()
    assert same(one.state_dict(), other.state_dict())


def test_what_cannot_work_is_refused():
    observations, alive, after = episodes(np.random.default_rng(5), 3)
    with pytest.raises(ValueError, match="needs what followed each step: pass after="):
        make().record(observations, alive)
    with pytest.raises(ValueError, match="max_steps is 3, but an episode has gone on for"):
        make(max_steps=3).record(observations, alive, after=after)
    with pytest.raises(ValueError, match="needs the time limit of an episode in steps: pass max_steps"):
        make(max_steps=None).record(observations, alive, after=after)
    with pytest.raises(ValueError, match="needs the time limit"):
        make(max_steps=None).use_time_limit_of(TinyEnv())
    with pytest.raises(ValueError, match="needs the time in the episode"):
        make().record(observations, alive, after=AfterStep(after.observations, after.alive, after.ended, after.truncated))
    short = make(max_steps=5)
    with pytest.raises(ValueError, match="max_steps is 5, but the demonstrations have an episode of 7 steps"):
        short._training.absorbing_shares(short._recorded)
    with pytest.raises(ValueError, match="chunks do not say when episodes end"):
        make().algorithm1([("a", observations[:, 0, 0])])
    with pytest.raises(ValueError, match=r"gamma must be at most 1, and below 1 with beyond_limit=True, got 1\.0"):
        make(gamma=1.0, beyond_limit=True)
    with pytest.raises(ValueError, match="ends must be 'live' or 'absorbing'"):
        make(ends="paper")


def test_an_episode_may_last_as_long_as_the_limit_and_not_a_step_longer():
    absorbing = AbsorbingEnds(0.5, 5, beyond_limit=False, counts_entry=False)
    alive, no = np.ones((1, 1), bool), np.zeros((1, 1), bool)

    def last(time):
        return AfterStep(np.zeros((1, 1, 1)), no, np.array([True]), no, np.array([time]))

    assert absorbing.remaining(alive, last(4)).tolist() == [[0]]
    with pytest.raises(ValueError, match="max_steps is 5, but an episode has gone on for 6 steps"):
        absorbing.remaining(alive, last(5))


def test_experts_who_live_to_the_limit_do_not_step_into_the_absorbing_state():
    # a has lived 3 and 7 steps of 7, b 2 and 7; who died or stopped before the limit has a step into the absorbing state.
    assert AbsorbingEnds(GAMMA, LIMIT, False, counts_entry=False).of_experts(demonstrations()).tolist() == [4, 5]
    assert AbsorbingEnds(GAMMA, LIMIT, False, counts_entry=True).of_experts(demonstrations()).tolist() == [5, 6]


def test_numbers_from_before_the_buffer_was_cleared_do_not_count():
    buffer = TransitionBuffer(4, 2, 1)
    both, first = torch.ones(3, 1, 2, dtype=torch.bool), torch.tensor([True, False]).expand(3, 1, 2)
    buffer.add(torch.full((3, 1, 2, 1), 5.0), both)
    buffer.clear()
    buffer.add(torch.ones(3, 1, 2, 1), first)
    assert kept_in(buffer).tolist() == [3, 0]
