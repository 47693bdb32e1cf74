"""The BenchMARL callback, in BenchMARL's own experiments: `make check-benchmarl`."""

import pickle

import numpy as np
import pytest
import torch

pytest.importorskip("benchmarl")
from benchmarl.algorithms import IppoConfig, IqlConfig
from benchmarl.environments.pettingzoo.common import PettingZooClass
from benchmarl.experiment import Experiment, ExperimentConfig
from benchmarl.models import MlpConfig
from torchrl.envs import PettingZooWrapper

import dm2_wrappers as dm2
from dm2_wrappers.torchrl.benchmarl import DistributionMatchingCallback
from tests.helpers import tiny_matchers
from tests.helpers.tiny_envs import TinyEnv


def make_matcher():
    demos = dm2.Demonstrations.record(tiny(), lambda seen: dict.fromkeys(seen, 0), 8, seed=0)
    return dm2.DistributionMatcher(demos, updates=2, batch_size=8, hidden=(8, 8), seed=0)


def tiny():
    return TinyEnv(sizes=(3, 3), limit=5)


class TinyTask(PettingZooClass):
    """BenchMARL's task of PettingZoo environments, playing a TinyEnv."""

    def get_env_fun(self, num_envs, continuous_actions, seed, device):
        return lambda: PettingZooWrapper(tiny(), seed=seed, device=device, done_on_any=False)

    def supports_continuous_actions(self):
        return False

    def supports_discrete_actions(self):
        return True

    def has_state(self):
        return False

    def has_render(self, env):
        return False

    def max_steps(self, env):
        return 5


def experiment(tmp_path, callback, algorithm=IppoConfig, iterations=2, checkpoint_at_end=False):
    config = ExperimentConfig.get_from_yaml()
    config.max_n_iters, config.max_n_frames = iterations, None
    config.on_policy_collected_frames_per_batch, config.on_policy_n_envs_per_worker = 20, 2
    config.on_policy_n_minibatch_iters, config.on_policy_minibatch_size = 1, 10
    config.evaluation, config.render, config.loggers, config.create_json = False, False, [], False
    config.save_folder, config.checkpoint_at_end = str(tmp_path), checkpoint_at_end
    task = TinyTask(name="TINY", config={"max_cycles": 5})
    models = {"model_config": MlpConfig.get_from_yaml(), "critic_model_config": MlpConfig.get_from_yaml()}
    return Experiment(task, algorithm.get_from_yaml(), seed=0, config=config, callbacks=[callback], **models)


def test_an_experiment_is_paid_in_the_exact_order(tmp_path):
    callback = DistributionMatchingCallback(make_matcher, coefficient=2.0)
    one = experiment(tmp_path, callback)
    calls = []
    matcher = callback.matching.matcher
    record, rewards = matcher.record, matcher.rewards
    matcher.record = lambda observations, *args, **options: (
        calls.append(np.asarray(observations)),
        record(observations, *args, **options),
    )
    one.run()
    assert len(calls) == 2
    assert calls[0].shape == (10, 2, 2, 3)
    assert callback.matching.metrics["trained"] == 1.0
    (group,) = one.group_map
    learned = one.replay_buffers[group].storage[:]
    gail, env_reward = learned["next", group, "gail_reward"], learned["next", group, "env_reward"]
    assert gail.abs().sum() > 0
    torch.testing.assert_close(learned["next", group, "reward"], env_reward + 2.0 * gail)
    seen = learned[group, "observation"].numpy()
    np.testing.assert_allclose(gail[..., 0].numpy(), rewards(seen, np.ones(seen.shape[:-1], bool)), atol=1e-6)


def test_the_discriminators_come_back_with_the_experiment(tmp_path):
    first = DistributionMatchingCallback(make_matcher, coefficient=2.0)
    one = experiment(tmp_path, first, checkpoint_at_end=True)
    one.run()
    assert pickle.loads(pickle.dumps(first)).matching is None  # the matcher does not travel
    (checkpoint,) = tmp_path.rglob("checkpoint_*.pt")
    again = Experiment.reload_from_file(str(checkpoint))
    (second,) = again.callbacks
    assert second.matching is not first.matching
    assert tiny_matchers.same(second.matching.state_dict(), first.matching.state_dict())
    again.close()


def test_mistakes_are_one_sentence(tmp_path):
    with pytest.raises(TypeError, match="must be a function that makes a DistributionMatcher"):
        DistributionMatchingCallback(make_matcher(), coefficient=1.0)
    with pytest.raises(ValueError, match="must be on-policy: use IPPO or MAPPO, not Iql"):
        experiment(tmp_path, DistributionMatchingCallback(make_matcher, coefficient=1.0), IqlConfig)
