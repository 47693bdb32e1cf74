import copy
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

import dm2_wrappers as dm2
from tests.helpers.tiny_envs import StateEnv, TinyEnv

OPTIONS = {"sizes": (4, 3), "limit": 5}


def demonstrations(**options):
    env = TinyEnv(**{**OPTIONS, **options})
    rng = np.random.default_rng(0)
    spaces = {agent: env.action_space(agent) for agent in env.possible_agents}

    def policy(observations):
        if env.continuous:
            return {a: spaces[a].sample() for a in observations}
        return {a: spaces[a].start + int(rng.integers(spaces[a].n)) for a in observations}

    return dm2.Demonstrations.record(env, policy, 6, seed=5)


def matcher(demos=None, **options):
    options = {"updates": 2, "batch_size": 8, "seed": 0, **options}
    return dm2.DistributionMatcher(demos or demonstrations(), **options)


def zeros(env):
    return dict.fromkeys(env.agents, 0)


def flat(observation):
    return observation["observation"] if isinstance(observation, dict) else observation


@pytest.mark.parametrize("masks", [False, True])
def test_the_reward_is_env_plus_c_times_gail_of_the_observation_before_the_action(masks):
    demos = demonstrations(masks=masks)
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS, masks=masks), matcher(demos), coefficient=0.3)
    twin = TinyEnv(**OPTIONS, masks=masks)
    observations, infos = env.reset(seed=1)
    twin.reset(seed=1)
    for _ in range(3):
        actions = zeros(env)
        gail = env.matcher.rewards({a: flat(o) for a, o in observations.items()})
        observations, rewards, _, _, infos = env.step(actions)
        env_rewards = twin.step(actions)[1]
        for agent in env.possible_agents:
            assert rewards[agent] == pytest.approx(env_rewards[agent] + 0.3 * gail[agent], rel=1e-5)
            assert infos[agent]["env_reward"] == env_rewards[agent]
            assert infos[agent]["gail_reward"] == pytest.approx(gail[agent], rel=1e-5)


def test_each_agent_may_have_a_coefficient_of_its_own():
    own = {"agent_0": 0.0, "agent_1": 2.0}
    single = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=own)
    single.reset(seed=0)
    _, rewards, _, _, infos = single.step({"agent_0": 0, "agent_1": 1})
    assert infos["agent_1"]["gail_reward"] != 0.0
    for agent, c in own.items():
        assert rewards[agent] == pytest.approx(infos[agent]["env_reward"] + c * infos[agent]["gail_reward"])
    batched = dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(**OPTIONS), 1), matcher(), coefficient=own)
    batched.reset(seed=0)
    np.testing.assert_allclose(batched.step(np.array([[0, 1]]))[1][0], [rewards["agent_0"], rewards["agent_1"]], rtol=1e-6)


def test_env_coefficient_zero_is_gail_alone():
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=2.0, env_coefficient=0.0)
    env.reset(seed=1)
    _, rewards, _, _, infos = env.step({"agent_0": 2, "agent_1": 1})
    assert rewards["agent_0"] == pytest.approx(2 * infos["agent_0"]["gail_reward"])
    assert infos["agent_0"]["env_reward"] == 3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"masks": True},
        {"lifetimes": (2, None)},
        {"lifetimes": (2, None), "absorb": True},
        {"sizes": (2,)},
        {"sizes": (3,) * 27},
        {"continuous": True},
    ],
)
def test_it_is_still_a_parallel_env(options):
    demos = demonstrations(**options)
    make = lambda: dm2.DM2ParallelEnv(TinyEnv(**{**OPTIONS, **options}), matcher(demos), coefficient=0.3)  # noqa: E731
    parallel_api_test(make(), num_cycles=50)
    if not options:
        parallel_seed_test(make, num_cycles=20)


def recording(env):
    """Everything that ``record`` gets, as a list that grows."""
    heard = []
    record = env.matcher.record
    env.matcher.record = lambda obs, alive, broken=None: (
        heard.append((obs, alive, broken)) or record(obs, alive, broken=broken)
    )
    return heard


def test_update_trains_on_what_was_seen_before_the_actions_and_not_on_last_observations():
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=0.3)
    heard = recording(env)
    for _ in range(2):
        env.reset(seed=0)
        while env.agents:
            env.step(zeros(env))
    metrics = env.update()
    assert metrics["trained"] == 1.0
    assert metrics["transitions"] == 2 * 5 * 2
    ((observations, alive, _),) = heard
    assert observations[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4] * 2
    assert alive.all()
    assert env.update()["trained"] == 0.0


def test_the_dead_and_the_gone_are_neither_recorded_nor_paid():
    for absorb in (True, False):
        options = {**OPTIONS, "lifetimes": (2, None), "absorb": absorb}
        env = dm2.DM2ParallelEnv(TinyEnv(**options), matcher(demonstrations(**options)), coefficient=1.0)
        heard = recording(env)
        env.reset(seed=0)
        paid = []
        while env.agents:
            infos = env.step(zeros(env))[4]
            paid.append(infos.get("agent_0", {}).get("gail_reward", 0.0) != 0.0)
        env.update()
        assert heard[0][1][:, 0, 0].tolist() == [True, True, False, False, False]
        assert paid == [True, True, False, False, False]


def test_a_broken_episode_is_forgotten_whole():
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS, broken=(1,)), matcher(), coefficient=1.0)
    for _ in range(2):
        env.reset(seed=0)
        while env.agents:
            env.step(zeros(env))
    assert env.update()["transitions"] == 5 * 2


def test_update_every_counts_joint_steps_and_training_false_records_nothing():
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=1.0, update_every=4)
    updates = []
    env.matcher.update = lambda: updates.append(steps) or {}
    steps = 0
    for episode in range(4):
        env.training = episode != 1
        env.reset(seed=0)
        while env.agents:
            steps += 1
            env.step(zeros(env))
    assert updates == [4, 13, 17]


def test_batched_wrapper_pays_what_single_ones_pay():
    demos, n = demonstrations(), 3
    venv = dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(**OPTIONS), n), matcher(demos), coefficient=0.3)
    singles = [dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(demos), coefficient=0.3) for _ in range(n)]
    venv.reset(seed=4)
    for i, env in enumerate(singles):
        env.reset(seed=4 + i)
    rng = np.random.default_rng(0)
    for _ in range(12):
        actions = rng.integers(0, 3, (n, 2))
        _, rewards, _, _, infos = venv.step(actions)
        for i, env in enumerate(singles):
            single = env.step(dict(zip(env.possible_agents, actions[i].tolist(), strict=True)))
            np.testing.assert_allclose(rewards[i], list(single[1].values()), rtol=1e-5)
            assert infos["env_reward"][i, 0] == single[4]["agent_0"]["env_reward"]
            if not env.agents:
                env.reset()
    assert venv.update()["transitions"] == 12 * n * 2
    assert sum(env.update()["transitions"] for env in singles) == 12 * n * 2


def test_batched_update_every_counts_steps_of_all_copies():
    venv = dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(**OPTIONS), 3), matcher(), coefficient=0.3, update_every=6)
    venv.reset(seed=0)
    for _ in range(4):
        venv.step(np.zeros((3, 2), int))
    assert venv.metrics["transitions"] == 12


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "much"])
def test_coefficients_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match="coefficient must be a finite number of at least 0"):
        dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=value)


def test_misfits_are_refused():
    demos = demonstrations()
    with pytest.raises(ValueError, match="features"):
        dm2.DM2ParallelEnv(TinyEnv(sizes=(4, 9)), demos, coefficient=0.3)
    with pytest.raises(ValueError, match="agents"):
        dm2.DM2ParallelEnv(TinyEnv(sizes=(4, 3, 3)), demos, coefficient=0.3)
    with pytest.raises(ValueError, match="agents"):
        dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(sizes=(4,)), 2), demos, coefficient=0.3)
    with pytest.raises(TypeError, match=r"Demonstrations\.load"):
        dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), "demos.npz", coefficient=0.3)
    with pytest.raises(ValueError, match="update_every"):
        dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), demos, coefficient=0.3, update_every=0)


def test_another_scenario_is_refused():
    env = TinyEnv(**OPTIONS)
    env.metadata = {"name": "other"}
    with pytest.raises(ValueError, match="recorded on 'tiny'"):
        dm2.DM2ParallelEnv(env, demonstrations(), coefficient=0.3)


@pytest.mark.parametrize(("sick", "message"), [("reward", "reward nan for agent"), ("observation", "agent_1")])
def test_nan_in_an_observation_or_reward_is_one_sentence(sick, message):
    class Sick(TinyEnv):
        def step(self, actions):
            observations, rewards, *rest = super().step(actions)
            if sick == "reward":
                rewards = dict.fromkeys(rewards, float("nan"))
            else:
                observations["agent_1"][2] = np.nan
            return observations, rewards, *rest

    def two_steps():
        for _ in range(2):
            env.step(zeros(env))

    env = dm2.DM2ParallelEnv(Sick(**OPTIONS), matcher(), coefficient=0.3)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        two_steps()


def test_copies_are_refused_and_told_what_to_do():
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=0.3)
    for duplicate in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="share the one matcher"):
            duplicate(env)


def test_supersuits_vectoriser_is_told_what_to_do():
    supersuit = pytest.importorskip("supersuit")
    demos = demonstrations(sizes=(4, 4))
    env = dm2.DM2ParallelEnv(TinyEnv(sizes=(4, 4), limit=5), matcher(demos), coefficient=0.3)
    venv = supersuit.pettingzoo_env_to_vec_env_v1(env)  # where most of its users begin
    with pytest.raises(TypeError, match="DM2VectorEnv"):
        supersuit.concat_vec_envs_v1(venv, 2, base_class="gymnasium")


def test_vectorize_refuses_a_wrapped_environment():
    with pytest.raises((TypeError, ValueError), match="DM2VectorEnv"):
        dm2.vectorize(lambda: dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=0.3), 2)


def test_demonstrations_recorded_on_a_wrapped_environment_hold_its_own_rewards():
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=5.0)
    env.training = False
    demos = dm2.Demonstrations.record(env, lambda observations: dict.fromkeys(observations, 1), 2, seed=0)
    assert demos.mean_return == 5 * 2


def test_a_reset_in_mid_episode_does_not_hand_its_steps_to_the_next_episodes_fate():
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS, broken=(1,)), matcher(), coefficient=1.0)
    env.reset(seed=0)
    env.step({"agent_0": 0, "agent_1": 0})
    env.reset()
    while env.agents:
        env.step(dict.fromkeys(env.agents, 0))
    assert env.update()["transitions"] == 2.0  # the first episode's one step, of two agents


@pytest.mark.filterwarnings("ignore:the discriminators have not been trained")
def test_without_updates_memory_stays_bounded():
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(buffer_size=16), coefficient=1.0)
    for _ in range(20):
        env.reset()
        while env.agents:
            env.step(dict.fromkeys(env.agents, 0))
        assert len(env.__dict__["_pending"]) < 16
    assert env.update()["transitions"] > 16


# --- the vector wrapper's numbers -------------------------------------------------------------------------------------


def test_batched_rewards_and_recorded_steps_by_hand():
    """The factor on the environment's reward, observations before the action, broken episodes, and whose end it is."""
    options = {"sizes": (4, 3), "limit": 4, "lifetimes": (2, None), "broken": (1,)}
    demos = demonstrations(sizes=(4, 3), limit=4)
    venv = dm2.DM2VectorEnv(
        dm2.vectorize(lambda: TinyEnv(**options), 2), matcher(demos), coefficient=0.5, env_coefficient=3.0
    )
    heard = recording(venv)
    venv.reset(seed=0)
    for t in range(8):  # agent_0 leaves after two of four steps; the second episode breaks
        actions = np.full((2, 2), 1)
        _, rewards, _, _, infos = venv.step(actions)
        present = [True, True] if t % 4 < 2 else [False, True]
        env_reward = np.where(present, float(sum(present)), 0.0)
        np.testing.assert_array_equal(infos["env_reward"], [env_reward] * 2)
        assert ((infos["gail_reward"] != 0) == present).all()
        np.testing.assert_allclose(rewards, 3.0 * infos["env_reward"] + 0.5 * infos["gail_reward"], rtol=1e-6)
    metrics = venv.update()
    ((observations, alive, broken),) = heard
    assert observations[:, 0, 1, 0].tolist() == [0, 1, 2, 3] * 2  # the time before each action
    assert alive[:, 0, 0].tolist() == [True, True, False, False] * 2
    assert broken.tolist() == [[False, False]] * 4 + [[True, True]] * 4  # all of an episode, not up to the first death
    assert metrics["transitions"] == 2 * (2 + 4)


# --- what is the environment's own ------------------------------------------------------------------------------------


class KeepingEnv(TinyEnv):
    """Returns the same dicts at every step, as some environments do."""

    def __init__(self, **options):
        super().__init__(**options)
        self.kept = tuple({} for _ in range(5))
        self.own_infos = {agent: {} for agent in self.possible_agents}

    def reset(self, seed=None, options=None):
        observations, _ = super().reset(seed, options)
        return observations, self.own_infos

    def step(self, actions):
        for own, new in zip(self.kept[:4], super().step(actions)[:4], strict=True):
            own.clear()
            own.update(new)
        return *self.kept[:4], self.own_infos


def test_nothing_of_the_environments_own_is_changed():
    inner = KeepingEnv(**OPTIONS)
    env = dm2.DM2ParallelEnv(inner, matcher(), coefficient=0.3)
    for reset in (True, False, False):
        if reset:
            env.reset(seed=0)
            continue
        rewards = env.step({"agent_0": 1, "agent_1": 1})[1]
        assert inner.kept[1] == {"agent_0": 2.0, "agent_1": 2.0} != rewards
        assert inner.own_infos == {"agent_0": {}, "agent_1": {}}
        assert set(vars(inner)) == set(vars(KeepingEnv(**OPTIONS))) | {"t", "limit", "dead", "last"}


def test_a_vector_environments_arrays_are_not_changed():
    inner = dm2.vectorize(lambda: TinyEnv(**OPTIONS), 2)
    given = []
    step = inner.step
    inner.step = lambda actions: given.append(step(actions)) or given[-1]
    venv = dm2.DM2VectorEnv(inner, matcher(), coefficient=0.3)
    venv.reset(seed=0)
    actions = np.ones((2, 2), int)
    rewards = venv.step(actions)[1]
    assert given[0][1].tolist() == [[2, 2], [2, 2]] != rewards.tolist()
    assert "env_reward" not in given[0][4]
    assert actions.tolist() == [[1, 1], [1, 1]]


# --- natural mistakes -------------------------------------------------------------------------------------------------


def test_wrapping_twice_is_refused():
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=0.3)
    venv = dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(**OPTIONS), 1), matcher(), coefficient=0.3)
    for again in (
        lambda: dm2.DM2ParallelEnv(env, matcher(), coefficient=0.3),
        lambda: type(venv)(venv, matcher(), coefficient=1),
    ):
        with pytest.raises(ValueError, match=r"already has a DM2 wrapper: r_gail would be paid twice; wrap .* once"):
            again()


def test_an_attribute_called_matcher_is_not_a_dm2_wrapper():
    env = TinyEnv(**OPTIONS)
    env.matcher = "a regular expression"
    dm2.DM2ParallelEnv(env, matcher(), coefficient=0.3)


@pytest.mark.parametrize("path", ["demos.npz", Path("demos.npz")])
def test_a_path_where_demonstrations_are_wanted(path):
    venv = dm2.vectorize(lambda: TinyEnv(**OPTIONS), 1)
    for wrap in (
        lambda: dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), path, coefficient=0.3),
        lambda: dm2.DM2VectorEnv(venv, path, coefficient=0.3),
    ):
        with pytest.raises(
            TypeError, match=r"expected Demonstrations or a DistributionMatcher, got .*Demonstrations\.load\(path\)"
        ):
            wrap()


def play(env, steps):
    env.reset(seed=0)
    for _ in range(steps):
        if isinstance(env, dm2.DM2VectorEnv):
            env.step(np.zeros((env.num_envs, 2), int))
        else:
            env.step(zeros(env))
            if not env.agents:
                env.reset()


@pytest.mark.parametrize("kind", ["parallel", "vector"])
def test_one_warning_if_update_is_never_called(kind):
    def make(**options):
        small = matcher(buffer_size=12)
        if kind == "parallel":
            return dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), small, coefficient=0.3, **options)
        return dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(**OPTIONS), 2), small, coefficient=0.3, **options)

    env, per_step = make(), 1 if kind == "parallel" else 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(env, 12 // per_step - 1)
        updated = make()
        play(updated, 2)
        updated.update()
        play(updated, 30)
        play(make(update_every=20), 30)
        resting = make()
        resting.training = False
        play(resting, 30)
    with pytest.warns(UserWarning, match=r"not been trained in the first 12 steps: call update\(\)") as caught:
        play(env, 30)
    assert len(caught) == 1


# --- what other libraries look for ------------------------------------------------------------------------------------


def test_spaces_state_and_agents_as_other_libraries_want_them():
    demos = dm2.Demonstrations.record(StateEnv(), lambda seen: dict.fromkeys(seen, 0), 1)
    inner = StateEnv(lifetimes=(2, None))
    env = dm2.DM2ParallelEnv(inner, demos, coefficient=0.3)
    assert env.observation_spaces == {agent: inner.observation_space(agent) for agent in inner.possible_agents}
    assert env.action_spaces == {agent: inner.action_space(agent) for agent in inner.possible_agents}
    env.reset(seed=0)
    assert env.agents == ["agent_0", "agent_1"]
    env.step(zeros(env))
    assert env.state().tolist() == [0, 1]
    env.step(zeros(env))
    assert env.agents == ["agent_1"]
    assert (env.num_agents, env.max_num_agents) == (1, 2)


@pytest.mark.parametrize("masks", [False, True])
def test_infos_have_the_same_keys_at_reset_and_after_each_step(masks):
    options = {**OPTIONS, "masks": masks, "absorb": True, "lifetimes": (2, None)}
    env = dm2.DM2ParallelEnv(TinyEnv(**options), matcher(demonstrations(masks=masks)), coefficient=0.3)
    _, infos = env.reset(seed=0)
    keys = {agent: set(info) for agent, info in infos.items()}
    assert keys["agent_0"] == {"alive", "env_reward", "gail_reward"}
    while env.agents:
        infos = env.step(zeros(env))[4]
        assert {agent: set(info) for agent, info in infos.items()} == keys
    venv = dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(**options), 2), env.matcher, coefficient=0.3)
    at_reset = set(venv.reset(seed=0)[1])
    after = [set(venv.step(np.zeros((2, 2), int))[4]) for _ in range(6)]
    assert all(keys == after[0] >= at_reset for keys in after)


def test_a_reward_that_is_not_finite_names_agent_and_sub_environment():
    class Sick(dm2.MultiAgentVectorWrapper):
        def step(self, actions):
            observations, rewards, *rest = super().step(actions)
            rewards = rewards.copy()
            rewards[1, 0], rewards[2, 1] = np.nan, np.inf
            return observations, rewards, *rest

    env = dm2.DM2VectorEnv(Sick(dm2.vectorize(lambda: TinyEnv(**OPTIONS), 3)), matcher(), coefficient=1.0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"agent 'agent_0' in sub-environment 1 got nan"):
        env.step(np.zeros((3, 2), np.int64))


@pytest.mark.parametrize("options", [{"start": 2}, {"continuous": True, "actions": (2, 1)}])
def test_parallel_and_vector_pay_equally_for_actions(options):
    demos = demonstrations(**options)
    single = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS, **options), matcher(demos, inputs="state-action"), coefficient=1.0)
    batched = dm2.vectorize(lambda: TinyEnv(**OPTIONS, **options), 1)
    batched = dm2.DM2VectorEnv(batched, matcher(demos, inputs="state-action"), coefficient=1.0)
    single.reset(seed=3)
    batched.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(4):
        if "start" in options:
            joint = rng.integers(3, size=(1, 2))
            actions = {agent: 2 + int(joint[0, k]) for k, agent in enumerate(single.agents)}
        else:
            joint = rng.uniform(-1, 1, (1, 2, 2)).astype(np.float32)
            actions = {"agent_0": joint[0, 0].copy(), "agent_1": joint[0, 1, :1].copy()}
            joint[0, 1, 1] = 0  # padding
        infos, arrays = single.step(actions)[4], batched.step(joint)[4]
        paid = [infos[agent]["gail_reward"] for agent in single.possible_agents]
        np.testing.assert_allclose(arrays["gail_reward"][0], paid, rtol=1e-5)
        assert abs(paid[0]) > 1e-4
    assert single.update() == pytest.approx(batched.update(), rel=1e-4)


@pytest.mark.parametrize("truncates", [False, True])
def test_a_reset_starts_the_clock_of_absorbing_ends_and_the_schedules_returns_anew(truncates):
    demos, told = demonstrations(), []

    class Listening(dm2.schedules.Constant):
        def update(self, progress):
            told.append(progress.returns.tolist())

    def tiny():
        return TinyEnv(**OPTIONS, truncates=truncates)

    def absorbing():
        return matcher(demos, ends="absorbing", max_steps=9, gamma=0.9)

    single = dm2.DM2ParallelEnv(tiny(), absorbing(), coefficient=Listening(0.5))
    batched = dm2.DM2VectorEnv(dm2.vectorize(tiny, 1), absorbing(), coefficient=Listening(0.5))

    def step(env):
        if env is batched:
            return env.step(np.ones((1, 2), np.int64))[4]["gail_reward"][0]
        infos = env.step(dict.fromkeys(env.agents, 1))[4]
        return np.array([infos[agent]["gail_reward"] for agent in env.possible_agents])

    def episode(env, steps):
        env.reset(seed=1)
        return [step(env) for _ in range(steps)]

    paid = []
    for env in (single, batched):
        episode(env, 2)  # unfinished
        paid += [episode(env, 5), episode(env, 5)]
        env.update()
    for each in paid[1:]:
        np.testing.assert_allclose(each, paid[0], rtol=1e-5)
    live = absorbing().rewards(before_the_last_step(["agent_0"], tiny))["agent_0"]
    assert (paid[0][4][0] == pytest.approx(live, rel=1e-5)) == truncates  # a time limit is no absorbing end
    assert told == [[10.0, 10.0]] * 2  # ten points for each agent: the mean over the agents


def before_the_last_step(names, make):
    """What these agents saw before the last step of the episode with seed 1, in which all acted with 1."""
    env = make()
    observations, _ = env.reset(seed=1)
    for _ in range(4):
        observations = env.step(dict.fromkeys(env.agents, 1))[0]
    return {name: observations[name] for name in names}


def paid_for(env, steps, action=1):
    """Mixed rewards of so many joint steps; new episodes as they come."""
    paid = []
    for _ in range(steps):
        if not env.agents:
            env.reset(seed=3)
        _, rewards, *_ = env.step(dict.fromkeys(env.agents, action))
        paid.append(list(rewards.values()))
    return paid


def scheduled(**options):
    schedule = dm2.schedules.LinearFall(0.5, 0.1, steps=40)
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), **{"coefficient": schedule, **options})
    env.reset(seed=3)
    return env


def test_a_wrapper_that_takes_over_a_state_goes_on_as_the_saved_one():
    one = scheduled()
    paid_for(one, 12)
    one.update()
    paid_for(one, 5)  # not handed to the matcher yet
    state = copy.deepcopy(one.state_dict())
    two = scheduled()
    paid_for(two, 3)  # forgotten
    two.load_state_dict(state)
    assert two.current_coefficient == one.current_coefficient != scheduled().current_coefficient
    for env in (one, two):
        env.reset(seed=7)
    assert paid_for(one, 5) == paid_for(two, 5)
    assert one.update() == two.update()
    assert paid_for(one, 10) == paid_for(two, 10)


@pytest.mark.parametrize("state", [None, {}, {"matcher": {}}, "a.pt", [1]])
def test_what_is_no_state_of_a_wrapper_is_refused_and_nothing_is_lost(state):
    one, other = scheduled(), scheduled()
    for env in (one, other):
        paid_for(env, 12)
    with pytest.raises(ValueError, match=r"expected what state_dict\(\) of a DM2 wrapper returned, with the keys"):
        one.load_state_dict(state)
    with pytest.raises(ValueError, match="the saved state of the matcher is damaged: it lacks 'discriminators'"):
        one.load_state_dict({"matcher": {}, "schedule": {}})
    with pytest.raises(ValueError, match=r"expected what state_dict\(\) of a matcher returned, got NoneType"):
        one.matcher.load_state_dict(None)
    assert one.update() == other.update()  # of the same steps


def test_a_state_with_another_schedule_changes_nothing():
    one, two = scheduled(), scheduled(coefficient=dm2.schedules.Constant(0.5))
    paid_for(one, 12)
    one.update()
    before = two.matcher.rewards(np.ones((1, 2, 4), np.float32))
    assert (before != one.matcher.rewards(np.ones((1, 2, 4), np.float32))).any()
    with pytest.raises(ValueError, match="schedule"):
        two.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(two.matcher.rewards(np.ones((1, 2, 4), np.float32)), before)


def test_without_updates_the_matcher_gets_what_was_seen_when_a_buffer_is_full():
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(buffer_size=4), coefficient=0.1)
    handed, record = [], env.matcher.record
    env.matcher.record = lambda observations, *args, **options: (
        handed.append(observations.shape[:2]) or record(observations, *args, **options)
    )
    env.reset(seed=0)
    paid_for(env, 9)
    assert handed == [(4, 1), (4, 1)]
    venv = dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(**OPTIONS), 2), env.matcher, coefficient=0.1)
    handed.clear()
    venv.reset(seed=0)
    for _ in range(4):
        venv.step(np.ones((2, 2), int))
    assert handed == [(2, 2), (2, 2)]  # four steps of the two sub-environments together


def test_the_warning_comes_with_the_step_that_fills_a_buffer_and_names_the_users_line():
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(buffer_size=4), coefficient=0.1)
    env.reset(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paid_for(env, 3)
    with pytest.warns(UserWarning, match="in the first 4 steps: call update") as caught:
        env.step(dict.fromkeys(env.agents, 1))
    assert Path(caught[0].filename).name == "test_wrapper.py"
