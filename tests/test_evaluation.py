import numpy as np
import pytest
import torch
from pettingzoo.utils.wrappers import BaseParallelWrapper
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

import dm2_wrappers as dm2
from dm2_wrappers.evaluation import evaluate
from dm2_wrappers.sb3 import IndependentLearners
from tests.helpers.sb3_teams import SMALL
from tests.helpers.tiny_envs import TinyEnv, ToldEnv


class Always:
    """A joint policy that always plays one action."""

    def __init__(self, action=1):
        self.action, self.starts = action, []

    def start_episode(self, started):
        self.starts.append(started.copy())

    def __call__(self, observations, infos):
        return np.full(observations.shape[:2], self.action)


def test_means_and_standard_errors_by_hand():
    # Copy 0 and 1 each play episodes of 4 steps, of which each copy's first is won (10 more) and the second is not.
    env = dm2.vectorize(lambda: TinyEnv(sizes=(3, 3), limit=4, wins=True), 2)
    result = evaluate(Always(), env, episodes=4, seed=0)
    returns = [4 * 2 + 10, 4 * 2 + 10, 8, 8]
    error = np.std(returns, ddof=1) / 2
    assert result["return"] == np.mean(returns)
    assert result["return_se"] == pytest.approx(error)
    assert result["win_rate"] == 0.5
    assert result["win_rate_se"] == pytest.approx(np.std([1, 1, 0, 0], ddof=1) / 2)
    assert (result["length"], result["length_se"], result["episodes"]) == (4, 0, 4)


def test_every_copy_contributes_equally_many_episodes_however_short_they_are():
    limits = iter([2, 8])
    env = dm2.vectorize(lambda: TinyEnv(sizes=(3, 3), limit=next(limits)), 2)
    assert evaluate(Always(), env, episodes=6, seed=0)["length"] == (3 * 2 + 3 * 8) / 6


def test_broken_episodes_are_not_counted():
    env = dm2.vectorize(lambda: TinyEnv(sizes=(3, 3), limit=4, wins=True, broken=(0,)), 1)
    result = evaluate(Always(), env, episodes=2, seed=0)
    assert result["episodes"] == 2
    assert result["win_rate"] == 0.5  # episodes 1 and 2 of 0, 1, 2; the even ones are won


@pytest.mark.parametrize("n", [1, 2])
def test_the_win_rate_is_that_of_the_episodes_whose_outcome_is_reported(n):
    # Of each sub-environment's four: one won, one lost, two not reported. With two, one of them reports at each end.
    env = dm2.vectorize(lambda: ToldEnv(sizes=(3, 3), limit=1), n)
    result = evaluate(Always(), env, episodes=4 * n, seed=0)
    assert result["episodes"] == 4 * n
    assert result["win_rate"] == 0.5
    expected = {1: 0.5, 2: np.sqrt(1 / 12)}  # the spread of 1, 0 is sqrt(1 / 2), that of 1, 1, 0, 0 is sqrt(1 / 3)
    assert result["win_rate_se"] == pytest.approx(expected[n])


def test_shaping_never_gets_into_an_evaluation():
    env = dm2.vectorize(lambda: TinyEnv(sizes=(3, 3), limit=4), 2)
    demos = dm2.Demonstrations.record(env, Always(), 2, seed=0)
    wrapped = dm2.DM2VectorEnv(env, demos, coefficient=100.0)
    assert evaluate(Always(), wrapped, episodes=2, seed=0)["return"] == 8


@pytest.mark.parametrize("batched", [False, True])
def test_test_episodes_never_reach_the_matcher(batched):
    env = TinyEnv(sizes=(3, 3), limit=4)
    demos = dm2.Demonstrations.record(dm2.vectorize(lambda: env, 1), Always(), 2, seed=0)
    matcher = dm2.DistributionMatcher(demos, updates=1, batch_size=4)
    if batched:
        wrapped = dm2.DM2VectorEnv(dm2.vectorize(lambda: env, 1), matcher, coefficient=1.0, update_every=2)
    else:
        wrapped = dm2.DM2ParallelEnv(env, matcher, coefficient=1.0, update_every=2)
    evaluate(Always(), wrapped, episodes=3, seed=0)
    dm2.Demonstrations.record(wrapped, Always() if batched else lambda seen: dict.fromkeys(seen, 1), 3, seed=0)
    assert wrapped.metrics == {}
    assert wrapped.update()["transitions"] == 0
    if not batched:
        with pytest.raises(ValueError, match="would train the discriminators, because BaseParallelWrapper"):
            evaluate(Always(), BaseParallelWrapper(wrapped), episodes=1)


def test_episodes_that_keep_breaking_end_the_evaluation():
    env = dm2.vectorize(lambda: TinyEnv(sizes=(3, 3), limit=1, broken=range(100)), 2)
    with pytest.raises(RuntimeError, match="11 episodes broke before 4 complete ones were played"):
        evaluate(Always(), env, episodes=4, seed=0)


def test_the_return_is_the_mean_over_the_agents_that_are_there_as_in_a_recording():
    env = dm2.vectorize(lambda: TinyEnv(sizes=(3, 3), limit=4, lifetimes=(None, 2)), 1)
    demos = dm2.Demonstrations.record(env, Always(), 2, seed=0)
    # Both agents' 1s for two steps, then the one's that is left.
    assert evaluate(Always(), env, episodes=2, seed=0)["return"] == demos.mean_return == 2 + 2 + 1 + 1


def test_without_wins_there_is_no_win_rate_and_one_episode_has_no_spread():
    result = evaluate(Always(), TinyEnv(sizes=(3, 3), limit=4), episodes=1, seed=0)
    assert "win_rate" not in result
    assert np.isnan(result["return_se"])
    with pytest.raises(ValueError, match="at least 1"):
        evaluate(Always(), TinyEnv(), episodes=0)
    with pytest.raises(ValueError, match="seed must be None or an integer, got 'x'"):
        evaluate(Always(), TinyEnv(), episodes=1, seed="x")


def test_recurrent_policies_hear_where_episodes_begin():
    policy = Always()
    evaluate(policy, dm2.vectorize(lambda: TinyEnv(sizes=(3, 3), limit=2), 2), episodes=4, seed=0)
    assert [starts.tolist() for starts in policy.starts] == [[True] * 2] * 2


@pytest.mark.parametrize("how", ["parallel", "vector", "wrapped", "around the same"])
def test_after_an_evaluation_in_its_own_environment_a_team_begins_new_episodes(how):
    inner = TinyEnv(sizes=(4, 3), limit=50, masks=True)
    venv = dm2.vectorize(lambda: inner, 1)
    demos = dm2.Demonstrations.record(venv, Always(0), 1, seed=0)
    given = {
        "parallel": inner,
        "vector": venv,
        "wrapped": dm2.DM2VectorEnv(venv, demos, coefficient=1.0),
        "around the same": venv,
    }[how]
    team = IndependentLearners(MaskablePPO, given, seed=0, n_steps=6, batch_size=6, **SMALL)
    team.learn(6)
    test_env = dm2.vectorize(lambda: BaseParallelWrapper(inner), 1) if how == "around the same" else given
    team.evaluate(test_env, episodes=1, seed=3)
    steps = []
    team._lockstep.listeners.append(steps.append)
    team.learn(6, reset_num_timesteps=False)
    # Feature 0 counts an episode's steps: what the learners act on is what the environment shows.
    assert [step.observations[0, 0, 0] for step in steps] == [0, 1, 2, 3, 4, 5]
    assert inner.t == 6


def test_evaluations_in_its_own_environment_do_not_put_off_the_updates_of_an_online_run():
    env = dm2.vectorize(lambda: TinyEnv(sizes=(3, 3)), 2)
    demos = dm2.Demonstrations.record(env, Always(0), 2, seed=0)
    matcher = dm2.DistributionMatcher(demos, updates=1, batch_size=4, seed=0)
    options = {"n_steps": 6, "batch_size": 6, "mode": "online", "update_every": 30, **SMALL}
    team = IndependentLearners(PPO, env, seed=0, matcher=matcher, coefficient=0.5, **options)
    for _ in range(3):
        team.learn(12, reset_num_timesteps=not team.num_timesteps).evaluate(env, episodes=2, seed=3)
    assert team._lockstep.env.metrics["transitions"] == 30 * 2


def test_a_team_keeps_its_episodes_when_it_is_evaluated_elsewhere():
    team = IndependentLearners(PPO, TinyEnv(limit=50), seed=0, n_steps=6, batch_size=6, **SMALL)
    team.learn(6).evaluate(TinyEnv(limit=50), episodes=1)
    team.learn(6, reset_num_timesteps=False)
    assert team._lockstep.observations[0, 0, 0] == 12


def test_a_callback_cannot_evaluate_in_the_environment_that_is_played_in():
    class Evaluate(BaseCallback):
        def _on_step(self):
            team.evaluate(env, episodes=1)
            return True

    env = TinyEnv(limit=50)
    team = IndependentLearners(PPO, env, seed=0, n_steps=6, batch_size=6, **SMALL)
    with pytest.raises(RuntimeError, match="using this environment: evaluate in a separate one"):
        team.learn(6, callback={"agent_0": Evaluate()})


def test_the_same_seed_plays_the_same_episodes_and_leaves_the_global_streams_alone():
    env = dm2.vectorize(lambda: TinyEnv(sizes=(4, 3), limit=5, random_limit=True), 3)
    team = IndependentLearners(PPO, env, seed=0, n_steps=6, batch_size=6, **SMALL)
    test_env = dm2.vectorize(lambda: TinyEnv(sizes=(4, 3), limit=5, random_limit=True), 3)
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    first = team.evaluate(test_env, episodes=6, seed=3)
    assert torch.rand(()) == expected
    assert team.evaluate(test_env, episodes=6, seed=3) == first
    assert team.evaluate(test_env, episodes=6, seed=4) != first
    before = {a: m.policy.state_dict() for a, m in team.models.items()}
    plain = IndependentLearners(PPO, env, seed=0, n_steps=6, batch_size=6, **SMALL)
    plain.learn(18)
    team.learn(18)
    for agent in team.agents:
        for name in before[agent]:
            assert torch.equal(team.models[agent].policy.state_dict()[name], plain.models[agent].policy.state_dict()[name])


def test_a_win_counts_for_the_sub_environment_that_won():
    # Both end together; only sub-environment 0 wins its first episode, and 1 its second.
    made = iter([0, 1])

    class OneWins(TinyEnv):
        def __init__(self):
            super().__init__(sizes=(3, 3), limit=2, wins=True)
            self.episode += next(made)

    env = dm2.vectorize(OneWins, 2)
    assert evaluate(Always(), env, episodes=2, seed=0)["win_rate"] == 0.5


def test_the_return_in_a_shaped_environment_is_its_own():
    """A wrapper that is no DM2 wrapper, but leaves the environment's reward in infos as ours do."""

    class Shaped(dm2.MultiAgentVectorWrapper):
        def step(self, actions):
            observations, rewards, *rest, infos = self.env.step(actions)
            return observations, rewards + 100, *rest, {**infos, "env_reward": rewards}

    env = Shaped(dm2.vectorize(lambda: TinyEnv(sizes=(3, 3), limit=4), 2))
    assert evaluate(Always(), env, episodes=2, seed=0)["return"] == 8


def test_deterministic_evaluation_plays_the_most_likely_actions():
    team = IndependentLearners(PPO, TinyEnv(sizes=(3, 3)), seed=0, n_steps=6, batch_size=6, **SMALL)
    for model, action in zip(team.models.values(), (2, 1), strict=True):
        with torch.no_grad():  # likelier than the others, but seldom enough to be sampled alone
            model.policy.action_net.bias[action] = 0.5
            model.policy.action_net.weight.zero_()
    env = TinyEnv(sizes=(3, 3), limit=5)
    assert team.evaluate(env, episodes=4, seed=0, deterministic=True)["return"] == 5 * 3
    assert team.evaluate(env, episodes=4, seed=0)["return"] != 5 * 3


@pytest.mark.parametrize("policy", [3, None, TinyEnv, {"agent_0": 1}])
def test_what_is_no_policy_is_one_sentence_before_anything_is_played(policy):
    class Unplayed(TinyEnv):
        def reset(self, seed=None, options=None):
            raise AssertionError("it was played")

    for play in (evaluate, lambda policy, env, episodes: dm2.Demonstrations.record(env, policy, episodes)):
        with pytest.raises(TypeError, match="policy must be a function of all agents' observations, got"):
            play(policy, Unplayed(), 1)


def test_a_team_is_no_policy_but_has_one():
    team = IndependentLearners(PPO, TinyEnv(), n_steps=4, batch_size=4, **SMALL)
    with pytest.raises(TypeError, match=r"a learner's method is one, such as team\.policy\(\)"):
        evaluate(team, TinyEnv(), 1)


OTHER_TEAMS = {
    "another order": ({"names": ("agent_1", "agent_0")}, r"trained with the agents \['agent_0', 'agent_1'\], but .* order"),
    "other agents": ({"names": ("x", "y")}, r"but 'tiny' has \['x', 'y'\]"),
    "fewer agents": ({"sizes": (3,)}, r"but 'tiny' has \['agent_0'\]"),
    "more features": ({"sizes": (3, 5)}, "agent 'agent_1' was trained on 3 features, but 'tiny' has 5"),
    "more actions": ({"actions": 4}, r"trained with the actions Discrete\(3\), but 'tiny' has Discrete\(4\)"),
    "other actions": ({"continuous": True}, r"trained with the actions Discrete\(3\), but 'tiny' has Box"),
}


class Renamed(TinyEnv):
    def __init__(self, names=(), **options):
        super().__init__(**{"sizes": (3, 3), **options})
        if names:
            for own in (self.sizes, self.numbers, self.lifetimes, self.observation_spaces, self.action_spaces):
                own.update(zip(names, list(own.values()), strict=True))
            self.possible_agents = list(names)


@pytest.mark.parametrize("other", OTHER_TEAMS)
def test_a_team_is_not_played_in_an_environment_of_another(other):
    options, message = OTHER_TEAMS[other]
    team = IndependentLearners(PPO, TinyEnv(sizes=(3, 3)), seed=0, n_steps=8, batch_size=8, **SMALL)
    shared = dm2.sb3.SharedPolicyVecEnv(TinyEnv(sizes=(3, 3)))
    policy = dm2.sb3.SharedPolicy(PPO("MlpPolicy", shared, seed=0, n_steps=8, batch_size=8, **SMALL), shared)
    for play in (
        lambda: team.evaluate(Renamed(**options), 1),
        lambda: dm2.Demonstrations.record(dm2.vectorize(lambda: Renamed(**options), 2), team.policy(), 1),
        lambda: evaluate(policy, Renamed(**options), 1),
    ):
        with pytest.raises(ValueError, match=message):
            play()
    assert team.evaluate(Renamed(names=("agent_0", "agent_1")), 1)["length"] == 5


def test_a_shared_policy_that_knows_no_agents_plays_others():
    env = dm2.sb3.SharedPolicyVecEnv(TinyEnv(sizes=(3, 3)), indicator=False)
    policy = dm2.sb3.SharedPolicy(PPO("MlpPolicy", env, seed=0, n_steps=8, batch_size=8, **SMALL), env)
    assert evaluate(policy, Renamed(names=("x", "y", "z"), sizes=(3, 3, 3)), 1)["length"] == 5
    with pytest.raises(ValueError, match="trained with the agents"):
        evaluate(policy, Renamed(names=("x", "y"), sizes=(4, 4)), 1)


def test_policies_of_another_form_are_told_what_to_do():
    team = IndependentLearners(PPO, TinyEnv(), seed=0, n_steps=8, batch_size=8, **SMALL)
    env, venv, record = TinyEnv(), dm2.vectorize(TinyEnv, 2), dm2.Demonstrations.record
    arrays, dicts = "a policy of a vector environment must be a function", "a policy of a ParallelEnv must be a function"
    for message, play in (
        (rf"{arrays} .*, but this one takes \(seen\)", lambda: evaluate(lambda seen: {}, env, 1)),
        (rf"{arrays} .*, but this one takes \(seen\)", lambda: record(venv, lambda seen: {}, 1)),
        (rf"{dicts} .*, but this one takes \(seen, more\)", lambda: record(env, lambda seen, more: 0, 1)),
        ("must return actions as an array .*, but it returned a dict", lambda: record(venv, lambda seen, infos: {}, 1)),
        (r"takes the arrays of a vector environment: .* use team.predict", lambda: record(env, team.policy(), 1)),
    ):
        with pytest.raises(TypeError, match=message):
            play()
