"""The matcher: lines 6 to 10 of Algorithm 1, against slow versions and numbers worked out by hand."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import dm2_wrappers as dm2
from dm2_wrappers.matching.discriminators import Discriminators
from dm2_wrappers.matching.matcher import DistributionMatcher
from dm2_wrappers.matching.paper import COEFFICIENTS as PAPER_COEFFICIENTS
from dm2_wrappers.rng_state import derive_seed
from tests.helpers.tiny_matchers import AGENTS, SIZES, Experts, make, rollout, same

DIAGNOSIS = ("separation", "single_feature", "single_feature_index")


def logits(matcher, observations):
    return matcher.discriminators.logits(torch.as_tensor(observations)).numpy()


def test_public_names():
    assert dm2.DistributionMatcher is DistributionMatcher
    matcher = make()
    assert matcher.agents == AGENTS
    assert matcher.sizes == SIZES
    assert matcher.num_agents == 2


def test_before_the_first_update_the_reward_is_the_logit():
    matcher = make()
    observations, _ = rollout()
    rewards = matcher.rewards(observations)
    assert rewards.dtype == np.float32
    np.testing.assert_allclose(rewards, logits(matcher, observations), rtol=1e-6)


@pytest.mark.parametrize(
    ("reward", "of_logit"),
    [
        ("logit", lambda logit: logit),
        ("-log(1-D)", lambda logit: -np.log(1 - 1 / (1 + np.exp(-logit)))),
        ("log D", lambda logit: np.log(1 / (1 + np.exp(-logit)))),
    ],
)
@pytest.mark.parametrize("center", [False, True])
def test_rewards_are_the_named_function_less_its_mean(reward, of_logit, center):
    matcher = make(reward=reward, center=center, updates=20)
    for seed in (0, 1):
        observations, alive = rollout(seed=seed)
        matcher.record(observations, alive)
        metrics = matcher.update()
    expected = of_logit(logits(matcher, observations).astype(np.float64))
    means = [expected[..., k][alive[..., k]].mean() if center else 0.0 for k in range(2)]
    np.testing.assert_allclose([metrics["offset/a"], metrics["offset/b"]], means, atol=1e-5)
    paid = matcher.rewards(observations, alive)
    np.testing.assert_allclose(paid[alive], (expected - means)[alive], atol=1e-5)
    assert (paid[~alive] == 0).all()


@pytest.mark.parametrize("reward", ["logit", "-log(1-D)", "log D"])
@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_rewards_stay_finite_at_extreme_logits(reward, size):
    matcher = make(reward=reward)
    state = matcher.state_dict()
    state["discriminators"]["weights"][0]["b3"].fill_(size)
    matcher.load_state_dict(state)
    paid = matcher.rewards({"a": np.zeros(3)})["a"]
    expected = {"logit": size, "-log(1-D)": max(size, 0), "log D": min(size, 0)}[reward]
    assert paid == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_centred_rewards_have_mean_zero_over_what_was_recorded_since():
    matcher = make(updates=10)
    matcher.record(*rollout(seed=0))
    matcher.update()
    parts = [rollout(seed=1), rollout(steps=7, seed=2)]  # two calls before the next update
    for part in parts:
        matcher.record(*part)
    matcher.update()
    observations, alive = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    rewards = matcher.rewards(observations, alive)
    for k in range(2):
        assert abs(rewards[..., k].sum() / alive[..., k].sum()) < 1e-6


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("reward", ["logit", "log D"])
def test_the_standard_deviation_of_the_reward_is_logged_for_each_agent(center, reward):
    matcher = make(center=center, reward=reward, updates=10)
    matcher.record(*rollout(seed=0))
    matcher.update()
    observations, alive = rollout(seed=1)
    alive[..., 1] = False
    alive[0, 0, 1] = True  # agent b has one new transition only
    matcher.record(observations, alive)
    metrics = matcher.update()
    rewards = matcher.rewards(observations, alive).astype(np.float64)
    assert metrics["gail_reward_std/a"] == pytest.approx(rewards[..., 0][alive[..., 0]].std(), rel=1e-4)
    assert metrics["gail_reward_std/a"] > 0.001
    assert metrics["gail_reward_std/b"] == pytest.approx(0, abs=1e-6)
    alive[..., 1] = False
    matcher.record(observations, alive)
    assert "gail_reward_std/b" not in matcher.update()


def test_the_mean_is_over_the_newest_that_fit_into_the_buffer():
    matcher = make(buffer_size=8)
    observations, alive = rollout(steps=10, copies=2, dead=0)
    matcher.record(observations, alive)
    matcher.update()
    rewards = matcher.rewards(observations, alive)
    np.testing.assert_allclose(rewards[-4:].mean((0, 1)), 0, atol=1e-6)
    assert abs(rewards.mean()) > 1e-4


def test_means_of_many_transitions(monkeypatch):
    monkeypatch.setattr("dm2_wrappers.matching.gail_reward._ROWS", 4)  # more than one block
    matcher = make()
    observations, alive = rollout()
    matcher.record(observations, alive)
    matcher.update()
    rewards = matcher.rewards(observations, alive)
    for k, agent in enumerate(AGENTS):
        assert abs(rewards[..., k].sum() / alive[..., k].sum()) < 1e-6
        assert matcher.metrics[f"gail_reward_std/{agent}"] == pytest.approx(rewards[..., k][alive[..., k]].std(), rel=1e-4)


def test_an_agent_with_nothing_new_keeps_its_offset():
    matcher = make()
    matcher.record(*rollout())
    before = matcher.update()
    observations, alive = rollout(seed=1)
    alive[..., 1] = False
    matcher.record(observations, alive)
    after = matcher.update()
    assert after["offset/b"] == before["offset/b"]
    assert after["offset/a"] != before["offset/a"]
    assert "loss/b" in after  # it is trained on what the buffer has of it


def test_rewards_by_name():
    matcher = make()
    matcher.record(*rollout())
    matcher.update()
    observations, _ = rollout(steps=1, copies=1)
    both = matcher.rewards(observations[0, 0])
    plain = {"b": observations[0, 0, 1, :2], "a": observations[0, 0, 0]}
    by_name = matcher.rewards(plain)
    assert list(by_name) == ["b", "a"]
    assert all(type(value) is float for value in by_name.values())
    assert by_name["a"] == pytest.approx(both[0], abs=1e-6)
    assert by_name["b"] == pytest.approx(both[1], abs=1e-6)
    masked = {"observation": plain["b"].reshape(2, 1), "action_mask": np.ones(4, np.int8)}
    assert matcher.rewards({"b": masked}) == {"b": pytest.approx(both[1], abs=1e-6)}
    assert matcher.rewards({}) == {}
    for parts in ({"x": plain["b"][:1], "y": plain["b"][1:]}, {"observation": {"x": 1.0, "y": 2.0}, "action_mask": [1]}):
        with pytest.raises(ValueError, match=r"the observation of agent 'b' has the parts .*'x', 'y'.*as one array"):
            matcher.rewards({"b": parts})


def slow_update(matcher, recorded, updates=3, rows=16):
    """Lines 8 and 9 agent by agent: agent k's own streams, its own discriminator."""
    weights, metrics = [], {}
    for k, agent in enumerate(AGENTS):
        stream = np.random.default_rng(derive_seed(0, "minibatches", agent))
        alone = Discriminators((SIZES[k],), agents=(agent,), seed=0)
        experts, own = Experts().observations(agent), recorded[k]
        expert_rows = stream.integers(len(experts), size=(updates, rows))
        own_rows = stream.integers(len(own), size=(updates, rows))
        alphas = stream.random((updates, rows), dtype=np.float32)
        history = [
            alone.update(*(torch.from_numpy(array[None]) for array in (experts[e], own[o], alpha)))
            for e, o, alpha in zip(expert_rows, own_rows, alphas, strict=True)
        ]
        weights.append(alone.state_dict()["weights"][0])
        metrics |= {f"{name}/{agent}": np.mean([float(one[name]) for one in history]) for name in history[0]}
    return weights, metrics


def test_update_is_lines_8_and_9_for_each_agent():
    matcher = make()
    observations, alive = rollout()
    matcher.record(observations, alive)
    metrics = matcher.update()
    weights, expected = slow_update(matcher, [observations[..., k, : SIZES[k]][alive[..., k]] for k in range(2)])
    for mine, theirs in zip(matcher.state_dict()["discriminators"]["weights"], weights, strict=True):
        for name, tensor in mine.items():
            torch.testing.assert_close(tensor, theirs[name], atol=1e-5, rtol=1e-4)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-5)
    names = ("loss", "gradient_penalty", "expert_accuracy", "policy_accuracy", "expert_logit", "policy_logit")
    for name in names:
        assert metrics[name] == pytest.approx((expected[f"{name}/a"] + expected[f"{name}/b"]) / 2, abs=1e-5)
    assert metrics["trained"] == 1
    assert metrics["transitions"] == alive.sum()
    per_agent = {f"{name}/{agent}" for name in ("offset", "gail_reward_std", *DIAGNOSIS) for agent in AGENTS}
    assert set(metrics) == {"trained", "transitions", *names, *expected, *per_agent}
    assert all(type(value) is float for value in metrics.values())


def test_the_dead_and_the_broken_are_forgotten():
    observations, alive = rollout(steps=12)
    broken = np.zeros((12, 2), dtype=bool)
    broken[3:6, 1] = True
    matcher, clean = make(), make()
    observations[~alive] = np.nan  # neither may be looked at
    observations[broken] = np.nan
    matcher.record(observations, alive, broken=broken)
    clean.record(np.nan_to_num(observations), alive & ~broken[..., None])
    metrics = matcher.update()
    assert metrics == clean.update()
    assert metrics["transitions"] == (alive & ~broken[..., None]).sum()
    rewards = matcher.rewards(observations, alive & ~broken[..., None])
    assert np.isfinite(rewards).all()


def test_update_without_new_transitions_trains_nothing():
    matcher = make()
    assert matcher.update() == {"trained": 0, "transitions": 0, "offset/a": 0, "offset/b": 0}
    matcher.record(*rollout())
    offsets = {name: value for name, value in matcher.update().items() if name.startswith("offset")}
    before = matcher.state_dict()
    assert matcher.update() == {"trained": 0, "transitions": 0, **offsets}
    matcher.record(*(array[:0] for array in rollout()))
    assert matcher.update()["trained"] == 0
    assert same(matcher.state_dict(), before)


def test_an_agent_that_never_lived_is_not_trained():
    matcher = make()
    start = matcher.state_dict()["discriminators"]["weights"]
    observations, alive = rollout()
    alive[..., 1] = False
    matcher.record(observations, alive)
    metrics = matcher.update()
    now = matcher.state_dict()["discriminators"]["weights"]
    assert same(start[1], now[1])
    assert not same(start[0], now[0])
    assert "loss/b" not in metrics
    assert metrics["loss"] == metrics["loss/a"]
    assert metrics["offset/b"] == 0


def test_policy_data_of_earlier_updates_stay_unless_told_otherwise():
    kept, emptied = make(), make(keep_buffer=False)
    for seed, (before, after) in enumerate([((0, 0), (20, 0)), ((20, 0), (40, 0))]):
        for matcher, old, left in ((kept, before[0], after[0]), (emptied, before[1], after[1])):
            matcher.record(*rollout(seed=seed, dead=0))
            assert matcher._recorded.transitions.counts.tolist() == [old + 20] * 2
            assert matcher.update()["transitions"] == 40
            assert matcher._recorded.transitions.counts.tolist() == [left] * 2


def test_it_learns():
    matcher = make(updates=100, batch_size=64)
    observations, alive = rollout(steps=50, dead=0.1)
    matcher.record(observations, alive)
    metrics = matcher.update()
    assert metrics["expert_logit"] > metrics["policy_logit"]
    own = matcher.rewards(observations, alive)
    for k, agent in enumerate(AGENTS):
        expert = [matcher.rewards({agent: row})[agent] for row in Experts().observations(agent)[:5]]
        assert min(expert) > own[..., k].max() + 1
    assert matcher.update()["trained"] == 0


def test_same_seed_same_run():
    def run(seed):
        matcher = make(seed=seed)
        for step in range(2):
            matcher.record(*rollout(seed=step))
            matcher.update()
        return matcher.state_dict()

    assert same(run(3), run(3))
    assert not same(run(3)["streams"], run(4)["streams"])
    assert not same(run(3)["discriminators"]["weights"], run(4)["discriminators"]["weights"])
    assert not same(run(None)["streams"], run(None)["streams"])


@pytest.mark.parametrize("options", [{}, {"hidden": (8,)}, {"module": lambda agent, size: nn.Linear(size, 1)}])
def test_state_goes_through_a_file_and_everything_goes_on_bit_for_bit(options):
    one = make(buffer_size=25, **options)
    for step in range(3):  # the ring has wrapped
        one.record(*rollout(seed=step))
        one.update()
    one.record(*rollout(seed=3))  # saved in the middle: recorded, not yet used
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other = make(buffer_size=25, **{**options, "seed": 9})
    other.load_state_dict(torch.load(file, weights_only=True))
    observations, alive = rollout(seed=5)
    np.testing.assert_array_equal(one.rewards(observations, alive), other.rewards(observations, alive))
    for step in range(4, 6):
        assert one.update() == other.update()
        assert same(one.state_dict(), other.state_dict())
        for matcher in (one, other):
            matcher.record(*rollout(seed=step))


def test_loading_takes_copies():
    one, other = make(), make()
    one.record(*rollout())
    one.update()
    one.record(*rollout(seed=2))
    state = one.state_dict()
    before = copy.deepcopy(state)
    other.load_state_dict(state)
    for matcher in (one, other):
        matcher.record(*rollout(seed=1))
        matcher.update()
    assert same(state, before)


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (lambda: make(hidden=(8, 8)), "hidden"),
        (lambda: make(buffer_size=10), "transitions"),
        (lambda: DistributionMatcher(Experts(agents=("a", "c"))), "agents"),
        (lambda: DistributionMatcher(Experts(sizes=(3, 3))), "sizes"),
    ],
)
def test_a_state_of_another_matcher_is_refused_and_changes_nothing(other, match):
    saved = other()
    observations, alive = rollout(dead=0)
    saved.record(observations, alive)
    matcher = make()
    matcher.record(*rollout())
    before = matcher.state_dict()
    with pytest.raises(ValueError, match=match):
        matcher.load_state_dict(saved.state_dict())
    assert same(matcher.state_dict(), before)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda state: state.pop("offsets"), "damaged: it lacks 'offsets'"),
        (lambda state: state["discriminators"].pop("weights"), "damaged"),
        (
            lambda state: state["discriminators"]["weights"][1]["w2"].fill_(np.nan),
            "agent 'b' has weights that are not finite",
        ),
        (lambda state: state["discriminators"]["adam"][0].pop("exp_avg"), "damaged"),
        (lambda state: state["discriminators"]["adam"][1]["exp_avg_sq"].fill_(np.inf), "exp_avg_sq of parameter 1"),
        (lambda state: state["discriminators"]["adam"][1].update(exp_avg=torch.zeros(2)), "exp_avg of parameter 1"),
        (lambda state: state["offsets"].fill_(np.nan), "finite offset"),
        (lambda state: state.update(new=torch.zeros(3)), "offset"),
        (lambda state: state.update(buffer=None), "damaged"),
        (lambda state: state.update(streams=state["streams"][:1]), "random states"),
        (lambda state: state.update(streams=["{}", "{}"]), "random states"),
        (lambda state: state.update(streams=[state["streams"][0], 5]), "random states"),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(damage, match):
    saved, matcher = make(seed=1), make()
    for one in (saved, matcher):
        one.record(*rollout())
        one.update()
    state, before = saved.state_dict(), matcher.state_dict()
    damage(state)
    with pytest.raises(ValueError, match=match):
        matcher.load_state_dict(state)
    assert same(matcher.state_dict(), before)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps, lambda m: pickle.dumps(m, protocol=0)])
def test_copies_are_refused(duplicate):
    with pytest.raises(TypeError, match=r"share the one matcher.*DM2VectorEnv.*state_dict"):
        duplicate(make())


def test_demonstrations_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match=r"'b'.*none"):
        DistributionMatcher(Experts(rows=(40, 0)))
    experts = Experts()
    experts._observations["a"][3, 1] = np.inf
    with pytest.raises(ValueError, match=r"feature 1 .*'a' is inf.*correct the demonstrations"):
        DistributionMatcher(experts)
    experts = Experts()
    experts.sizes = (3, 5)
    with pytest.raises(ValueError, match=r"\[n, 5\] of agent 'b'"):
        DistributionMatcher(experts)


def test_records_that_do_not_fit_are_refused_and_not_kept():
    matcher = make()
    observations, alive = rollout()
    refused = [
        ((observations[0], alive[0]), {}, r"\[T, N, K, D\]"),
        ((observations[..., :1, :], alive[..., :1]), {}, r"expected observations \[..., 2, 3\]"),
        ((observations[..., :2], alive), {}, r"expected observations \[..., 2, 3\]"),
        ((observations, alive[..., 0]), {}, "expected alive"),
        ((observations, alive), {"broken": alive}, "expected broken"),
    ]
    for arguments, keywords, match in refused:
        with pytest.raises(ValueError, match=match):
            matcher.record(*arguments, **keywords)
    for value in (np.nan, np.inf, -np.inf):
        bad = observations.copy()
        bad[np.argwhere(alive[..., 1])[0][0], np.argwhere(alive[..., 1])[0][1], 1, 0] = value
        with pytest.raises(ValueError, match=rf"feature 0 of an observation of agent 'b' is {value}"):
            matcher.record(bad, alive)
        with pytest.raises(ValueError, match=rf"feature 0 of an observation of agent 'b' is {value}"):
            matcher.rewards(bad, alive)
    assert matcher.update()["transitions"] == 0


def test_rewards_that_do_not_fit_are_refused():
    matcher = make()
    observations, alive = rollout()
    with pytest.raises(ValueError, match="expected alive"):
        matcher.rewards(observations, alive[0])
    with pytest.raises(ValueError, match="'z'"):
        matcher.rewards({"z": np.zeros(3)})
    with pytest.raises(ValueError, match=r"2 features of agent 'b'.*got 3"):
        matcher.rewards({"b": np.zeros(3)})
    with pytest.raises(ValueError, match="agent 'a' is nan"):
        matcher.rewards({"a": np.full(3, np.nan)})


def test_read_only_and_torch_arrays_are_taken_as_they_are():
    matcher = make()
    observations, alive = rollout()
    expected = matcher.rewards(observations, alive)
    observations.flags.writeable = alive.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(matcher.rewards(observations, alive), expected)
    tensors = torch.tensor(observations, dtype=torch.float64), torch.tensor(alive)
    np.testing.assert_array_equal(matcher.rewards(*tensors), expected)


def test_paper_settings():
    experts = Experts(rows=(40, 30), episodes=5)  # 7 live steps an episode and agent
    matcher = DistributionMatcher.paper(experts, "5m_vs_6m", seed=0)
    assert (matcher.updates, matcher.batch_size, matcher.buffer_size) == (120, 64 * 7, 256 * 70)
    assert (matcher.reward, matcher.center, matcher.keep_buffer) == ("logit", False, False)
    assert matcher.discriminators.gradient_penalty == 10
    assert DistributionMatcher.paper(experts, "3s_vs_4z").buffer_size == 1024 * 200
    assert DistributionMatcher.paper(experts, "3s_vs_4z", updates=2).updates == 2
    with pytest.raises(ValueError, match=r"3s_vs_3z.*8m_vs_9m"):
        DistributionMatcher.paper(experts, "2s3z")
    assert PAPER_COEFFICIENTS["5m_vs_6m"] == 0.3
    assert PAPER_COEFFICIENTS["3s_vs_4z"] == 0.05


def test_paper_coefficients_and_rollouts_of_every_scenario():
    # c, episodes between two updates, SMAC's time limit
    table = {
        "3s_vs_3z": (0.3, 1024, 150),
        "3s_vs_4z": (0.05, 1024, 200),
        "3s_vs_5z": (0.1, 1024, 250),
        "5m_vs_6m": (0.3, 256, 70),
        "8m_vs_9m": (0.4, 1024, 120),
    }
    assert {name: c for name, (c, _, _) in table.items()} == PAPER_COEFFICIENTS
    for scenario, (_, episodes, limit) in table.items():
        assert DistributionMatcher.paper(Experts(), scenario).buffer_size == episodes * limit


def test_which_agents_to_update_is_a_list_and_convergence_a_convergence():
    matcher = make()
    matcher.record(*rollout())
    with pytest.raises(ValueError, match=r"agents must be a list of names, got 'ab'; for one agent pass \['ab'\]"):
        matcher.update("ab")
    with pytest.raises(TypeError, match="convergence must be a Convergence or None, got 5"):
        matcher.update(convergence=5)
    metrics = matcher.update(agent for agent in ["a"])
    assert {name.partition("/")[2] for name in metrics if name.startswith("loss/")} == {"a"}
