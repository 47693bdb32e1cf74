"""Compatibility of demonstrations: Definition 1 on games, and the tests for recordings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

import dm2_wrappers as dm2
from dm2_wrappers import compatibility, tabular
from dm2_wrappers.compatibility.permutation import holm
from tests.helpers.tiny_envs import TinyEnv

ROOT = Path(__file__).parent.parent
EXPECTED = json.loads((Path(__file__).parent / "data" / "theory_expected.json").read_text())


def close(found, expected, atol=1e-9):
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(expected, float), rtol=0, atol=atol)


# --- Definition 1 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["together", "both want tile 0"])
def test_four_tiles(name):
    tiles, expected = tabular.four_tiles(name), EXPECTED["four tiles"][name]
    found = compatibility.check(tiles.game, tiles.marginals)
    assert found.compatible is expected["compatible"]
    close(found.disagreement, expected["state_disagreement"])
    close(found.flow_residual, expected["flow_residual"])
    close(found.gaps, expected["gaps"])
    close(found.lower_bound, expected["lp_bound"])
    close(found.disagreement / 2, expected["tv_bound"])


def test_wandering_partners_are_not_compatible():
    """The example in the paper's text."""
    tiles = tabular.four_tiles("wandering partners")
    found = compatibility.check(tiles.game, tiles.marginals)
    assert not found.compatible
    assert found.lower_bound == pytest.approx(6 / 19)
    close(found.gaps, [0.6, 0.6])


def basic():
    literal = EXPECTED["G1 basic 2x2x2"]
    return tabular.Game(literal["T"], literal["start"], literal["gamma"]), literal["policies"]


def test_basic_game():
    expected = EXPECTED["G1 compatibility"]
    game, policies = basic()
    close(tabular.marginals(game, policies)[0], expected["mu_0"])
    close(tabular.marginals(game, [expected["other_policy_0"], policies[1]])[1], expected["mu_1"])
    found = compatibility.check(game, [expected["mu_0"], expected["mu_1"]])
    close(found.disagreement, expected["disagreement"])
    close(found.flow_residual, expected["flow"])
    close(found.gaps, expected["gaps"])
    close(found.lower_bound, expected["lp"])
    close(found.policies, policies)  # the only candidates


def pooled_game():
    """Agreeing leads to state 0, differing to state 1; the start is state 0."""
    transition = np.zeros((2, 2, 2, 2))
    for one, two in np.ndindex(2, 2):
        transition[:, one, two, int(one != two)] = 1
    return tabular.Game(transition, [1, 0], 0.9)


def test_pooled_teams():
    """Both teams always agree; independent agents with their pooled habits agree half of the time."""
    expected, game = EXPECTED["pooled teams: start (1,0), no reset"], pooled_game()
    teams = [tabular.marginals(game, tabular.expert_policies(game, [[a, a]] * 2)) for a in (0, 1)]
    pooled = [(one + other) / 2 for one, other in zip(*teams, strict=True)]
    close(pooled, expected["marginals"])
    found = compatibility.check(game, pooled)
    assert found.compatible is expected["compatible"]
    close(found.disagreement, expected["state_disagreement"])
    close(found.flow_residual, expected["flow_residual"])
    close(found.gaps, expected["gaps"])
    close(found.lower_bound, expected["lp_bound"])  # a correlated team could do it
    close(found.disagreement / 2, expected["tv_bound"])
    close(found.policies, np.full((2, 2, 2), 0.5))  # uniform where the demonstrations never are


def random_cases(number, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(number):
        agents = int(rng.integers(2, 4))
        game = tabular.random_game(
            rng,
            num_states=int(rng.integers(2, 5)),
            num_actions=rng.integers(2, 4, size=agents).tolist(),
            gamma=float(rng.uniform(0.5, 0.97)),
            concentration=float(rng.choice([0.1, 1.0])),
        )
        teams = [[rng.dirichlet(np.ones(n), size=game.num_states) for n in game.num_actions] for _ in range(2)]
        yield game, teams


def test_every_team_is_compatible_with_itself():
    """1,000 games: stationary experts that were trained together, deterministic or not (section 5.1)."""
    for number, (game, (team, _)) in enumerate(random_cases(1000)):
        if number % 2:
            team = [tabular.deterministic(policy.argmax(axis=1), policy.shape[1]) for policy in team]
        found = compatibility.check(game, tabular.marginals(game, team))
        assert found.compatible
        assert found.lower_bound == 0
        assert max(found.disagreement, found.flow_residual, *found.gaps) < 1e-9


def test_agents_of_two_teams_are_not_and_the_bounds_are_in_order():
    for game, teams in random_cases(200, seed=1):
        mixed = [tabular.marginals(game, teams[i % 2])[i] for i in range(game.num_agents)]
        found = compatibility.check(game, mixed)
        assert not found.compatible
        assert found.disagreement / 2 - 1e-9 <= found.lower_bound <= found.gaps.max() + 1e-9


def test_lower_bound_is_what_a_search_over_correlated_policies_finds():
    expected, rng = EXPECTED["G1 compatibility"], np.random.default_rng(0)
    game, _ = basic()
    targets = [np.array(expected["mu_0"]), np.array(expected["mu_1"])]

    def worst(joint):
        """The largest total variation of correlated policies [n, S, 4]."""
        step = np.einsum("nsj,sjt->nst", joint, game.transition.reshape(2, 4, 2))
        system = np.eye(2) - game.gamma * np.swapaxes(step, 1, 2)
        rho = np.linalg.solve(system, np.broadcast_to(0.1 * game.start, (len(joint), 2))[..., None])
        pairs = (rho * joint).reshape(-1, 2, 2, 2)
        return np.max([np.abs(pairs.sum(axis=3 - i) - mu).sum(axis=(1, 2)) / 2 for i, mu in enumerate(targets)], axis=0)

    joint = rng.dirichlet(np.full(4, 0.5), size=(200_000, 2))
    for spread in (0.1, 0.03, 0.01, 0.003):  # go on around the best
        best = joint[worst(joint).argmin()]
        joint = np.concatenate([best[None], np.abs(best + spread * rng.standard_normal((50_000, 2, 4)))])
        joint /= joint.sum(axis=-1, keepdims=True)
    least = worst(joint).min()
    assert expected["lp"] - 1e-9 <= least <= expected["lp"] + 0.003


def test_tolerance_and_bad_input():
    game, policies = basic()
    near = tabular.marginals(game, policies)
    near[0] = near[0] + np.array([[1e-6, -1e-6], [0, 0]])
    assert not compatibility.check(game, near).compatible
    assert compatibility.check(game, near, tol=1e-4).compatible
    with pytest.raises(ValueError, match="tol must be at least 0, but it is -1"):
        compatibility.check(game, near, tol=-1)
    with pytest.raises(ValueError, match=r"expected 2 marginals.*but got 1"):
        compatibility.check(game, near[:1])
    with pytest.raises(ValueError, match=r"marginals\[1\] must hold probabilities"):
        compatibility.check(game, [near[0], near[1] * 2])


def test_scipy_is_asked_for_when_it_is_missing(monkeypatch):
    import sys

    tiles = tabular.four_tiles("both want tile 0")
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.delitem(sys.modules, "scipy.optimize", raising=False)
    with pytest.raises(ImportError, match=r"dm2-wrappers\[theory\]"):
        compatibility.check(tiles.game, tiles.marginals)


# --- recordings on the tiles ------------------------------------------------------------------------------------------

WANDER = np.full((12, 3), 1 / 3)


def act(policies, seed):
    tables, rng = [np.cumsum(policy, axis=1) for policy in policies], np.random.default_rng(seed)

    def policy(observations):
        return {
            agent: min(int(np.searchsorted(tables[int(agent[-1])][seen.argmax()], rng.random())), len(tables[0][0]) - 1)
            for agent, seen in observations.items()
        }

    return policy


def record(policies, episodes, seed, steps=12):
    env = tabular.TabularParallelEnv(tabular.four_tiles().game, max_steps=steps)
    return dm2.Demonstrations.record(env, act(policies, seed), episodes, seed=seed)


def tile_experts():
    tiles = tabular.four_tiles()
    return tabular.expert_policies(tiles.game, tiles.expert)


def agent_by_agent(one, other):
    return dm2.Demonstrations.mix({"agent_0": one, "agent_1": other})


def test_the_test_keeps_its_level_and_has_power_on_the_tiles():
    """Ten episodes of each agent: apart but of one team, and with wandering partners."""
    experts, refuted = tile_experts(), {"one team": 0, "wandering partners": 0}
    halves = record(experts, 40 * 20, seed=1, steps=8)
    pair = record([experts[0], WANDER], 40 * 10, seed=2, steps=8), record([WANDER, experts[1]], 40 * 10, seed=3, steps=8)
    for k in range(40):
        first, second = np.arange(20 * k, 20 * k + 10), np.arange(20 * k + 10, 20 * k + 20)
        apart = halves._select([(halves, 0, first), (halves, 1, second)])
        ten = np.arange(10 * k, 10 * k + 10)
        wandering = halves._select([(pair[0], 0, ten), (pair[1], 1, ten)])
        for name, demos in (("one team", apart), ("wandering partners", wandering)):
            test = compatibility.shared_feature_test(demos, compatibility.everything, permutations=99, seed=k)
            refuted[name] += test.verdict == "refuted"
    assert refuted["one team"] <= 6  # 2 expected
    assert refuted["wandering partners"] == 40


def test_whole_episodes_are_dealt_out_not_steps():
    """Episodes that never move: by steps, two samples of 6 would differ beyond doubt."""
    rng, refuted = np.random.default_rng(0), 0
    for k in range(60):
        observations = np.repeat(rng.standard_normal((6, 2, 1)), 50, axis=0).astype(np.float32)
        demos = recorded(observations, offsets=np.arange(7) * 50)
        refuted += compatibility.shared_feature_test(demos, compatibility.everything, 99, k).verdict == "refuted"
    assert refuted <= 8  # 3 expected


def recorded(observations, offsets, env_id="tabular", alive=None, actions=None):
    """Demonstrations of any observations [S, K, D]."""
    steps, agents, size = observations.shape
    offsets = np.broadcast_to(offsets, (agents, np.shape(offsets)[-1])).astype(np.int64)
    alive = np.ones((steps, agents), bool) if alive is None else alive
    return dm2.Demonstrations(
        agents=tuple(f"agent_{k}" for k in range(agents)),
        sizes=(size,) * agents,
        padded_observations=np.where(alive[..., None], observations, 0).astype(np.float32),
        alive=alive,
        actions=np.zeros((steps, agents), np.int64) if actions is None else actions,
        rewards=np.zeros((steps, agents), np.float32),
        offsets=offsets,
        won=np.full((agents, offsets.shape[1] - 1), -1, np.int8),
        metadata={"env_id": env_id},
    )


def test_the_result_of_the_test():
    experts = tile_experts()
    demos = agent_by_agent(record([experts[0], WANDER], 12, seed=0), record([WANDER, experts[1]], 12, seed=1))
    test = compatibility.shared_feature_test(demos, compatibility.everything)
    (pair,) = test.pairs
    assert pair.agents == ("agent_0", "agent_1")
    assert pair.steps == (144, 144)
    assert pair.p == pair.p_holm == 0.001  # the least of 999 permutations
    assert pair.statistic > 0.1
    assert test.verdict == "refuted"
    assert "agent_0, agent_1" in str(test)
    assert test == compatibility.shared_feature_test(demos, compatibility.everything)
    assert test != compatibility.shared_feature_test(demos, compatibility.everything, seed=1)


def test_recordings_of_the_same_episodes_always_pass():
    demos = record([WANDER, WANDER], 20, seed=0)
    for same in (demos, demos.shuffled(0)):
        (pair,) = compatibility.shared_feature_test(same, compatibility.everything, 99).pairs
        assert pair.p == 1
        assert pair.statistic < 1e-20
    assert compatibility.concurrency(demos, compatibility.everything) == 1
    assert compatibility.concurrency(demos.shuffled(0), compatibility.everything) < 0.3


def test_concurrency_counts_steps():
    """Two episodes of 3 and 2 steps; the agents differ in one step, and one is dead in another."""
    observations = np.arange(5.0)[:, None, None].repeat(2, axis=1)
    observations[1, 0] = 7
    alive = np.ones((5, 2), bool)
    alive[4, 1] = False
    demos = recorded(observations, [0, 3, 5], alive=alive)
    assert compatibility.concurrency(demos, compatibility.everything) == 3 / 5
    longer = replace(demos, offsets=np.array([[0, 3, 5], [0, 2, 5]]))  # steps beyond the shorter episode are not the same
    assert compatibility.concurrency(longer, compatibility.everything) == 1 / 5


def test_features_count_alike_whatever_their_units():
    rng = np.random.default_rng(0)
    observations = np.concatenate([1000 * rng.standard_normal((60, 2, 1)), rng.standard_normal((60, 2, 1))], axis=2)
    observations[:, 1, 1] += 1.5
    demos = recorded(observations, np.arange(0, 61, 2))
    assert compatibility.shared_feature_test(demos, compatibility.everything, 99).verdict == "refuted"


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_pairs_are_corrected_for_their_number():
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((40, 3, 2))
    observations[:, 2] += 3
    test = compatibility.shared_feature_test(recorded(observations, np.arange(0, 41, 2)), compatibility.everything, 199)
    p = {pair.agents: (pair.p, pair.p_holm) for pair in test.pairs}
    assert p["agent_0", "agent_2"] == p["agent_1", "agent_2"] == (0.005, pytest.approx(0.015))
    assert p["agent_0", "agent_1"][0] > 0.05
    assert test.verdict == "refuted"


def test_bad_input_of_the_tests_for_recordings():
    demos = recorded(np.zeros((4, 2, 1)), [0, 2, 4])
    alone = recorded(np.zeros((4, 1, 1)), [0, 2, 4])
    nothing = lambda seen, agent, partner: np.full((len(seen), 1), np.nan)  # noqa: E731
    for call, message in (
        (lambda: compatibility.concurrency(alone, compatibility.everything), "two or more agents"),
        (lambda: compatibility.concurrency(demos, nothing), "nothing can be compared"),
        (
            lambda: compatibility.shared_feature_test(demos, compatibility.everything, 18),
            "permutations must be at least 19 .* it is 18",
        ),
        (lambda: compatibility.shared_feature_test(demos, compatibility.everything, alpha=1), "alpha must be between"),
        (lambda: compatibility.shared_feature_test(demos, compatibility.everything, seed="x"), "seed must be an integer"),
        (lambda: compatibility.shared_feature_test(demos, compatibility.everything, "x"), "permutations must be an integer"),
        (lambda: compatibility.shared_feature_test(demos.subset(1), compatibility.everything), "at least 2 episodes"),
        (lambda: compatibility.shared_features(replace(demos, metadata={"env_id": "pong"})), "no function for.*'pong'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for call in (
        lambda: compatibility.shared_features("x"),
        lambda: compatibility.concurrency("x", nothing),
        lambda: compatibility.shared_feature_test("x", nothing),
        lambda: compatibility.report("x"),
    ):
        with pytest.raises(TypeError, match="demos must be Demonstrations, got 'x'"):
            call()
    (pair,) = compatibility.shared_feature_test(demos, nothing, 19).pairs
    assert (pair.steps, pair.p) == ((0, 0), 1.0)


# --- what two agents both see -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scenario", "pair_steps"), [("3m_win50", 25_188), ("3s_vs_4z_win30", 125_385)])
def test_the_repositorys_files_were_recorded_together(scenario, pair_steps):
    demos = dm2.Demonstrations.load(ROOT / "demos_data" / f"smax_{scenario}.npz")
    assert compatibility.shared_features(demos) is compatibility.smax
    assert compatibility.concurrency(demos, compatibility.smax) == 1
    assert compatibility.concurrency(demos.shuffled(0), compatibility.smax) < 0.01
    test = compatibility.shared_feature_test(demos, compatibility.smax, 59)
    assert sum(pair.steps[0] for pair in test.pairs) == pair_steps
    assert test.verdict == "not refuted"


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (0, 2)])
def test_reordered_and_left_out_agents_were_still_recorded_together(order):
    demos = dm2.Demonstrations.load(ROOT / "demos_data" / "smax_3s_vs_4z_win30.npz").subset(40)
    mixed = dm2.Demonstrations.mix({f"ally_{k}": demos for k in order})
    assert mixed.positions == order
    assert compatibility.concurrency(mixed, compatibility.smax) == 1
    assert compatibility.shared_feature_test(mixed, compatibility.smax, 59).verdict == "not refuted"
    again = dm2.Demonstrations.mix({agent: mixed.shuffled(0) for agent in mixed.agents[::-1]})
    assert again.positions == order[::-1]


def test_agents_that_had_the_same_place_cannot_be_compared():
    demos = dm2.Demonstrations.load(ROOT / "demos_data" / "smax_3s_vs_4z_win30.npz").subset(2)
    renamed = replace(demos, agents=("left", "middle", "right"))
    mixed = dm2.Demonstrations.mix({"ally_1": demos, "middle": renamed})
    with pytest.raises(ValueError, match=r"\['ally_1', 'middle'\] had the places \[1, 1\] among the environment's agents"):
        compatibility.concurrency(mixed, compatibility.smax)


def test_smax_features():
    """Two units, one of them with the longer sight: what only that one sees is not shared."""
    marine, marauder = np.eye(6)[0], np.eye(6)[1]  # sight 9 and 10

    def unit(health, x, y, cooldown, kind):
        return [health, x, y, 0.3, 0.4, 0.5, cooldown, *kind]

    def own(health, cooldown, kind):
        return [health, 0.1, 0.2, cooldown, *kind]

    nobody = [0.0] * 13
    # Unit 1, a marauder, is 4.5 east of unit 0, a marine.
    first = np.array([nobody[:0] + unit(0.7, 0.5, 0, 0.2, marauder) + nobody + own(0.9, 0.1, marine)])
    second = np.array([unit(0.9, -0.45, 0, 0.1, marine) + nobody + own(0.7, 0.2, marauder)])
    close(compatibility.smax(first, 0, 1), [[0.9, 0.1, 0.7, 0.2, 4.5, 0]])
    close(compatibility.smax(second, 1, 0), [[0.9, 0.1, 0.7, 0.2, 4.5, 0]])
    assert np.isnan(compatibility.smax(second, 1, 2)).all()  # out of sight or dead
    far = np.array([unit(0.9, -0.95, 0, 0.1, marine) + nobody + own(0.7, 0.2, marauder)])  # 9.5 away: only unit 1 sees it
    assert np.isnan(compatibility.smax(far, 1, 0)).all()
    close(compatibility.smax(first[:, [*range(13, 26), *range(13), *range(26, 36)]], 0, 2)[0, 0], 0.9)
    with pytest.raises(ValueError, match="10 features and 13 more"):
        compatibility.smax(first[:, 1:], 0, 1)


def test_smac_features():
    """3s_vs_4z: 4 moves, 4 enemies of 6 numbers, 2 allies of 6, health and shield of its own; then what is appended."""
    shared = compatibility.smac("3s_vs_4z")
    first, second = np.zeros((1, 4 + 24 + 12 + 2 + 10 + 3)), np.zeros((1, 42))
    first[0, 28:34] = 1, 0.5, 0.3, -0.4, 0.8, 0.6  # ally 1, seen by 0
    first[0, 40:42] = 0.9, 0.7
    second[0, 28:34] = 1, 0.5, -0.3, 0.4, 0.9, 0.7  # ally 0, seen by 1
    second[0, 40:42] = 0.8, 0.6
    expected = [[0.9, 0.7, 0.8, 0.6, 2.7, -3.6]]
    close(shared(first, 0, 1), expected)
    close(shared(second, 1, 0), expected)
    assert np.isnan(shared(second, 1, 2)).all()
    with pytest.raises(ValueError, match="at least 42 features, but these have 41"):
        shared(second[:, 1:], 0, 1)
    with pytest.raises(ValueError, match="no SMAC map '3z'"):
        compatibility.smac("3z")
    demos = recorded(np.zeros((4, 5, 55), np.float32), [0, 2, 4], env_id="smac:5m_vs_6m")
    assert np.isnan(compatibility.shared_features(demos)(demos.padded_observations[:, 0], 0, 1)).all()
    marines = compatibility.smac("5m_vs_6m")
    seen = np.zeros((1, 55))
    seen[0, 34 + 15 : 34 + 20], seen[0, 54] = (1, 0.1, 0.2, 0.3, 0.5), 0.6
    close(marines(seen, 4, 3), [[0.5, 0.6, -1.8, -2.7]])


def test_simple_spread_features():
    from mpe2 import simple_spread_v3

    env = simple_spread_v3.parallel_env(N=3, max_cycles=6)
    rng = np.random.default_rng(0)

    def policy(observations):
        return {agent: int(rng.integers(5)) for agent in observations}

    demos = dm2.Demonstrations.record(env, policy, 4, seed=0)
    assert compatibility.shared_features(demos) is compatibility.simple_spread
    assert compatibility.concurrency(demos, compatibility.simple_spread) == 1
    assert compatibility.concurrency(demos.shuffled(1), compatibility.simple_spread) < 1
    seen = demos.padded_observations[:, 1]
    assert compatibility.simple_spread(seen, 1, 0).shape == (24, 12)
    with pytest.raises(ValueError, match="6 features for each agent, but these have 17"):
        compatibility.simple_spread(seen[:, 1:], 1, 0)


def test_report():
    experts = tile_experts()
    together = compatibility.report(record(experts, 10, seed=0), permutations=99)
    assert "concurrency  1.0000" in together
    assert "not refuted at level 0.05" in together
    assert "recorded together" in together
    mixed = agent_by_agent(record([experts[0], WANDER], 12, seed=0), record([WANDER, experts[1]], 12, seed=1))
    text = compatibility.report(mixed, permutations=99)
    assert "verdict      refuted at level 0.05" in text
    assert "cannot come from one team" in text
    apart = compatibility.report(agent_by_agent(record(experts, 10, seed=0), record(experts, 10, seed=1)), permutations=99)
    assert "no proof" in apart


# --- playback ---------------------------------------------------------------------------------------------------------


def pool(one, other):
    """The episodes of both, as one recording."""
    names = ("padded_observations", "alive", "actions", "rewards")
    arrays = {name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in names}
    offsets = np.concatenate([one.offsets, other.offsets[:, 1:] + one.offsets[:, -1:]], axis=1)
    return replace(one, **arrays, offsets=offsets, won=np.concatenate([one.won, other.won], axis=1))


def test_playback_finds_pooled_teams_that_agree_on_everything_they_see():
    env = tabular.TabularParallelEnv(pooled_game(), max_steps=6)
    teams = [dm2.Demonstrations.record(env, lambda seen, a=a: dict.fromkeys(seen, a), 10, seed=a) for a in (0, 1)]
    pooled = pool(*teams)
    assert compatibility.shared_feature_test(pooled, compatibility.everything, 99).verdict == "not refuted"
    test = compatibility.playback_test(pooled, env, bootstrap=39)
    assert test.verdict == "refuted"
    assert test.p == (0.025, 0.025)
    assert test.p_holm == (0.05, 0.05)
    assert "agent_0" in str(test)
    assert len(test.playback) == 20
    one = compatibility.playback_test(teams[0], env, bootstrap=39)
    assert one.verdict == "not refuted"
    assert max(one.statistics) < 1e-20


def test_playback_keeps_its_level():
    """A stochastic team: its clones err, and the bootstrap knows by how much."""
    env = tabular.TabularParallelEnv(pooled_game(), max_steps=6)
    rng, p = np.random.default_rng(0), []
    for k in range(8):
        policies = [rng.dirichlet(np.ones(2), size=2) for _ in range(2)]
        demos = dm2.Demonstrations.record(env, act(policies, k), 12, seed=k)
        p.append(min(compatibility.playback_test(demos, env, episodes=24, bootstrap=19, seed=k, alpha=0.1).p_holm))
    assert np.mean(np.array(p) <= 0.1) <= 0.4  # .1 expected
    assert np.mean(np.array(p) >= 0.3) >= 0.5


def test_playback_takes_other_clones():
    env, calls = tabular.TabularParallelEnv(pooled_game(), max_steps=5), []

    def clone(demos, rng):
        calls.append(len(demos))
        return lambda seen: dict.fromkeys(seen, 1)

    demos = dm2.Demonstrations.record(env, lambda seen: dict.fromkeys(seen, 0), 4, seed=0)
    test = compatibility.playback_test(demos, env, clone, 3, bootstrap=2, alpha=0.9)
    assert calls == [4, 4, 4]
    assert len(test.playback) == 3
    assert test.p == (1 / 3, 1 / 3)  # the clones always do the same, and not what was demonstrated
    assert min(test.statistics) > 0.1


def test_clones_count_actions_and_guess_where_they_have_never_been():
    observations = np.eye(2)[[0, 0, 0, 0]][:, None].repeat(2, axis=1)
    actions = np.array([[0, 1], [0, 1], [1, 1], [0, 1]])
    policy = compatibility.count_actions(recorded(observations, [0, 4], actions=actions), np.random.default_rng(0))
    known, unknown = np.eye(2, dtype=np.float32)
    taken = np.array([list(policy({"agent_0": known, "agent_1": known}).values()) for _ in range(2000)])
    assert taken[:, 0].mean() == pytest.approx(0.25, abs=0.04)
    assert (taken[:, 1] == 1).all()
    guesses = np.array([list(policy({"agent_0": unknown, "agent_1": unknown}).values()) for _ in range(2000)])
    assert guesses.mean(axis=0) == pytest.approx([0.25, 1], abs=0.04)  # agent_1 never did 0


def test_clones_take_available_actions_that_their_experts_took():
    seen = np.eye(2)[[0, 0, 1, 1]][:, None]
    demos = recorded(seen, [0, 4], actions=np.array([[0], [3], [3], [5]]))
    for mask, allowed in (([1, 0, 0, 1, 0, 0, 0], {0, 3}), ([0, 1, 0, 0, 0, 1, 0], {5}), ([0, 1, 1, 0, 0, 0, 0], {1, 2})):
        policy = compatibility.count_actions(demos, np.random.default_rng(0))
        masks = np.array(mask, bool)
        there = {"agent_0": {"observation": np.eye(2)[0], "action_mask": masks}}
        assert {policy(there)["agent_0"] for _ in range(50)} == allowed
        observed = {"agent_0": np.eye(2)[0]}
        assert {policy(observed, infos={"agent_0": {"action_mask": masks}})["agent_0"] for _ in range(50)} == allowed
    policy = compatibility.count_actions(demos, np.random.default_rng(0))
    assert {policy({"agent_0": np.array([7.0, 7.0])})["agent_0"] for _ in range(60)} == {0, 3, 5}  # never seen
    with pytest.raises(
        ValueError, match=r"an observation of agent 'agent_0' of 2 numbers, as in its .*, got 1: let playback_test"
    ):
        policy({"agent_0": 1})
    with pytest.raises(ValueError, match=r"got \{'position': array"):
        policy({"agent_0": {"position": np.zeros(2)}})


def test_clones_draw_the_last_action_where_shares_are_rounded_and_take_minus_0_for_0():
    class Nearly:
        def random(self):
            return 1 - 2**-53

    observations = np.zeros((10, 1, 1))
    observations[5:] = -0.0
    demos = recorded(observations, [0, 10], actions=np.array([[0], [1], [2]] * 3 + [[0]]))
    policy = compatibility.count_actions(demos, Nearly())
    assert policy({"agent_0": np.array([-0.0])}) == policy({"agent_0": np.array([0.0])}) == {"agent_0": 2}
    only = recorded(np.full((4, 1, 1), -0.0), [0, 4], actions=np.array([[1]] * 4))
    assert compatibility.count_actions(only, np.random.default_rng(0))({"agent_0": np.array([0.0])}) == {"agent_0": 1}


def test_clones_choose_from_masks_that_infos_have_when_a_parallel_env_is_played():
    class Masked(TinyEnv):
        def _info(self, agent):
            return {**super()._info(agent), "action_mask": np.array([1, 0, 1], np.int8)}

    free = dm2.Demonstrations.record(TinyEnv(), lambda seen: dict.fromkeys(seen, 1), 3, seed=0)
    played = dm2.Demonstrations.record(Masked(), compatibility.count_actions(free, np.random.default_rng(0)), 3)
    assert set(played.actions.ravel().tolist()) <= {0, 2}
    wrapped = dm2.DM2ParallelEnv(Masked(), free, coefficient=1.0)
    test = compatibility.playback_test(played, wrapped, bootstrap=39, episodes=3)
    assert wrapped.steps_since_update == 0  # the wrapper is left out
    assert set(test.playback.actions.ravel().tolist()) <= {0, 2}


class Numbers(tabular.TabularParallelEnv):
    """The same game, whose observations are the state's number, beside a mask of which actions are available."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        number, mask = spaces.Discrete(2), spaces.MultiBinary(2)
        both = spaces.Dict({"observation": number, "action_mask": mask})
        self.observation_spaces = dict.fromkeys(self.possible_agents, both)

    def _observe(self):
        return {agent: {"observation": int(self._state), "action_mask": np.ones(2, np.int8)} for agent in self.agents}


@pytest.mark.parametrize("batched", [False, True])
def test_playback_on_any_observations(batched):
    env = Numbers(pooled_game(), max_steps=6)
    if batched:
        env = dm2.vectorize(lambda: Numbers(pooled_game(), max_steps=6), 2)
    rng = np.random.default_rng(3)
    random = (
        (lambda seen, infos: rng.integers(0, 2, seen.shape[:2]))
        if batched
        else (lambda seen: {agent: int(rng.integers(2)) for agent in seen})
    )
    demos = dm2.Demonstrations.record(env, random, 12, seed=0)
    test = compatibility.playback_test(demos, env, bootstrap=39)
    assert test.verdict == "not refuted"
    assert max(test.statistics) < 0.05
    always = dm2.Demonstrations.record(
        env, (lambda seen, infos: np.ones(seen.shape[:2], int)) if batched else (lambda seen: dict.fromkeys(seen, 1)), 12
    )
    assert max(compatibility.playback_test(always, env, bootstrap=39).statistics) < 1e-20


def test_playback_compares_agents_by_name():
    game = tabular.Game(np.ones((1, 2, 2, 1)), [1.0], 0.9)
    env, rng = tabular.TabularParallelEnv(game, max_steps=5), np.random.default_rng(0)
    demos = dm2.Demonstrations.record(
        env, lambda seen: {agent: int(agent == "agent_1" and rng.random() < 0.5) for agent in seen}, 30, seed=0
    )
    reordered = dm2.Demonstrations.mix(dict.fromkeys(demos.agents[::-1], demos))
    one, other = (compatibility.playback_test(each, env, bootstrap=39) for each in (demos, reordered))
    assert one.verdict == "not refuted"
    assert (other.agents, other.p, other.statistics) == (one.agents[::-1], one.p[::-1], one.statistics[::-1])


def test_bad_input_of_the_playback_test():
    env = tabular.TabularParallelEnv(pooled_game(), max_steps=5)
    demos = dm2.Demonstrations.record(env, lambda seen: dict.fromkeys(seen, 0), 2, seed=0)
    continuous = replace(demos, actions=np.zeros((10, 2, 3), np.float32))
    renamed = replace(demos, agents=("a", "b"))
    beyond = replace(demos, actions=demos.actions + np.array([0, 9]))
    wider = replace(demos, sizes=(3, 3), padded_observations=np.zeros((10, 2, 3), np.float32))
    for call, message in (
        (lambda: compatibility.playback_test(demos, env, bootstrap=38), "bootstrap must be at least 39 .* with 2 agents"),
        (lambda: compatibility.playback_test(demos, env, alpha=0), "alpha must be between 0 and 1"),
        (lambda: compatibility.playback_test(continuous, env), "discrete actions, but these have actions of 3 numbers"),
        (lambda: compatibility.playback_test(renamed, env), r"the demonstrations' \['a', 'b'\]"),
        (lambda: compatibility.playback_test(demos, env, alpha="0.05"), "alpha must be a finite number, got '0.05'"),
        (lambda: compatibility.playback_test(demos, env, bootstrap=39.5), "bootstrap must be an integer, got 39.5"),
        (lambda: compatibility.playback_test(demos, env, seed=-1), "seed must be an integer of at least 0, got -1"),
        (lambda: compatibility.playback_test(beyond, env), r"agent 'agent_1' took the action 9, .* Discrete\(2\); pass the"),
        (lambda: compatibility.playback_test(wider, env), "'agent_0' has 2 observation features in the environment, but 3"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"demos must be Demonstrations, got 'demos.npz'; read a file with"):
        compatibility.playback_test("demos.npz", env)
