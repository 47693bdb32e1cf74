"""A wrapped environment is still an environment, and nothing of the inner one's own is changed."""

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

import dm2_wrappers as dm2
from tests.helpers.tiny_envs import ShapedEnv, StateEnv, TinyEnv
from tests.helpers.wrapped import OPTIONS, KeepingEnv, demonstrations, matcher, play, zeros


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


def test_agents_keep_their_places_whatever_the_environment_lists_later():
    class Turning(TinyEnv):
        def reset(self, seed=None, options=None):
            self.possible_agents = self.possible_agents[::-1]
            return super().reset(seed, options)

        def step(self, actions):
            observations, rewards, *rest = super().step(actions)
            return observations, {agent: float(agent == "agent_0") for agent in rewards}, *rest

    env = dm2.DM2ParallelEnv(Turning(**OPTIONS), matcher(), coefficient=0.0)
    for _ in range(2):
        env.reset()
        assert env.step({"agent_0": 0, "agent_1": 0})[1] == {"agent_0": 1.0, "agent_1": 0.0}
        assert env.possible_agents == ["agent_0", "agent_1"]
    leaving = dm2.DM2ParallelEnv(Turning(**{**OPTIONS, "lifetimes": (None, 1)}), matcher(), coefficient=0.0)
    leaving.reset(seed=0)
    leaving.step({"agent_0": 0, "agent_1": 0})
    assert leaving.agents == ["agent_0"]


def test_an_environment_whose_agents_are_others_after_reset():
    class Growing(TinyEnv):
        def reset(self, seed=None, options=None):
            results = super().reset(seed, options)
            self.possible_agents = [*self.possible_agents, "agent_2"]
            return results

    class Renaming(TinyEnv):
        def reset(self, seed=None, options=None):
            results = super().reset(seed, options)
            self.possible_agents = ["agent_0", "agent_2"]
            return results

    class Doubling(TinyEnv):
        def reset(self, seed=None, options=None):
            results = super().reset(seed, options)
            self.possible_agents = ["agent_0", "agent_1", "agent_1"]
            return results

    for kind in (Growing, Renaming, Doubling):
        env = dm2.DM2ParallelEnv(kind(**OPTIONS), matcher(), coefficient=0.0)
        with pytest.raises(ValueError, match=r"possible_agents \['agent_0', 'agent_1'\] when it was wrapped, and"):
            env.reset()


def test_a_missing_action_is_one_sentence_where_actions_are_needed():
    demos = dm2.Demonstrations.record(TinyEnv(**OPTIONS), lambda seen: dict.fromkeys(seen, 1), 2, seed=0)
    env = dm2.DM2ParallelEnv(
        TinyEnv(**OPTIONS), dm2.DistributionMatcher(demos, inputs="state-action", seed=0), coefficient=0.3
    )
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"step\(\) was given no action for agent 'agent_1', only for \['agent_0'\]"):
        env.step({"agent_0": 1})


def test_the_environments_own_rewards_are_kept_beside_those_of_a_wrapper_that_shapes_them():
    env = dm2.DM2ParallelEnv(ShapedEnv(**OPTIONS), matcher(), coefficient=0.0)
    assert set(env.reset(seed=0)[1]["agent_0"]) == {"env_reward", "gail_reward"}
    _, rewards, _, _, infos = env.step({"agent_0": 1, "agent_1": 1})
    assert rewards == {"agent_0": 10.0, "agent_1": 10.0}
    assert [infos["agent_0"][name] for name in ("own_reward", "env_reward")] == [1.0, 10.0]
    venv = dm2.DM2VectorEnv(dm2.vectorize(lambda: ShapedEnv(**OPTIONS), 2), matcher(), coefficient=0.0)
    venv.reset(seed=0)
    infos = venv.step(np.ones((2, 2), int))[4]
    assert (infos["own_reward"] == 1).all()
    assert (infos["env_reward"] == 10).all()
    assert "own_reward" not in dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=0.0).reset(seed=0)[1]["agent_0"]


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


class JoiningEnv(TinyEnv):
    """agent_1 joins with the second step, without a reward; until then ``told`` is its entry in infos."""

    def __init__(self, told=None, **options):
        super().__init__(**options)
        self.told = told

    def _without(self, infos):
        self.agents.remove("agent_1")
        del infos["agent_1"]
        infos.update({} if self.told is None else {"agent_1": self.told})

    def reset(self, seed=None, options=None):
        observations, infos = super().reset(seed, options)
        self._without(infos)
        return {"agent_0": observations["agent_0"]}, infos

    def step(self, actions):
        if self.t > 1:
            return super().step(actions)
        self.agents = list(self.possible_agents)
        observations, *parts, infos = super().step({**actions, "agent_1": 0})
        results = [{"agent_0": each["agent_0"]} for each in parts]
        if self.t == 1:
            del observations["agent_1"]
            self._without(infos)
        return observations, *results, infos


@pytest.mark.parametrize("told", [None, {}, {"alive": False}, "nothing"])
def test_infos_of_an_agent_that_joins_have_both_rewards_too(told):
    env = dm2.DM2ParallelEnv(JoiningEnv(told, **OPTIONS), matcher(), coefficient=0.3, env_coefficient=2.0)
    _, before = env.reset(seed=0)
    _, rewards, *_, still = env.step({"agent_0": 1})
    for infos in (before, still):  # of the absent agent the environment's own, with both rewards where it is a dict
        expected = {**told, "env_reward": 0, "gail_reward": 0} if isinstance(told, dict) else told
        assert infos.get("agent_1") == expected
    _, rewards, *_, infos = env.step({"agent_0": 2})
    assert env.agents == ["agent_0", "agent_1"]
    assert list(rewards) == ["agent_0"]
    assert infos["agent_0"]["env_reward"] == 2
    assert rewards["agent_0"] == pytest.approx(2 * 2 + 0.3 * infos["agent_0"]["gail_reward"])
    assert infos["agent_1"] == {"env_reward": 0, "gail_reward": 0}
    _, rewards, *_, infos = env.step({"agent_0": 2, "agent_1": 1})
    assert infos["agent_1"]["env_reward"] == 3
    assert infos["agent_1"]["gail_reward"] != 0
    assert rewards["agent_1"] == pytest.approx(2 * 3 + 0.3 * infos["agent_1"]["gail_reward"])


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


class Heard(dm2.schedules.Schedule):
    """Keeps what it is told."""

    def __init__(self):
        self.progress = []

    def coefficient(self):
        return 0.5

    def update(self, progress):
        self.progress.append(progress)


@pytest.mark.parametrize("kind", ["parallel", "vector"])
def test_returns_are_the_environments_own_where_a_wrapper_shapes_rewards(kind):
    """A schedule is told these, and own episodes are chosen by them; the moments are those of what is paid."""
    imitation = dm2.SelfImitation(env=ShapedEnv(**OPTIONS), above_mean=False)
    learning = dm2.DistributionMatcher(imitation, updates=2, batch_size=8, seed=0)
    options = {"coefficient": Heard(), "env_coefficient": 2.0}
    if kind == "parallel":
        env = dm2.DM2ParallelEnv(ShapedEnv(**OPTIONS), learning, **options)
    else:
        env = dm2.DM2VectorEnv(dm2.vectorize(lambda: ShapedEnv(**OPTIONS), 1), learning, **options)
    play(env, 5)
    env.update()
    (progress,) = options["coefficient"].progress
    assert progress.returns.tolist() == [5.0]
    assert imitation.returns == [5.0]
    assert progress.env_mean.tolist() == [20.0, 20.0]


def test_an_agent_that_joins_without_an_info_has_both_rewards_too():
    class Silent(JoiningEnv):
        def step(self, actions):
            *results, infos = super().step(actions)
            infos.pop("agent_1", None)
            return *results, infos

    env = dm2.DM2ParallelEnv(Silent(**OPTIONS), matcher(), coefficient=0.3)
    env.reset(seed=0)
    env.step({"agent_0": 1})
    infos = env.step({"agent_0": 1})[4]
    assert env.agents == ["agent_0", "agent_1"]
    assert infos["agent_1"] == {"env_reward": 0, "gail_reward": 0}


def test_agents_that_have_ended_do_not_act_even_if_the_environment_still_lists_them():
    class Listing(TinyEnv):
        def step(self, actions):
            results = super().step({agent: actions.get(agent, 0) for agent in self.agents})
            self.agents = list(self.possible_agents)
            return results

    env = dm2.DM2ParallelEnv(Listing(**OPTIONS, lifetimes=(1, None)), matcher(), coefficient=0.3)
    env.reset(seed=0)
    env.step(zeros(env))
    assert env.agents == ["agent_1"]
