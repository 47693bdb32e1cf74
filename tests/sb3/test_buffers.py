"""Dead steps are not trained on, and what the team earns after a death is credited to the step of death."""

import numpy as np
import pytest
import torch
from sb3_contrib import QRDQN, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners
from tests.helpers.tiny_envs import TinyEnv

SMALL = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu"}


def team_of(algorithm, n=2, lifetimes=(None, 3), limit=6, absorb=True, truncates=False, **options):
    env = dm2.vectorize(
        lambda: TinyEnv(
            sizes=(4, 3), lifetimes=lifetimes, limit=limit, absorb=absorb, truncates=truncates, random_limit=False
        ),
        n,
    )
    return IndependentLearners(algorithm, env, seed=0, **{**SMALL, **options})


def rollout_of(algorithm, **options):
    """The rollout buffers of both agents as their first ``train()`` finds them."""
    team = team_of(algorithm, **options)
    for model in team.models.values():
        model.train = lambda: None
        with torch.no_grad():  # SB3's biases start at 0, and then the critic's value of a zero observation is 0, too
            for name, parameter in model.policy.named_parameters():
                if name.endswith("bias") and "action_net" not in name:
                    parameter += 0.3 + 0.1 * torch.arange(len(parameter))
    steps = model.n_steps * team.env.num_envs
    team.learn(steps)
    return team, {agent: model.rollout_buffer for agent, model in team.models.items()}


def test_live_marks_the_steps_before_which_the_agent_was_alive():
    _, buffers = rollout_of(PPO, n_steps=8, batch_size=4)
    assert buffers["agent_0"].live.all()
    # Dies in step 3 of 6, so the observations 0, 1, 2 are a living agent's.
    expected = [True, True, True, False, False, False, True, True]
    assert buffers["agent_1"].live.T.tolist() == [expected, expected]


@pytest.mark.parametrize("algorithm", [PPO, A2C, MaskablePPO])
def test_minibatches_hold_each_living_step_once_and_no_dead_one(algorithm):
    extra = {} if algorithm is A2C else {"batch_size": 4}
    _, buffers = rollout_of(algorithm, n_steps=12, **extra)
    buffer = buffers["agent_1"]
    batches = list(buffer.get(5))
    sizes = [len(batch.old_values) for batch in batches]
    assert len(sizes) == 5  # of 24 steps, dead and alive, five each
    assert sum(sizes) == 12
    assert max(sizes) - min(sizes) <= 1
    times = np.concatenate([batch.observations[:, 0].numpy() for batch in batches])
    assert sorted(times.astype(int)) == [0] * 4 + [1] * 4 + [2] * 4
    assert len(next(iter(buffer.get(None))).old_values) == 12


def test_without_deaths_it_is_sb3s_own_buffer():
    _, buffers = rollout_of(PPO, n_steps=12, batch_size=4)
    buffer = buffers["agent_0"]
    np.random.seed(0)
    mine = [batch.observations for batch in buffer.get(5)]
    np.random.seed(0)
    from stable_baselines3.common.buffers import RolloutBuffer

    theirs = [batch.observations for batch in RolloutBuffer.get(buffer, 5)]
    assert [len(batch) for batch in mine] == [5, 5, 5, 5, 4]
    assert all(torch.equal(*pair) for pair in zip(mine, theirs, strict=True))


def plain_gae(rewards, values, over, last_value, gamma, lam):
    advantages, advantage = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        following = last_value if t == len(rewards) - 1 else values[t + 1]
        delta = rewards[t] + gamma * following * (1 - over[t]) - values[t]
        advantage = delta + gamma * lam * (1 - over[t]) * advantage
        advantages[t] = advantage
    return advantages


@pytest.mark.parametrize("algorithm", [PPO, RecurrentPPO])
def test_death_is_followed_by_the_mean_of_what_was_earned_after_deaths(algorithm):
    extra = {"policy": "MlpLstmPolicy"} if algorithm is RecurrentPPO else {}
    team, buffers = rollout_of(algorithm, n_steps=6, batch_size=6, after_death="mean", **extra)
    buffer, gamma, lam = buffers["agent_1"], 0.99, team.models["agent_1"].gae_lambda
    r = buffer.rewards.astype(float)
    # The episode's steps 3, 4, 5 are after the death.
    dead_value = (r[3] + gamma * r[4] + gamma**2 * r[5]).mean()
    assert buffer.dead_value == pytest.approx(dead_value, rel=1e-5)
    for n in range(2):
        values = buffer.values[:, n].astype(float)
        np.testing.assert_allclose(values[3:], dead_value, rtol=1e-5)
        # As if the episode had ended with the death, which paid the discounted value of being dead at once.
        paid = np.array([r[0, n], r[1, n], r[2, n] + gamma * dead_value])
        expected = plain_gae(paid, values[:3], np.array([0, 0, 1]), 0.0, gamma, lam)
        np.testing.assert_allclose(buffer.advantages[:3, n], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(buffer.advantages[3:, n], 0.0, atol=1e-5)


@pytest.mark.parametrize("later", ["earned", "mean", "critic"])
def test_what_a_death_is_followed_by_may_change_between_two_calls_of_learn(later):
    first = "mean" if later != "mean" else "critic"
    changed = team_of(PPO, n_steps=6, batch_size=6, after_death=first)
    changed.after_death = later
    as_built = team_of(PPO, n_steps=6, batch_size=6, after_death=later)
    for team in (changed, as_built):
        assert team.after_death == later
        team.learn(24)
    for agent in as_built.agents:
        mine, theirs = (team.models[agent].policy.state_dict() for team in (changed, as_built))
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    other = team_of(PPO, n_steps=6, batch_size=6, after_death=first).learn(24).models["agent_1"].policy.state_dict()
    assert not all(torch.equal(other[key], theirs[key]) for key in theirs)
    with pytest.raises(ValueError, match="after_death must be"):
        changed.after_death = "heaven"


@pytest.mark.parametrize("truncates", [False, True])
@pytest.mark.parametrize("algorithm", [PPO, RecurrentPPO])
def test_rewards_flow_back_through_dead_steps_as_in_sb3_with_one_value_of_being_dead(algorithm, truncates):
    extra = {"policy": "MlpLstmPolicy"} if algorithm is RecurrentPPO else {}
    team, buffers = rollout_of(algorithm, n_steps=6, batch_size=6, truncates=truncates, **extra)
    buffer, gamma, lam = buffers["agent_1"], 0.99, team.models["agent_1"].gae_lambda
    r = buffer.rewards.astype(float)
    known = np.stack([r[3] + gamma * r[4] + gamma**2 * r[5], r[4] + gamma * r[5], r[5]])
    # Past a time limit v stands for the rest: v = mean(known + unknown * v).
    unknown = np.array([gamma**3, gamma**2, gamma]) if truncates else np.zeros(3)
    v = known.mean() / (1 - unknown.mean())
    assert buffer.dead_value == pytest.approx(v, rel=1e-5)
    for n in range(2):
        values = buffer.values[:, n].astype(float)
        np.testing.assert_allclose(values[3:], v, rtol=1e-5)
        paid = r[:, n].copy()
        paid[5] += gamma * v * truncates
        expected = plain_gae(paid, values, np.array([0, 0, 0, 0, 0, 1]), 0.0, gamma, lam)
        np.testing.assert_allclose(buffer.advantages[:, n], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("after_death", ["earned", "mean"])
def test_where_the_rollout_ends_first_the_value_of_being_dead_stands_for_the_rest(after_death):
    # One episode of 6, and 5 steps of the next.
    _, buffers = rollout_of(PPO, n_steps=11, batch_size=6, after_death=after_death)
    buffer, gamma = buffers["agent_1"], 0.99
    r = buffer.rewards.astype(float)
    known = np.stack([r[3] + gamma * r[4] + gamma**2 * r[5], r[4] + gamma * r[5], r[5], r[9] + gamma * r[10], r[10]])
    # v = mean(known + unknown * v), where two steps and one step before the rollout's end the rest is unknown.
    v = known.mean() / (1 - (gamma**2 + gamma) / 5)
    expected = v if after_death == "earned" else np.mean([known[0], known[3] + gamma**2 * v])
    assert buffer.dead_value == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(buffer.values[9:], expected, rtol=1e-5)


def test_rewards_are_left_as_they_were_for_logs_and_for_relabelling():
    _, buffers = rollout_of(PPO, n_steps=6, batch_size=6)
    buffer = buffers["agent_1"]
    before = buffer.rewards.copy()
    buffer.recompute()
    np.testing.assert_array_equal(buffer.rewards, before)
    np.testing.assert_array_equal(buffer.rewards, buffers["agent_0"].rewards)


def test_a_time_limit_does_not_bootstrap_with_the_critics_value_of_being_dead():
    _, buffers = rollout_of(PPO, n_steps=6, batch_size=6, truncates=True)
    dead, living = buffers["agent_1"], buffers["agent_0"]
    assert dead.dead_at_time_limit.sum(axis=0).tolist() == [1, 1]
    assert dead.dead_at_time_limit[5].all()
    # The reward of the last step is the environment's own: nothing was added for the dead, something for the living.
    np.testing.assert_allclose(dead.rewards[5], np.round(dead.rewards[5]))
    assert not np.allclose(living.rewards[5], np.round(living.rewards[5]))
    assert (dead.dead_at_time_limit.sum(), living.dead_at_time_limit.sum()) == (2, 0)


@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO, A2C, RecurrentPPO])
def test_gradients_do_not_depend_on_what_the_dead_saw_or_did(algorithm):
    """Change the dead steps' observations and actions in the buffer: training must come out bit for bit the same."""
    kwargs = {"n_steps": 12}
    if algorithm is not A2C:
        kwargs |= {"batch_size": 8, "n_epochs": 2}
    if algorithm is RecurrentPPO:
        kwargs |= {"policy": "MlpLstmPolicy"}
    results = []
    for poison in (0.0, 5.0):
        team = team_of(algorithm, **kwargs)
        model = team.models["agent_1"]
        train = model.train

        def poisoned(model=model, train=train, poison=poison):
            buffer = model.rollout_buffer
            dead = ~buffer.live
            buffer.observations[dead] += poison
            buffer.actions[dead] = 1
            buffer.log_probs[dead] -= poison
            train()

        model.train = poisoned
        team.learn(24)
        results.append([p.clone() for p in model.policy.parameters()])
    if algorithm is RecurrentPPO:
        # Sequences stay whole, so nothing after a death comes before a living step of the same episode.
        assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(*results, strict=True))
    else:
        assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO, RecurrentPPO])
def test_a_rollout_without_a_living_step_teaches_nothing_and_does_not_break_training(algorithm):
    extra = {"policy": "MlpLstmPolicy"} if algorithm is RecurrentPPO else {}
    team = team_of(algorithm, n=1, lifetimes=(None, 1), limit=30, n_steps=4, batch_size=4, **extra)
    team.learn(4 * 5)
    assert all(torch.isfinite(p).all() for p in team.models["agent_1"].policy.parameters())
    # In the last rollouts it is dead throughout: no advantage, and no error of the critic's own value.
    buffer = team.models["agent_1"].rollout_buffer
    assert not buffer.learnable().any()
    (samples,) = buffer.get(4)
    assert not samples.advantages.any()
    torch.testing.assert_close(samples.returns, samples.old_values)
    assert not torch.isclose(samples.old_values, torch.tensor(buffer.dead_value)).any()  # the critic's, not death's


def test_death_remove_leaves_padding_steps_out_too():
    _, buffers = rollout_of(PPO, n_steps=8, batch_size=4, absorb=False)
    buffer = buffers["agent_1"]
    assert buffer.live[:, 0].tolist() == [True, True, True, False, False, False, True, True]
    # The agent is gone after its death: its return ends there.
    last = 2
    np.testing.assert_allclose(buffer.advantages[last], buffer.rewards[last] - buffer.values[last], rtol=1e-4, atol=1e-5)


def test_the_replay_buffer_holds_living_steps_and_pays_the_step_of_death():
    # Agent 1 dies in step 3 of 6; the reward of a step is the sum of living agents' actions.
    team = team_of(DQN, n=2, learning_starts=10_000, buffer_size=1000, exploration_initial_eps=1.0)
    team.learn(24)
    gamma, replay, other = 0.99, team.models["agent_1"].replay_buffer, team.models["agent_0"].replay_buffer
    assert other.pos == 24
    assert replay.pos == 12
    assert not replay.full
    assert replay.observations[:12, 0, 0].astype(int).tolist() == [0, 0, 1, 1, 2, 2] * 2
    assert replay.dones[:12, 0].astype(int).tolist() == [0, 0, 0, 0, 1, 1] * 2
    rewards = other.rewards[:24, 0].reshape(2, 6, 2)  # episodes, steps, copies
    for episode in range(2):
        for copy in range(2):
            row = replay.rewards[:12, 0].reshape(2, 3, 2)[episode, :, copy]
            r = rewards[episode, :, copy]
            np.testing.assert_allclose(row[:2], r[:2], rtol=1e-6)
            np.testing.assert_allclose(row[2], r[2] + gamma * r[3] + gamma**2 * r[4] + gamma**3 * r[5], rtol=1e-5)


def test_the_replay_ring_wraps_around_and_survives_a_checkpoint(tmp_path):
    team = team_of(DQN, n=2, learning_starts=10_000, buffer_size=10)
    team.learn(24)
    replay = team.models["agent_1"].replay_buffer
    assert replay.full
    assert replay.pos == 2
    assert len(replay.sample(64).rewards) == 64
    team.save(tmp_path / "team")
    loaded = IndependentLearners.load(tmp_path / "team", team.env).models["agent_1"].replay_buffer
    assert (loaded.pos, loaded.full) == (2, True)
    np.testing.assert_array_equal(loaded.rewards, replay.rewards)


def broken_team(algorithm, broken, n=2, limit=6, **options):
    env = dm2.vectorize(lambda: TinyEnv((4, 3), lifetimes=(None, 3), absorb=True, limit=limit, broken=broken), n)
    return IndependentLearners(algorithm, env, seed=0, **{**SMALL, **options})


@pytest.mark.parametrize("after_death", ["earned", "mean", "critic"])
@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO, RecurrentPPO])
def test_a_broken_episode_is_in_no_minibatch_and_changes_no_other_episodes_advantages(algorithm, after_death):
    extra = {"policy": "MlpLstmPolicy"} if algorithm is RecurrentPPO else {}
    team = broken_team(algorithm, broken=[1], n_steps=20, batch_size=40, after_death=after_death, **extra)
    for model in team.models.values():
        model.train = lambda: None
    team.learn(40)
    of_second = np.isin(np.arange(20), range(6, 12))
    for agent, model in team.models.items():
        buffer = model.rollout_buffer
        assert buffer.broken.T.tolist() == [of_second.tolist()] * 2
        taught = np.repeat(~of_second[:, None], 2, axis=1)
        if agent == "agent_1" and after_death != "critic":
            taught &= buffer.live
        np.testing.assert_array_equal(buffer.learnable(), taught)
        # The broken steps' rewards must not be felt anywhere else, not even through the value of being dead.
        advantages = buffer.advantages.copy()
        buffer.rewards[buffer.broken] += 1000.0
        buffer.recompute()
        np.testing.assert_array_equal(buffer.advantages[~of_second], advantages[~of_second])
        batches = list(buffer.get(None if algorithm is not RecurrentPPO else 40))
        if algorithm is RecurrentPPO:
            assert sum(int((batch.mask > 0).sum()) for batch in batches) == taught.sum()
        else:
            assert sum(len(batch.old_values) for batch in batches) == taught.sum()
        assert len(model.ep_info_buffer) == 2 * 2  # of three finished episodes a copy, two count


def test_of_an_episode_that_breaks_in_a_later_rollout_the_later_part_is_left_out():
    team = broken_team(PPO, broken=[1], n_steps=8, batch_size=16)
    for model in team.models.values():
        model.train = lambda: None
    team.learn(32)
    # Steps 6 and 7 were in the first rollout; 8 to 11 are in the second, and 12 to 15 are of the next episode.
    assert team.models["agent_0"].rollout_buffer.broken[:, 0].tolist() == [True] * 4 + [False] * 4


@pytest.mark.parametrize("buffer_size", [1000, 20])
def test_a_broken_episode_is_removed_from_the_replay_buffer(buffer_size):
    team = broken_team(DQN, broken=[1], learning_starts=10_000, buffer_size=buffer_size, exploration_initial_eps=1.0)
    team.learn(32)  # per copy: episode 0, the broken episode 1, four steps of episode 2
    for agent, steps in (("agent_0", 6), ("agent_1", 3)):
        replay = team.models[agent].replay_buffer
        times = [0, 1, 2, 3, 4, 5][:steps]
        later = [0, 1, 2, 3][:steps]
        expected = [t for t in times + later for _ in range(2)]
        size = replay.buffer_size if replay.full else replay.pos
        assert replay.observations[:size, 0, 0].astype(int).tolist() == expected[-size:]
        # Of the small one's 20 rows the broken episode took 12, the newest 8 of the first were left.
        assert size == (16 if agent == "agent_0" and buffer_size == 20 else len(expected))
    # The death of the third episode is still paid for: its row has moved.
    replay, other = team.models["agent_1"].replay_buffer, team.models["agent_0"].replay_buffer
    r = other.rewards[other.pos - 8 : other.pos, 0].reshape(4, 2)
    np.testing.assert_allclose(replay.rewards[10:12, 0], r[2] + 0.99 * r[3], rtol=1e-6)


def test_who_dies_in_the_step_of_the_time_limit_is_worth_what_being_dead_is():
    # Agent 1 dies in step 6 of 6, which is also the time limit's; its rollout ends in the next episode's second step.
    _, buffers = rollout_of(PPO, n=1, lifetimes=(None, 6), truncates=True, n_steps=8, batch_size=4)
    buffer = buffers["agent_1"]
    assert buffer.dead_at_time_limit[:, 0].tolist() == [False] * 5 + [True] + [False] * 2
    buffer.dead_value = 100.0
    buffer.recompute()
    # No dead step in this rollout says what being dead is worth: it is what it was before.
    expected = buffer.rewards[5, 0] + 0.99 * 100.0 - buffer.values[5, 0]
    assert buffer.advantages[5, 0] == pytest.approx(expected, rel=1e-5)
    assert not buffers["agent_0"].dead_at_time_limit.any()


def after_breaking(algorithm, broken, **options):
    """A team that trains 3 times after each episode of 6 steps, and each agent's weights before it learns."""
    continuous = algorithm in (SAC, TD3)
    env = dm2.vectorize(lambda: TinyEnv((4, 3), actions=2, continuous=continuous, limit=6, broken=broken), 1)
    small = {"learning_starts": 0, "train_freq": 6, "gradient_steps": 3, "buffer_size": 50, "batch_size": 8, **SMALL}
    team = IndependentLearners(algorithm, env, seed=0, **{**small, **options})
    return team, {agent: copied(model) for agent, model in team.models.items()}


def copied(model):
    return {name: parameter.clone() for name, parameter in model.policy.state_dict().items()}


def changed(model, before):
    return any(not torch.equal(parameter, before[name]) for name, parameter in model.policy.state_dict().items())


@pytest.mark.parametrize("algorithm", [DQN, QRDQN, SAC, TD3])
def test_broken_episodes_alone_teach_an_off_policy_learner_nothing(algorithm):
    team, before = after_breaking(algorithm, broken=range(4))
    team.learn(24)
    for agent, model in team.models.items():
        assert (model.replay_buffer.size(), model._n_updates, model.gradient_steps) == (0, 0, 3)
        assert not changed(model, before[agent])
    team.learn(12, reset_num_timesteps=False)  # two good episodes, from which it learns as usual
    for agent, model in team.models.items():
        assert (model.replay_buffer.size(), model._n_updates, model.gradient_steps) == (12, 6, 3)
        assert model.replay_buffer.observations[:12, 0, 0].tolist() == [0, 1, 2, 3, 4, 5] * 2
        assert changed(model, before[agent])


def test_an_episode_that_breaks_as_the_first_one_leaves_no_trace_in_what_is_learned():
    """Both teams learn from the same steps alone, so they end with the same weights, bit for bit."""
    weights = []
    for broken in ((0,), ()):
        team, _ = after_breaking(DQN, broken, exploration_initial_eps=1.0, exploration_final_eps=1.0)
        if not broken:
            team.learn(6, callback=lambda agent: NoGradientSteps())
            for model in team.models.values():
                model.replay_buffer.reset()
                model._n_updates = 0
        else:
            team.learn(6)
        weights.append([copied(model) for model in team.learn(18, reset_num_timesteps=False).models.values()])
    for mine, theirs in zip(*weights, strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


class NoGradientSteps(BaseCallback):
    def _on_training_start(self):
        self.steps, self.model.gradient_steps = self.model.gradient_steps, 0

    def _on_training_end(self):
        self.model.gradient_steps = self.steps

    def _on_step(self):
        return True


def test_a_checkpoint_of_an_empty_replay_buffer_goes_on(tmp_path):
    team, before = after_breaking(DQN, broken=(0,))
    team.learn(6).save(tmp_path / "team")
    restored = after_breaking(DQN, broken=())[0].restore(tmp_path / "team")
    for other in (IndependentLearners.load(tmp_path / "team", restored.env), restored):
        assert [model.replay_buffer.size() for model in other.models.values()] == [0, 0]
        other.learn(6)
        for agent, model in other.models.items():
            assert (model.replay_buffer.size(), model._n_updates, model.gradient_steps) == (6, 3, 3)
            assert changed(model, before[agent])


def test_a_replay_buffer_of_another_size_takes_the_newest_rows():
    team = team_of(DQN, n=2, lifetimes=(None, None), learning_starts=10_000, buffer_size=10)
    team.learn(24)
    old = team.models["agent_0"].replay_buffer
    assert old.full
    by_age = np.roll(old.rewards[:, 0], -old.pos)
    for size in (6, 16):
        new = team_of(DQN, n=2, lifetimes=(None, None), buffer_size=size).models["agent_0"].replay_buffer
        new.load_state_dict(old.state_dict())
        kept = min(size, 10)
        np.testing.assert_array_equal(new.rewards[:kept, 0], by_age[-kept:])
        assert (new.pos, new.full) == ((0, True) if size == 6 else (10, False))


def test_a_death_before_the_rollout_is_no_death_of_this_rollout():
    # Steps 0 to 3 are in the first rollout: agent 1 dies in step 3 of 9. The second has steps 4 to 7, all dead.
    team = team_of(PPO, n=1, limit=9, n_steps=4, batch_size=4, after_death="mean")
    for model in team.models.values():
        model.train = lambda: None
    team.learn(8)
    buffer, gamma = team.models["agent_1"].rollout_buffer, 0.99
    assert not buffer.live.any()
    r = buffer.rewards[:, 0].astype(float)
    # Nobody died in it, so the value is that of being dead: v = mean(known + unknown * v) over its dead steps.
    known = np.array([r[0] + gamma * (r[1] + gamma * (r[2] + gamma * r[3])), r[1] + gamma * (r[2] + gamma * r[3])])
    known = np.array([*known, r[2] + gamma * r[3], r[3]])
    unknown = gamma ** np.arange(4, 0, -1)
    assert buffer._value_of_death() == pytest.approx(known.mean() / (1 - unknown.mean()), rel=1e-5)


@pytest.mark.parametrize("after_death", ["earned", "mean"])
def test_past_the_rollouts_end_a_dead_agent_has_the_value_of_being_dead(after_death):
    # Of an episode of 9 steps the rollout has 5; agent 1 dies in step 3.
    team, buffers = rollout_of(PPO, n=1, limit=9, n_steps=5, batch_size=5, after_death=after_death)
    buffer, gamma, lam = buffers["agent_1"], 0.99, team.models["agent_1"].gae_lambda
    critic = buffer.last_values.item()
    assert abs(critic - buffer.dead_value) > 0.1
    r, values = buffer.rewards[:, 0].astype(float), buffer.values[:, 0].astype(float)
    if after_death == "earned":
        expected = plain_gae(r, values, np.zeros(5), buffer.dead_value, gamma, lam)
        np.testing.assert_allclose(buffer.advantages[:, 0], expected, rtol=1e-4, atol=1e-4)
    else:
        paid = np.array([r[0], r[1], r[2] + gamma * buffer.dead_value])
        expected = plain_gae(paid, values[:3], np.array([0, 0, 1]), 0.0, gamma, lam)
        np.testing.assert_allclose(buffer.advantages[:3, 0], expected, rtol=1e-4, atol=1e-4)


def test_an_agent_that_dies_in_the_rollouts_last_step_gets_no_value_from_its_critic():
    team, buffers = rollout_of(PPO, n=1, limit=9, n_steps=3, batch_size=3)
    buffer, gamma, lam = buffers["agent_1"], 0.99, team.models["agent_1"].gae_lambda
    assert buffer.live.all()
    assert not buffer.last_alive.any()
    assert abs(buffer.last_values.item()) > 0.1
    r, values = buffer.rewards[:, 0].astype(float), buffer.values[:, 0].astype(float)
    # No dead step has been seen yet: the value of being dead is still 0.
    expected = plain_gae(r, values, np.zeros(3), 0.0, gamma, lam)
    np.testing.assert_allclose(buffer.advantages[:, 0], expected, rtol=1e-4, atol=1e-4)


def test_an_overwritten_step_of_death_is_paid_no_more():
    # Agent 1 lives 1 of 8 steps in sub-environment 0 and all 8 in sub-environment 1; the ring has 4 rows.
    lifetimes = iter([1, None])
    env = dm2.vectorize(lambda: TinyEnv(sizes=(4, 3), lifetimes=(None, next(lifetimes)), limit=8, absorb=True), 2)
    team = IndependentLearners(
        DQN, env, seed=0, learning_starts=10_000, train_freq=1, buffer_size=4, exploration_initial_eps=1.0, **SMALL
    )
    rewards = []
    team._lockstep.listeners.append(lambda step: rewards.append(step.rewards[1, 1]))
    team.learn(14)
    replay = team.models["agent_1"].replay_buffer
    # Its rows are of steps 3 to 6 of sub-environment 1, and each has its own reward alone.
    rows = np.argsort(replay.observations[:, 0, 0])
    assert replay.observations[rows, 0, 0].tolist() == [3, 4, 5, 6]
    np.testing.assert_allclose(replay.rewards[rows, 0], rewards[3:7])


def test_the_replay_buffer_has_time_limits_and_what_followed_each_step():
    team = team_of(DQN, n=2, lifetimes=(None, None), limit=4, truncates=True, learning_starts=10_000, buffer_size=100)
    steps = []
    team._lockstep.listeners.append(steps.append)
    team.learn(16)
    replay = team.models["agent_0"].replay_buffer
    assert replay.timeouts[:16, 0].reshape(8, 2).tolist() == ([[0, 0]] * 3 + [[1, 1]]) * 2
    following = np.stack([step.infos["final_obs"][:, 0] for step in steps]).reshape(16, 4)
    np.testing.assert_array_equal(replay.next_observations[:16, 0], following)
    assert replay.next_observations[:16, 0, 0].reshape(8, 2)[:, 0].tolist() == [1, 2, 3, 4] * 2
    assert replay.sample(64).dones.sum() == 0  # a time limit is no end


def test_time_limits_end_episodes_in_a_replay_buffer_that_is_told_to_ignore_them():
    options = {"replay_buffer_kwargs": {"handle_timeout_termination": False}, "learning_starts": 10_000, "buffer_size": 100}
    team = team_of(DQN, n=2, lifetimes=(None, None), limit=4, truncates=True, **options).learn(16)
    replay = team.models["agent_0"].replay_buffer
    assert replay.timeouts[:16, 0].tolist() == [0] * 16
    assert replay.dones[:16, 0].reshape(8, 2).tolist() == ([[0, 0]] * 3 + [[1, 1]]) * 2
    assert set(replay.sample(64).dones.flatten().tolist()) == {0, 1}
