"""One SB3 policy for all agents: a row per sub-environment and agent, and Algorithm 1's exact order."""

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners, SharedPolicy, SharedPolicyDM2, SharedPolicyVecEnv
from tests.helpers.sb3_teams import demonstrations, matcher, venv
from tests.helpers.tiny_envs import TinyEnv, ToldEnv

SMALL = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "n_steps": 6, "batch_size": 12, "n_epochs": 2}


def shared(n=2, indicator=True, **options):
    return SharedPolicyVecEnv(venv(n, random_limit=False, **options), indicator)


def trained_buffer(env, callback, algorithm=PPO, steps=1, **options):
    """The rollout buffer of the last of ``steps`` rollouts, as SB3's ``train`` finds it, and the learner."""
    model = algorithm("MlpPolicy", env, seed=0, **{**SMALL, **options})
    model.train = lambda: None
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter += 0.1
    model.learn(steps * model.n_steps * env.num_envs, callback=callback, log_interval=None)
    return model.rollout_buffer, model


def test_rows_are_the_agents_own_observations_padded_and_numbered():
    env, alone = shared(), venv(2, random_limit=False)
    assert env.seed(7) == [7, 7, 8, 8]
    rows, (joint, _) = env.reset(), alone.reset(seed=7)
    assert env.observation_space.shape == (4 + 2,)
    assert rows.shape == (4, 6)
    for n in range(2):
        for k in range(2):
            np.testing.assert_array_equal(rows[2 * n + k], [*joint[n, k], *np.eye(2)[k]])
    assert rows[1][3] == 0  # the second agent has three features
    again = env.reset()  # the seed counts once
    assert not np.array_equal(again, rows)
    plain = shared(indicator=False)
    plain.seed(7)
    np.testing.assert_array_equal(plain.reset(), joint.reshape(4, 4))
    assert plain.observation_space.shape == (4,)


def test_an_episode_ends_as_sb3_is_told():
    env = shared(lifetimes=(None, 3), absorb=False, limit=5, wins=True)
    env.seed(0)
    env.reset()
    seen = [env.step(np.array([1, 2, 0, 1])) for _ in range(6)]
    dones = np.array([done for _, _, done, _ in seen])
    # The second agent leaves after three steps and is done once; the time limit of 5 ends the first agent's episode.
    assert dones.T.tolist() == [[False, False, False, False, True, False], [False, False, True, False, False, False]] * 2
    left = seen[2][3][1]
    assert left["TimeLimit.truncated"] is False
    assert left["terminal_observation"][:2].tolist() == [3, 2]
    assert left["terminal_observation"][-2:].tolist() == [0, 1]
    assert left["episode"]["l"] == 3
    assert 0 <= left["episode"]["t"] < 300  # seconds since the environment was made
    assert left["episode"]["r"] == 9.0  # 1 + 2 in each step
    assert "is_success" not in left  # it does not know yet
    end = seen[4][3][0]
    assert end["TimeLimit.truncated"] is True
    assert end["terminal_observation"][0] == 5
    assert end["episode"]["l"] == 5
    assert end["episode"]["r"] == 9 + 2 * 1 + 10  # the first episode is won
    assert end["is_success"] is True
    assert all(info == {} for info in (*seen[3][3], seen[4][3][1]))
    observations, rewards, _, _ = seen[3]
    assert rewards.tolist() == [1, 0, 0, 0]
    assert observations[1].tolist() == [0, 0, 0, 0, 0, 1]  # the absent agent
    assert seen[4][0][0][0] == 0  # the next episode has begun


def test_a_row_has_no_outcome_where_the_environment_reports_none():
    env = SharedPolicyVecEnv(dm2.vectorize(lambda: ToldEnv(sizes=(2, 2), limit=1), 2))
    env.seed(0)
    env.reset()
    infos = [env.step(np.ones(4, int))[3] for _ in range(2)]
    assert [[info.get("is_success") for info in rows] for rows in infos] == [
        [True] * 2 + [None] * 2,
        [None] * 2 + [False] * 2,
    ]
    assert all(("battle_won" in info) == ("is_success" in info) for rows in infos for info in rows)


def test_a_team_that_dies_in_a_step_of_the_time_limit_is_not_bootstrapped():
    env = shared(lifetimes=(None, 3), absorb=True, limit=5)
    env.reset()
    infos = [env.step(np.zeros(4, int))[3] for _ in range(5)][-1]
    assert [info["TimeLimit.truncated"] for info in infos] == [True, False, True, False]
    assert env.last_step.dead_at_time_limit.tolist() == [False, True, False, True]


def slow_gae(rewards, values, over, last_value, gamma, lam):
    advantages, advantage = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        following = last_value if t == len(rewards) - 1 else values[t + 1]
        advantage = rewards[t] + gamma * following * (1 - over[t]) - values[t] + gamma * lam * (1 - over[t]) * advantage
        advantages[t] = advantage
    return advantages


@pytest.mark.parametrize("coefficient", [0.5, {"agent_0": 0.5, "agent_1": 2.0}])
def test_a_rollout_is_paid_by_discriminators_that_have_learned_from_it(coefficient):
    env, twin = shared(lifetimes=None, limit=4), matcher()
    seen = []
    own = env.step_wait

    def step_wait():
        result = own()
        step = env.last_joint_step
        seen.append((step.observations.copy(), step.rewards.copy(), step.infos["final_obs"].copy()))
        return result

    env.step_wait = step_wait
    callback = SharedPolicyDM2(matcher(), coefficient=coefficient, env_coefficient=0.25)
    buffer, model = trained_buffer(env, callback)
    observations, env_rewards, finals = (np.stack(each) for each in zip(*seen, strict=True))
    twin.record(observations, np.ones(observations.shape[:3], bool))
    twin.update()
    gail = twin.rewards(observations, np.ones(observations.shape[:3], bool))
    c = np.array([0.5, 0.5 if coefficient == 0.5 else 2.0])
    mixed = (0.25 * env_rewards + c * gail).reshape(6, 4)
    over = np.zeros((6, 4))
    over[3] = 1  # the time limit of 4, where SB3 adds the value of what followed
    final = torch.as_tensor(env.rows(finals[3]))
    mixed[3] += 0.99 * model.policy.predict_values(final).detach().numpy()[:, 0]
    np.testing.assert_allclose(buffer.rewards, mixed, rtol=1e-4, atol=1e-5)
    last = model.policy.predict_values(torch.as_tensor(model._last_obs)).detach().numpy()[:, 0]
    for i in range(4):
        expected = slow_gae(mixed[:, i], buffer.values[:, i], over[:, i], last[i], 0.99, 0.95)
        np.testing.assert_allclose(buffer.advantages[:, i], expected, rtol=1e-4, atol=1e-5)
    logged = model.logger.name_to_value
    assert logged["dm2/env_reward"] == pytest.approx(env_rewards.mean(), rel=1e-5)
    assert logged["dm2/gail_reward/agent_1"] == pytest.approx(gail[:, :, 1].mean(), abs=1e-5)
    assert logged["dm2/trained"] == 1.0


def test_a_schedule_is_told_of_each_rollout_and_sets_its_c():
    class Rising(dm2.schedules.Constant):
        heard: list = []

        def coefficient(self):
            return 0.5 * len(self.heard)

        def update(self, progress):
            self.heard.append((progress.steps, progress.live_steps.tolist(), progress.returns.tolist()))

    schedule, own = Rising(0.0), matcher()
    env = shared(lifetimes=None, limit=3, truncates=False)
    callback = SharedPolicyDM2(own, coefficient=schedule)
    buffer, _ = trained_buffer(env, callback, steps=2)
    assert [steps for steps, _, _ in schedule.heard] == [12, 24]
    assert [live for _, live, _ in schedule.heard] == [[12, 12], [12, 12]]
    assert [len(returns) for _, _, returns in schedule.heard] == [4, 4]  # two sub-environments, two episodes each
    gail = callback._rollout.gail_rewards().reshape(6, 4)
    np.testing.assert_allclose(buffer.rewards, buffer.env_rewards + 1.0 * gail, rtol=1e-5)  # c after its second update


class Hearing(dm2.schedules.Constant):
    """A constant c that keeps the returns that it is told."""

    def __init__(self):
        super().__init__(0.5)
        self.returns = []

    def update(self, progress):
        self.returns += progress.returns.tolist()


def test_a_second_learn_forgets_the_episodes_that_it_abandons():
    schedule, played = Hearing(), []
    env = shared(lifetimes=None, limit=4, wins=False)
    callback, model = SharedPolicyDM2(matcher(), coefficient=schedule), PPO("MlpPolicy", env, seed=0, **SMALL)
    own = env.step_wait

    def step_wait():
        result = own()
        played.append(env.last_joint_step)
        return result

    env.step_wait = step_wait
    for reset in (True, True, False):  # the last goes on with the episodes under way
        model.learn(24, callback=callback, reset_num_timesteps=reset)
    starts = [i for i, step in enumerate(played) if step.time[0] == 0]
    assert starts == [0, 4, 6, 10, 14]
    expected = [sum(step.rewards[n, 0] for step in played[i : i + 4]) for i in (0, 6, 10, 14) for n in range(2)]
    assert schedule.returns == pytest.approx(expected)


def test_c_can_be_assigned_read_and_is_logged():
    env = shared(lifetimes=None)
    callback = SharedPolicyDM2(matcher(), coefficient={"agent_0": 0.5, "agent_1": 1.0})
    buffer, model = trained_buffer(env, callback)

    def paid():
        gail = callback._rollout.gail_rewards()
        np.testing.assert_allclose(
            buffer.rewards.reshape(gail.shape) - callback._payment.mixing.array * gail,
            buffer.env_rewards.reshape(gail.shape),
            atol=1e-5,
        )
        return {name: value for name, value in model.logger.name_to_value.items() if "coefficient" in name}

    assert paid() == {"dm2/coefficient": 0.75, "dm2/coefficient/agent_0": 0.5, "dm2/coefficient/agent_1": 1.0}
    assert callback.coefficient == callback.current_coefficient == {"agent_0": 0.5, "agent_1": 1.0}
    callback.coefficient = 2
    assert (callback.coefficient, callback.current_coefficient) == (2.0, {"agent_0": 2.0, "agent_1": 2.0})
    model.learn(24, callback=callback, log_interval=None)
    assert paid() == {"dm2/coefficient": 2.0, "dm2/coefficient/agent_0": 2.0, "dm2/coefficient/agent_1": 2.0}
    callback.coefficient = schedule = dm2.schedules.LinearFall(3.0, steps=10_000)
    model.learn(24, callback=callback, log_interval=None)
    assert callback.coefficient is schedule
    assert 2.9 < callback.current_coefficient["agent_0"] < 3.0  # it was told of this rollout
    assert paid()["dm2/coefficient"] == callback.current_coefficient["agent_0"]


def test_a_wrong_c_is_refused_when_it_is_assigned():
    callback = SharedPolicyDM2(matcher(), coefficient=0.5)
    for wrong, message in ((-1.0, "coefficient"), (None, "needs a coefficient"), ({"agent_0": 1.0}, "one number for each")):
        with pytest.raises(ValueError, match=message):
            callback.coefficient = wrong
    assert (callback.coefficient, callback.current_coefficient) == (0.5, {"agent_0": 0.5, "agent_1": 0.5})
    without = SharedPolicyDM2(None)
    with pytest.raises(ValueError, match="a coefficient needs a matcher"):
        without.coefficient = 0.5
    assert (without.coefficient, without.current_coefficient) == (None, None)


def test_absorbing_ends_know_the_time_in_the_episode():
    env = shared(lifetimes=None, limit=3, truncates=False)
    own = matcher(ends="absorbing", max_steps=9, beyond_limit=False)
    callback = SharedPolicyDM2(own, coefficient=1.0)
    buffer, _ = trained_buffer(env, callback)
    live = own.rewards(_joint(buffer), np.ones((6, 2, 2), bool)).reshape(6, 4)
    more = buffer.rewards - buffer.env_rewards - live
    row = own._pay.of(own._joint._absorbing_row).detach().numpy()
    worth = np.tile(row * sum(0.99**i for i in range(1, 7)), 2)  # six steps remain after the third of nine
    np.testing.assert_allclose(more[[0, 1, 3, 4]], 0, atol=1e-5)
    np.testing.assert_allclose(more[[2, 5]], [worth, worth], rtol=1e-4, atol=1e-5)
    assert np.abs(worth).min() > 1e-3


def test_a_reset_starts_the_time_in_the_episode_anew():
    env = shared(lifetimes=None, limit=5)
    for _ in range(2):  # the first episode is cut short
        env.reset()
        times = []
        for _ in range(3):
            env.step(np.zeros(4, int))
            times.append(env.last_joint_step.time.tolist())
        assert times == [[0, 0], [1, 1], [2, 2]]


def test_absorbing_ends_take_the_environments_time_limit():
    class Limited(TinyEnv):
        max_steps = 9

    demos = demonstrations(lifetimes=None)
    limited = dm2.vectorize(lambda: Limited(sizes=(4, 3)), 2)
    own = dm2.DistributionMatcher(demos, ends="absorbing", updates=2, batch_size=8, seed=0)
    trained_buffer(SharedPolicyVecEnv(limited), SharedPolicyDM2(own, coefficient=1.0))
    assert own.options["max_steps"] == 9
    assert own.options["beyond_limit"] is True  # SB3 bootstraps there
    own = dm2.DistributionMatcher(demos, ends="absorbing", seed=0)
    with pytest.raises(ValueError, match="needs the time limit of an episode in steps"):
        trained_buffer(shared(lifetimes=None), SharedPolicyDM2(own, coefficient=1.0))


def test_a_rollout_that_a_callback_stopped_is_discarded():
    class Stop(BaseCallback):
        def _on_step(self):
            return self.num_timesteps < 3 * 4

    own, env = matcher(), shared(lifetimes=None)
    callback = SharedPolicyDM2(own, coefficient=1.0)
    model = PPO("MlpPolicy", env, seed=0, **SMALL)
    model.learn(24, callback=[Stop(), callback], log_interval=None)
    assert own.metrics == {}
    model.learn(24, callback=callback, log_interval=None)
    assert own.metrics["transitions"] == 24  # of the second rollout only


def _joint(buffer):
    """The agents' observations [T, N, K, D] in a rollout buffer, without their numbers."""
    return buffer.observations[..., :4].reshape(6, 2, 2, 4).astype(np.float32)


def test_discriminators_do_not_see_the_agents_number_and_each_rollout_once():
    env, dm2_matcher = shared(), matcher()
    recorded = []
    own = dm2_matcher.record

    def record(observations, alive, **options):
        recorded.append(observations.shape)
        own(observations, alive, **options)

    dm2_matcher.record = record
    trained_buffer(env, SharedPolicyDM2(dm2_matcher, coefficient=0.5), steps=3)
    assert recorded == [(6, 2, 2, 4)] * 3


@pytest.mark.parametrize("absorb", [True, False])
@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO, A2C])
def test_steps_of_dead_and_absent_agents_are_in_no_minibatch(algorithm, absorb):
    env = shared(lifetimes=(None, 3), absorb=absorb, limit=6, masks=algorithm is MaskablePPO)
    options = {} if algorithm is A2C else {"batch_size": 8}
    model = algorithm("MlpPolicy", env, seed=0, device="cpu", n_steps=12, **options)
    model.train = lambda: None
    model.learn(48, callback=SharedPolicyDM2(None))
    batches = list(model.rollout_buffer.get(8))
    rows = np.concatenate([batch.observations.numpy() for batch in batches])
    first, second = rows[rows[:, -2] == 1], rows[rows[:, -1] == 1]
    assert len(first) == 24
    assert sorted(second[:, 0].astype(int)) == [0] * 4 + [1] * 4 + [2] * 4


def test_without_deaths_the_callback_without_a_matcher_changes_nothing():
    weights = []
    for callback in (None, SharedPolicyDM2(None)):
        model = PPO("MlpPolicy", shared(lifetimes=None, limit=4), seed=0, **SMALL)
        weights.append(model.learn(72, callback=callback).policy.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_is_reproducible_and_goes_on_with_its_buffer():
    def run(*calls):
        model = PPO("MlpPolicy", shared(), seed=0, **SMALL)
        for steps in calls:
            model.learn(steps, callback=SharedPolicyDM2(matcher(), coefficient=0.5), reset_num_timesteps=False)
        return model.policy.state_dict(), type(model.rollout_buffer).__name__

    (one, name), (two, _) = run(48, 24), run(48, 24)
    assert name == "LiveRolloutBuffer"
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_masks_reach_maskable_ppo():
    env = shared(masks=True)  # in step t action 1 + t % 2 is not available, which the environment refuses
    model = MaskablePPO("MlpPolicy", env, seed=0, **SMALL)
    model.learn(96, callback=SharedPolicyDM2(None))
    assert env.action_masks().shape == (4, 3)
    policy = SharedPolicy(model, env)
    assert set(dm2.evaluate(policy, venv(2, masks=True), 4, seed=0)) >= {"return", "win_rate"}


def test_actions_are_sampled_unless_the_most_likely_ones_are_asked_for():
    env = shared()
    model = PPO("MlpPolicy", env, seed=0, **SMALL)
    joint = dm2.vectorize(lambda: TinyEnv(sizes=(4, 3)), 40)
    observations, infos = joint.reset(seed=0)
    same = np.repeat(observations[:1], 40, axis=0)
    assert len(np.unique(SharedPolicy(model, env)(same, infos)[:, 0])) > 1
    assert len(np.unique(SharedPolicy(model, env, deterministic=True)(same, infos)[:, 0])) == 1


def test_agents_with_fewer_actions_have_masks_for_the_rest():
    env = SharedPolicyVecEnv(dm2.vectorize(lambda: TinyEnv(sizes=(4, 3), actions=(4, 2), masks=True), 2))
    assert env.action_space.n == 4
    env.reset()
    assert not env.action_masks()[1::2, 2:].any()
    MaskablePPO("MlpPolicy", env, seed=0, **SMALL).learn(48, callback=SharedPolicyDM2(None))
    env.reset()
    with pytest.raises(ValueError, match="has only 2 of its 4 actions, but was given the action 3: use MaskablePPO"):
        env.step(np.array([3, 1, 3, 3]))
    env.step(np.array([3, 1, 3, 1]))


def test_continuous_actions_reach_their_agents():
    env = SharedPolicyVecEnv(dm2.vectorize(lambda: TinyEnv(sizes=(4, 3), actions=2, continuous=True), 2))
    env.reset()
    actions = np.arange(8, dtype=np.float32).reshape(4, 2) / 10
    _, rewards, _, _ = env.step(actions)
    np.testing.assert_allclose(rewards, np.repeat([actions[:2].sum(), actions[2:].sum()], 2), rtol=1e-6)
    with pytest.raises(ValueError, match=r"their action spaces must be equal.*use IndependentLearners"):
        SharedPolicyVecEnv(dm2.vectorize(lambda: TinyEnv(sizes=(4, 3), actions=(2, 1), continuous=True), 2))


def test_the_policy_of_dicts_is_that_of_arrays():
    env = shared(masks=True)
    model = MaskablePPO("MlpPolicy", env, seed=0, **SMALL)
    policy = SharedPolicy(model, env, deterministic=True)
    single, joint = TinyEnv(sizes=(4, 3), masks=True), dm2.vectorize(lambda: TinyEnv(sizes=(4, 3), masks=True), 1)
    observations, _ = single.reset(seed=1)
    arrays, infos = joint.reset(seed=1)
    assert list(policy.act(observations).values()) == policy(arrays, infos)[0].tolist()
    assert policy.act({"agent_1": observations["agent_1"]}) == {"agent_1": policy(arrays, infos)[0][1]}


def test_sb3s_own_wrappers_go_around_it():
    env = VecNormalize(VecMonitor(shared()), norm_reward=False)
    model = PPO("MlpPolicy", env, seed=0, **SMALL)
    model.learn(48, callback=SharedPolicyDM2(matcher(), coefficient=0.5))
    assert model.ep_info_buffer
    policy = SharedPolicy(model, env.venv.venv, deterministic=True)
    observations, infos = venv(2).reset(seed=0)
    rows = env.normalize_obs(env.venv.venv.rows(observations))
    expected, _ = model.predict(rows, deterministic=True)
    assert policy(observations, infos).reshape(-1).tolist() == expected.tolist()


def test_online_through_the_vector_wrapper():
    env = SharedPolicyVecEnv(dm2.DM2VectorEnv(venv(2), matcher(), coefficient=0.5, update_every=12))
    model = PPO("MlpPolicy", env, seed=0, **SMALL)
    model.learn(48, callback=SharedPolicyDM2(None))
    assert env.vector_env.metrics["trained"] == 1.0
    with pytest.raises(ValueError, match="paid twice"):
        model.learn(48, callback=SharedPolicyDM2(matcher(), coefficient=0.5))


def test_mistakes_are_one_sentence():
    with pytest.raises(ValueError, match="needs a coefficient"):
        SharedPolicyDM2(matcher())
    with pytest.raises(TypeError, match="needs an algorithm on a SharedPolicyVecEnv, got DummyVecEnv"):
        PPO("MlpPolicy", "CartPole-v1", device="cpu").learn(1, callback=SharedPolicyDM2(None))
    with pytest.raises(ValueError, match="which DQN does not have: wrap the vector environment in DM2VectorEnv"):
        DQN("MlpPolicy", shared(), device="cpu").learn(1, callback=SharedPolicyDM2(matcher(), coefficient=1.0))
    other = dm2.DistributionMatcher(demonstrations(sizes=(4, 4), lifetimes=(None, 3)))
    with pytest.raises(ValueError, match="3 observation features in the environment, but 4"):
        PPO("MlpPolicy", shared(), **SMALL).learn(1, callback=SharedPolicyDM2(other, coefficient=1.0))
    with pytest.raises(TypeError, match="got SB3's SharedPolicyVecEnv"):
        IndependentLearners(PPO, shared())
    with pytest.raises(AttributeError, match="have no attribute 'limit'"):
        shared().get_attr("limit")
    recurrent = RecurrentPPO("MlpLstmPolicy", shared(), device="cpu", n_steps=6, batch_size=12)
    with pytest.raises(ValueError, match="keeps no recurrent states"):
        SharedPolicy(recurrent, recurrent.get_env())
    with pytest.raises(TypeError, match="env must be the SharedPolicyVecEnv on which the model learned, got <"):
        SharedPolicy(PPO("MlpPolicy", shared(), **SMALL), TinyEnv())


def test_a_run_with_a_schedule_is_continued_from_its_state(tmp_path):
    def begin(model=None):
        schedule = dm2.schedules.LinearFall(1.0, steps=96)
        callback = SharedPolicyDM2(matcher(), coefficient=schedule)
        return callback, PPO("MlpPolicy", shared(), seed=0, **SMALL) if model is None else model

    whole, model = begin()
    model.learn(8 * 24, callback=whole)
    first, model = begin()
    model.learn(4 * 24, callback=first)
    torch.save(first.state_dict(), tmp_path / "dm2.pt")
    later, _ = begin(model)
    later.load_state_dict(torch.load(tmp_path / "dm2.pt", weights_only=True))
    assert later.current_coefficient == first.current_coefficient == {"agent_0": 0.5, "agent_1": 0.5}
    model.learn(4 * 24, callback=later, reset_num_timesteps=False)
    assert later.current_coefficient == whole.current_coefficient == {"agent_0": 0.0, "agent_1": 0.0}


def test_a_state_of_another_callback_is_refused():
    callback = SharedPolicyDM2(matcher(), coefficient=dm2.schedules.LinearFall(1.0, steps=96))
    state = callback.state_dict()
    assert SharedPolicyDM2(None).state_dict() == {"matcher": None, "schedule": None}
    for other, wrong, message in (
        (SharedPolicyDM2(None), state, "it has a matcher and this callback has none"),
        (callback, {"matcher": None, "schedule": None}, "this callback has a matcher and it has none"),
        (callback, matcher().state_dict(), "expected what state_dict\\(\\) of SharedPolicyDM2 returned"),
        (SharedPolicyDM2(matcher(), coefficient=dm2.schedules.ReturnGap(1.0)), state, "saved with the schedule LinearFall"),
    ):
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(wrong)


def test_the_factor_on_the_environments_reward_is_the_callbacks_alone():
    env = shared(limit=50)
    half, _ = trained_buffer(env, SharedPolicyDM2(None, env_coefficient=0.5))
    paid = half.rewards.copy()
    env = shared(limit=50)
    buffer, model = trained_buffer(env, SharedPolicyDM2(None))
    np.testing.assert_allclose(paid, 0.5 * buffer.rewards)
    assert buffer.rewards.any()
    model.learn(24, callback=SharedPolicyDM2(None, env_coefficient=0))
    assert not model.rollout_buffer.rewards.any()
    assert model.rollout_buffer.env_rewards.any()
    model.learn(24)
    assert model.rollout_buffer.rewards.any()  # without the callback the environment pays again
    env = VecNormalize(shared(limit=50), norm_obs=False)
    normalized, _ = trained_buffer(env, SharedPolicyDM2(None, env_coefficient=0.5))
    env = VecNormalize(shared(limit=50), norm_obs=False)
    other, _ = trained_buffer(env, SharedPolicyDM2(None))
    np.testing.assert_allclose(normalized.rewards, 0.5 * other.rewards, rtol=1e-6)


def test_after_death_is_checked_when_it_is_assigned():
    callback = SharedPolicyDM2(None)
    with pytest.raises(ValueError, match="after_death must be one of 'earned', 'mean', 'critic', got 'nonsense'"):
        callback.after_death = "nonsense"
    callback.after_death = "mean"
    buffer, _ = trained_buffer(shared(), callback)
    assert buffer.after_death == "mean"
