"""Algorithm 1 on TorchRL's batches: who is recorded, what is paid, and where it is put."""

import numpy as np
import pytest
import torch

pytest.importorskip("torchrl")
from tensordict import TensorDict
from torchrl.collectors import Collector
from torchrl.envs import PettingZooWrapper, SerialEnv
from torchrl.envs.utils import MarlGroupMapType, check_env_specs

import dm2_wrappers as dm2
from dm2_wrappers.torchrl import DistributionMatching
from tests.helpers import tiny_matchers
from tests.helpers.tiny_envs import TinyEnv

N, T = 2, 10
GROUPS = {"b": ["b"], "a": ["a"]}  # another order than the matcher's


def batch_of(observations, alive, mask=None, env_reward=2.0):
    """A collected batch [N, T] with one group per agent of `tiny_matchers`; observations [T, N, K, D]."""
    batch = TensorDict({}, [N, T])
    for k, (agent, size) in enumerate(zip(tiny_matchers.AGENTS, tiny_matchers.SIZES, strict=True)):
        rows = torch.as_tensor(observations[:, :, k : k + 1, :size]).transpose(0, 1)
        batch[agent, "observation"] = rows
        batch[agent, "info", "alive"] = torch.as_tensor(alive[:, :, k : k + 1]).transpose(0, 1).float()
        batch["next", agent, "reward"] = torch.full((N, T, 1, 1), env_reward * (k + 1))
        if mask is not None:
            batch[agent, "mask"] = torch.as_tensor(mask[:, :, k : k + 1]).transpose(0, 1)
    return batch


def expected(observations, live, broken=None, **options):
    """r_gail [T, N, K] after the update, and the matcher."""
    twin = tiny_matchers.make(**options)
    twin.record(observations, live, broken=broken)
    twin.update()
    return twin.rewards(observations, live), twin


def gail_rewards(batch):
    return np.stack([batch["next", agent, "gail_reward"][..., 0, 0].T.numpy() for agent in tiny_matchers.AGENTS], axis=2)


@pytest.mark.parametrize("c", [0.5, {"a": 0.5, "b": 3.0}])
def test_pays_with_the_updated_discriminators_and_keeps_what_was_paid_before(c):
    observations, alive = tiny_matchers.rollout(T, N)
    gail, twin = expected(observations, alive)
    matching = DistributionMatching(tiny_matchers.make(), coefficient=c, env_coefficient=0.25, group_map=GROUPS)
    batch = batch_of(observations, alive)
    assert matching(batch) is batch
    np.testing.assert_array_equal(gail_rewards(batch), gail)
    assert (gail[~alive] == 0).all()
    for k, agent in enumerate("ab"):
        own = 0.5 if k == 0 or c == 0.5 else 3.0
        mixed = 0.25 * 2 * (k + 1) + own * gail[:, :, k]
        np.testing.assert_allclose(batch["next", agent, "reward"][..., 0, 0].T, mixed, rtol=1e-6)
        assert (batch["next", agent, "env_reward"] == 2 * (k + 1)).all()
        assert matching.metrics[f"env_reward/{agent}"] == 2 * (k + 1)
        assert matching.metrics[f"gail_reward/{agent}"] == pytest.approx(gail[:, :, k][alive[:, :, k]].mean(), abs=1e-6)
    assert matching.metrics["trained"] == 1.0
    assert tiny_matchers.same(matching.matcher.state_dict(), twin.state_dict())


def test_c_can_be_assigned_between_two_batches():
    matching = DistributionMatching(tiny_matchers.make(), coefficient=0.5, group_map=GROUPS)
    matching.coefficient = {"a": 2.0, "b": 0.0}
    batch = matching(batch_of(*tiny_matchers.rollout(T, N)))
    assert (matching.metrics["coefficient/a"], matching.metrics["coefficient/b"]) == (2.0, 0.0)
    next_of_a, next_of_b = batch["next", "a"], batch["next", "b"]
    assert torch.equal(next_of_a["reward"], next_of_a["env_reward"] + 2 * next_of_a["gail_reward"])
    assert torch.equal(next_of_b["reward"], next_of_b["env_reward"])
    with pytest.raises(ValueError, match=r"dm2.torchrl takes no schedule, got Constant"):
        matching.coefficient = dm2.schedules.Constant(1.0)
    assert matching.coefficient == {"a": 2.0, "b": 0.0}


def test_absent_agents_and_padding_are_left_out():
    observations, alive = tiny_matchers.rollout(T, N)
    rng = np.random.default_rng(1)
    mask, padding = rng.random((T, N, 2)) < 0.7, rng.random((T, N)) < 0.8
    batch = batch_of(observations, alive, mask)
    batch["collector", "mask"] = torch.as_tensor(padding.T)
    gail, twin = expected(observations, alive & mask & padding[..., None])
    matching = DistributionMatching(tiny_matchers.make(), coefficient=1.0, group_map=GROUPS)
    np.testing.assert_array_equal(gail_rewards(matching(batch)), gail)
    assert tiny_matchers.same(matching.state_dict(), twin.state_dict())


def test_episodes_that_the_simulator_broke_are_not_recorded():
    observations, alive = tiny_matchers.rollout(T, N)
    batch = batch_of(observations, alive)
    flags, trajectories = torch.zeros(N, T, 1), torch.zeros(N, T, dtype=torch.int64)
    flags[0, 5] = 1.0
    batch["next", "a", "info", "broken"] = flags
    matching = DistributionMatching(tiny_matchers.make(), coefficient=1.0, group_map=GROUPS)
    with pytest.raises(ValueError, match="has no \\('collector', 'traj_ids'\\) to find its steps"):
        matching(batch)
    trajectories[0, 2:6], trajectories[0, 6:], trajectories[1] = 1, 2, 3
    batch["collector", "traj_ids"] = trajectories
    broken = np.zeros((T, N), bool)
    broken[2:6, 0] = True
    _, twin = expected(observations, alive, broken)
    matching(batch)
    assert tiny_matchers.same(matching.state_dict(), twin.state_dict())


def test_state_goes_on_bit_for_bit():
    observations, alive = tiny_matchers.rollout(T, N)
    one = DistributionMatching(tiny_matchers.make(), coefficient=1.0, group_map=GROUPS)
    one(batch_of(observations, alive))
    two = DistributionMatching(tiny_matchers.make(seed=5), coefficient=1.0, group_map=GROUPS)
    two.load_state_dict(one.state_dict())
    later = tiny_matchers.rollout(T, N, seed=1)
    first, second = (gail_rewards(matching(batch_of(*later))) for matching in (one, two))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("groups", "absorb", "masks"),
    [
        (MarlGroupMapType.ONE_GROUP_PER_AGENT, False, True),
        (MarlGroupMapType.ALL_IN_ONE_GROUP, True, False),
        (MarlGroupMapType.ALL_IN_ONE_GROUP, False, True),
    ],
)
def test_what_torchrls_wrapper_collects_is_what_the_agents_saw(groups, absorb, masks):
    def env():
        return TinyEnv(sizes=(3, 3), lifetimes=(None, 3), absorb=absorb, limit=5, masks=masks)

    def wrapped():
        return PettingZooWrapper(env(), group_map=groups, use_mask=True, done_on_any=False)

    demos = dm2.Demonstrations.record(env(), lambda seen: dict.fromkeys(seen, 0), 4, seed=0)
    matcher = dm2.DistributionMatcher(demos, updates=1, seed=0)
    recorded = []
    own = matcher.record

    def record(observations, alive, **options):
        recorded.append((np.asarray(observations), np.asarray(alive)))
        own(observations, alive, **options)

    matcher.record = record
    envs = SerialEnv(2, wrapped)
    matching = DistributionMatching(matcher, coefficient=1.0, group_map=wrapped().group_map)
    (batch,) = Collector(
        envs, None, frames_per_batch=24, total_frames=24, postproc=matching, auto_register_policy_transforms=False
    )
    (observations, alive), *more = recorded
    assert not more
    assert observations.shape == (12, 2, 2, 3)
    times = np.array([0, 1, 2, 3, 4] * 2 + [0, 1])
    # An episode lasts 5 steps although the second agent dies after 3: done_on_any=False.
    np.testing.assert_array_equal(alive[..., 0], np.ones((12, 2), bool))
    np.testing.assert_array_equal(alive[..., 1], np.repeat(times[:, None] < 3, 2, axis=1))
    np.testing.assert_array_equal(observations[..., 0][alive], np.repeat(times, 4).reshape(12, 2, 2)[alive])
    group = next(iter(matching.group_map))
    assert batch["next", group, "gail_reward"].shape == batch["next", group, "reward"].shape


def test_the_wrapper_of_dm2_keeps_to_torchrls_specs():
    demos = dm2.Demonstrations.record(TinyEnv(sizes=(3, 3)), lambda seen: dict.fromkeys(seen, 0), 4, seed=0)
    env = dm2.DM2ParallelEnv(TinyEnv(sizes=(3, 3), absorb=True, lifetimes=(None, 3)), demos, coefficient=1.0)
    check_env_specs(PettingZooWrapper(env, use_mask=True, done_on_any=False))


def test_mistakes_are_one_sentence():
    matcher = tiny_matchers.make()
    with pytest.raises(TypeError, match=r"matcher must be a DistributionMatcher, got 'demos.npz'"):
        DistributionMatching("demos.npz", coefficient=1.0, group_map=GROUPS)
    with pytest.raises(ValueError, match=r"group_map has the agents \['a', 'c'\]"):
        DistributionMatching(matcher, coefficient=1.0, group_map={"all": ["a", "c"]})
    with pytest.raises(ValueError, match=r"dm2.torchrl takes no schedule, got LinearFall"):
        DistributionMatching(matcher, coefficient=dm2.schedules.LinearFall(1.0, steps=9), group_map=GROUPS)
    needy = tiny_matchers.make(ends="absorbing", max_steps=9)
    with pytest.raises(ValueError, match=r"dm2.torchrl gives the discriminators observations only: make the matcher"):
        DistributionMatching(needy, coefficient=1.0, group_map=GROUPS)
    matching = DistributionMatching(matcher, coefficient=1.0, group_map=GROUPS)
    observations, alive = tiny_matchers.rollout(T, N)
    batch = batch_of(observations, alive)
    batch["a", "observation"] = torch.zeros(N, T, 1, 4)
    with pytest.raises(ValueError, match="'a' has 4 observation features in the batch, but 3"):
        matching(batch)
    batch["a", "observation"] = TensorDict({"x": torch.zeros(N, T, 1, 1), "y": torch.zeros(N, T, 1, 2)}, [N, T])
    with pytest.raises(ValueError, match=r"have the parts \['x', 'y'\]"):
        matching(batch)
    batch["a", "observation"] = TensorDict({"observation": batch["a", "observation"]}, [N, T])  # beside an action mask
    with pytest.raises(ValueError, match=r"have the parts \['x', 'y'\]"):
        matching(batch)
