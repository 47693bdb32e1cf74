"""DM2PPO as a whole, on RLlib's own rollouts, learners and checkpoints."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch

import dm2_wrappers as dm2
from tests.helpers.line_env import LineEnv, experts, places
from tests.helpers.tiny_envs import TinyEnv
from tests.helpers.tiny_matchers import same

pytest.importorskip("ray.rllib", reason="needs the extra rllib")

from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.algorithms.sac import SACConfig

TINY = {"sizes": (3, 2), "masks": True, "absorb": True, "lifetimes": (None, 3), "random_limit": True}
C = {"agent_0": 0.5, "agent_1": 2.0}


def tiny_demos(**options):
    first_available = lambda observations: {a: int(o["action_mask"].argmax()) for a, o in observations.items()}  # noqa: E731
    return dm2.Demonstrations.record(TinyEnv(**{**TINY, **options}), first_available, 10, seed=0)


def config(base=dm2.rllib.DM2PPOConfig, *, demos=None, batch=48, envs=3, **env_options):
    demos = demos or tiny_demos()
    options = {**TINY, **env_options}
    return (
        base()
        .environment(lambda: TinyEnv(**options))  # a closure
        .env_runners(num_env_runners=0, num_envs_per_env_runner=envs)
        .training(train_batch_size_per_learner=batch, minibatch_size=batch, num_epochs=1)
        .rl_module(model_config={"fcnet_hiddens": [8], "vf_share_layers": False})
        .debugging(seed=0, log_level="ERROR")
        .distribution_matching(
            lambda: dm2.DistributionMatcher(demos, updates=2, batch_size=16, hidden=(8, 8), seed=0),
            coefficient=C,
            env_coefficient=0.25,
        )
    )


@pytest.fixture(scope="module")
def algorithm(ray_session):
    made = config().build_algo()
    yield made
    made.stop()


def spied(algorithm, monkeypatch):
    """What the learners get, and copies of what the env runners had sampled."""
    got, sampled, update = [], [], algorithm._update_learners
    match = algorithm.learner_group.update

    def spy(*args, episodes, **kwargs):
        # Copies, because the learners add a step to each episode.
        got.extend(copy.deepcopy(episodes))
        return update(*args, episodes=episodes, **kwargs)

    def before(*args, episodes, **kwargs):
        sampled.extend(copy.deepcopy(episodes))
        return match(*args, episodes=episodes, **kwargs)

    monkeypatch.setattr(algorithm, "_update_learners", spy)
    monkeypatch.setattr(algorithm.learner_group, "update", before)
    return got, sampled


def test_learners_get_mixed_rewards(algorithm, monkeypatch):
    got, sampled = spied(algorithm, monkeypatch)
    result = algorithm.train()
    steps = 0
    for mixed, made in zip(got, sampled, strict=True):
        actions = {a: piece.get_actions() for a, piece in made.agent_episodes.items()}
        for agent, piece in mixed.agent_episodes.items():
            seen = piece.get_observations(slice(0, len(piece)))["observation"]
            alive = [info["alive"] for info in piece.get_infos(slice(0, len(piece)))]
            steps += sum(alive)
            for t in range(len(piece)):
                # The environment pays the sum of the living agents' actions.
                living = [a for a, p in made.agent_episodes.items() if p.get_infos(t)["alive"]]
                env_reward = sum(int(actions[a][t]) for a in living)
                gail_reward = algorithm.matcher.rewards({agent: seen[t]})[agent] if alive[t] else 0.0
                paid = 0.25 * env_reward + C[agent] * gail_reward
                assert piece.get_rewards(t) == pytest.approx(paid, rel=1e-4, abs=1e-5)
    assert 48 < steps == result["dm2"]["transitions"] < 2 * 50
    assert result["dm2"]["trained"] == 1
    assert {"expert_accuracy/agent_0", "env_reward/agent_1", "gail_reward/agent_1"} <= set(result["dm2"])
    assert got[0].agent_episodes["agent_0"].module_id == "agent_0"


def test_policies_share_nothing_and_obey_masks(algorithm, monkeypatch):
    modules = algorithm.env_runner.module
    assert set(modules.keys()) == {"agent_0", "agent_1"}
    parameters = [{p.data_ptr() for p in modules[agent].parameters()} for agent in C]
    assert not parameters[0] & parameters[1]
    _, sampled = spied(algorithm, monkeypatch)
    for _ in range(3):
        algorithm.train()
    taken = 0
    for made in sampled:
        for piece in made.agent_episodes.values():
            masks = piece.get_observations(slice(0, len(piece)))["action_mask"]
            taken += len(piece)
            assert np.take_along_axis(masks, piece.get_actions()[:, None], axis=1).all()
    assert taken > 250


def test_reported_returns_are_the_environments_own(ray_session):
    """Episodes go on over several rollouts of a local runner, whose rewards have been mixed in between."""
    made = config(batch=4, envs=1, random_limit=False, limit=9, lifetimes=(None, None), actions=2).build_algo()
    try:
        returns = [made.train()["env_runners"].get("episode_return_mean") for _ in range(12)]
    finally:
        made.stop()
    # With two actions, of which the second is masked in every step, all rewards are 0.
    assert {value for value in returns if value is not None and not np.isnan(value)} == {0.0}


def test_a_checkpoint_brings_the_discriminators_back_bit_for_bit(algorithm, tmp_path):
    algorithm.train()
    algorithm.coefficient = {"agent_0": 0.125, "agent_1": 1.0}
    state = copy.deepcopy(algorithm.matcher.state_dict())
    weights = copy.deepcopy(algorithm.learner_group.get_weights())
    path = algorithm.save_to_path(tmp_path / "checkpoint")
    algorithm.coefficient = C
    algorithm.train()
    assert not same(algorithm.matcher.state_dict(), state)
    algorithm.restore_from_path(path)
    assert same(algorithm.matcher.state_dict(), state)
    assert algorithm.coefficient == {"agent_0": 0.125, "agent_1": 1.0}
    another = dm2.rllib.DM2PPO.from_checkpoint(path)
    try:
        assert another.matcher is not algorithm.matcher
        assert same(another.matcher.state_dict(), state)
        assert another.coefficient == {"agent_0": 0.125, "agent_1": 1.0}
        assert same_arrays(another.learner_group.get_weights(), weights)
        another.train()
    finally:
        another.stop()
        algorithm.coefficient = C


def same_arrays(one, other):
    return all((one[agent][name] == other[agent][name]).all() for agent in one for name in one[agent])


def test_an_iteration_without_episodes_is_told(algorithm, monkeypatch):
    monkeypatch.setattr("ray.rllib.algorithms.ppo.ppo.synchronous_parallel_sample", lambda **options: ([], {}))
    with pytest.warns(UserWarning, match=r"no episodes reached the learners .* longer than 60.0 s; set env_runners"):
        algorithm.training_step()


def test_what_runners_get_holds_no_demonstrations(algorithm):
    assert algorithm.config.make_matcher is None
    assert algorithm.get_ctor_args_and_kwargs()[0][0]["make_matcher"] is not None


def test_the_team_is_a_policy(algorithm):
    policy = dm2.rllib.TeamPolicy(algorithm)
    result = dm2.evaluate(policy, dm2.vectorize(lambda: TinyEnv(**TINY), 2), episodes=6, seed=0)
    assert result == dm2.evaluate(policy, dm2.vectorize(lambda: TinyEnv(**TINY), 2), episodes=6, seed=0)
    observations, _ = TinyEnv(**TINY).reset(seed=0)
    best = dm2.rllib.TeamPolicy(algorithm, deterministic=True)
    actions = best.predict(observations)
    for agent, observation in observations.items():
        rows = {"observation": observation["observation"][None], "action_mask": observation["action_mask"][None]}
        batch = {"obs": {name: torch.as_tensor(value) for name, value in rows.items()}}
        logits = algorithm.env_runner.module[agent].forward_inference(batch)["action_dist_inputs"]
        assert actions[agent] == logits.argmax()


@pytest.mark.parametrize("mirrored", [False, True])
def test_it_learns_from_experts_alone_whichever_way_they_go(ray_session, mirrored):
    demos = experts(mirrored)
    options = {"updates": 20, "batch_size": 64, "learning_rate": 1e-2, "hidden": (32, 32), "keep_buffer": False, "seed": 0}
    made = (
        dm2.rllib.DM2PPOConfig()
        .environment(LineEnv)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=8)
        .training(train_batch_size_per_learner=192, minibatch_size=96, num_epochs=4, lr=5e-3)
        .training(lambda_=0.9, entropy_coeff=0.1, use_kl_loss=False)
        .rl_module(model_config={"fcnet_hiddens": [16], "vf_share_layers": False})
        .debugging(seed=0, log_level="ERROR")
        .distribution_matching(lambda: dm2.DistributionMatcher(demos, **options), coefficient=1.0)
        .build_algo()
    )
    left = 4 if mirrored else -4  # of 6 steps at most
    went = {}
    try:
        for _ in range(40):  # mostly four to twelve; more where an agent sets out the wrong way
            made.train()
            went = places(dm2.rllib.TeamPolicy(made).predict)
            if went["left"] / left >= 1 and went["right"] / -left >= 1:
                return
    finally:
        made.stop()
    pytest.fail(f"the agents went to {went}")


def test_independent_ppo_bootstraps_at_time_limits(ray_session, monkeypatch):
    """Without DM2 nothing corrects RLlib's marks: the environment must not cause the wrong ones."""
    made = dm2.rllib.IPPOConfig().environment(LineEnv).env_runners(num_env_runners=0)
    made = made.training(train_batch_size_per_learner=12, minibatch_size=12, num_epochs=1).build_algo()
    try:
        marks, update = [], made.learner_group.update

        def spy(*args, episodes, **kwargs):
            marks.extend((e.is_terminated, e.is_truncated) for each in episodes for e in each.agent_episodes.values())
            return update(*args, episodes=episodes, **kwargs)

        monkeypatch.setattr(made.learner_group, "update", spy)
        made.train()
        assert marks == [(False, True)] * 4
        assert set(dm2.rllib.TeamPolicy(made).predict(LineEnv().reset()[0])) == {"left", "right"}
    finally:
        made.stop()


def test_two_env_runners_feed_the_one_matcher(ray_session):
    made = config().env_runners(num_env_runners=2).build_algo()
    try:
        result = made.train()
        agent_steps = sum(result["env_runners"]["num_agent_steps_sampled"].values())
        assert result["env_runners"]["num_env_steps_sampled"] >= 48
        assert 48 <= result["dm2"]["transitions"] <= agent_steps
        assert result["dm2"]["trained"] == 1
        dm2.rllib.TeamPolicy(made).predict(TinyEnv(**TINY).reset(seed=0)[0])
    finally:
        made.stop()


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        (APPOConfig, "references to episodes"),
        (IMPALAConfig, "references to episodes"),
        (DQNConfig, "off-policy"),
        (SACConfig, "off-policy"),
        (BCConfig, "recorded data"),
    ],
)
def test_other_kinds_of_algorithms_are_refused(base, reason):
    made = base.__name__
    cfg = type(f"DM2{made}", (dm2.rllib.DistributionMatchingConfigMixin, base), {})()
    cfg.distribution_matching(lambda: None, coefficient=1.0)
    if base is BCConfig:
        cfg.offline_data(input_=["episodes.json"])
    with pytest.raises(ValueError, match=rf"distribution matching does not work with DM2{made}: .*{reason}"):
        cfg.validate()


def test_what_is_missing_or_does_not_fit_is_one_sentence(ray_session):
    base = dm2.rllib.DM2PPOConfig
    with pytest.raises(ValueError, match=r"there is no matcher: call \.distribution_matching"):
        base().environment(LineEnv).build_algo()
    with pytest.raises(ValueError, match=r"there is no environment: call \.environment\(make_env\)"):
        base().distribution_matching(lambda: None, coefficient=1.0).build_algo()
    with pytest.raises(TypeError, match="make_matcher must return a DistributionMatcher, got NoneType"):
        base().environment(LineEnv).distribution_matching(lambda: None, coefficient=1.0).build_algo()
    with pytest.raises(ValueError, match=r"the demonstrations have the agents \['left', 'right'\], but the environment has"):
        config(demos=experts()).build_algo()
    needy = functools.partial(dm2.DistributionMatcher, experts(), ends="absorbing", max_steps=9)
    with pytest.raises(ValueError, match=r"dm2\.rllib gives the discriminators observations only"):
        base().environment(LineEnv).distribution_matching(needy, coefficient=1.0).build_algo()
    schedule = dm2.schedules.LinearFall(1.0, steps=9)
    with pytest.raises(ValueError, match="coefficient must be a finite number of at least 0"):
        base().environment(LineEnv).distribution_matching(lambda: None, coefficient=schedule)
    with pytest.raises(ValueError, match="have 3 features of agent 'agent_0', but its observation has 5"):
        config(sizes=(5, 2)).build_algo()
    with pytest.raises(ValueError, match="the environment must be multi-agent, got"):
        base().environment("CartPole-v1").distribution_matching(lambda: None, coefficient=1.0).build_algo()


def test_wrong_arguments_are_refused():
    demos = experts()
    with pytest.raises(TypeError, match="must be a function that returns a DistributionMatcher, got DistributionMatcher"):
        dm2.rllib.DM2PPOConfig().distribution_matching(dm2.DistributionMatcher(demos), coefficient=1.0)
    with pytest.raises(ValueError, match="coefficient must be a finite number of at least 0, got -1"):
        dm2.rllib.DM2PPOConfig().distribution_matching(lambda: None, coefficient=-1)
    with pytest.raises(ValueError, match="env_coefficient must be a finite number of at least 0, got None"):
        dm2.rllib.DM2PPOConfig().distribution_matching(lambda: None, coefficient=1, env_coefficient=None)


class Mine(PPO):
    """A user's own algorithm, which hands its learners something else than episodes."""

    def training_step(self):
        return self.learner_group.update(batch=None)


class MineWithDM2(dm2.rllib.DistributionMatchingMixin, Mine):
    @classmethod
    def get_default_config(cls):
        return MineConfig(cls)


class MineConfig(dm2.rllib.DistributionMatchingConfigMixin, PPOConfig):
    def __init__(self, algo_class=None):
        super().__init__(algo_class=algo_class or MineWithDM2)


def test_an_algorithm_that_hides_its_episodes_is_refused(ray_session):
    made = config(MineConfig).build_algo()
    try:
        with pytest.raises(RuntimeError, match="MineWithDM2 does not pass episodes to its learners"):
            made.training_step()
    finally:
        made.stop()


def test_names_of_our_environments_are_environments():
    made = dm2.rllib.IPPOConfig().environment("smax:3m")
    make_env = made.env_config["make_env"]
    assert (made.env, make_env.func, make_env.args) == (dm2.rllib.RLlibEnv, dm2.envs.parallel_env, ("smax:3m",))
    assert dm2.rllib.IPPOConfig().environment("CartPole-v1").env == "CartPole-v1"
