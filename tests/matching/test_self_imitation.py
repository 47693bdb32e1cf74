"""The team's own best episodes as demonstrations."""

import warnings

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete

import dm2_wrappers as dm2
from dm2_wrappers import DistributionMatcher, JointRollout, SelfImitation
from dm2_wrappers.matching.episode_collector import EpisodeCollector
from dm2_wrappers.matching.self_imitation import OwnEpisode
from tests.helpers import small_demonstrations
from tests.helpers.tiny_envs import TinyEnv
from tests.helpers.tiny_matchers import same


def own(team_return, length=3, mark=0.0):
    """An episode of two agents with 3 and 2 features and this return."""
    observations = np.full((length, 2, 3), mark, np.float32)
    observations[:, 1, 2:] = 0
    rewards = np.zeros(length)
    rewards[-1] = team_return
    return OwnEpisode(observations, np.ones((length, 2), bool), np.zeros((length, 2), int), rewards)


def alone(above_mean=False, **options):
    return SelfImitation(env=TinyEnv(), above_mean=above_mean, **options)


def play(venv, matcher, steps, seed=0):
    """Random steps in a wrapped vector environment; the actions' random stream depends on the seed only."""
    env = dm2.DM2VectorEnv(venv, matcher, coefficient=1.0, update_every=20)
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    paid = [env.step(rng.integers(0, 3, (venv.num_envs, 2)))[4]["gail_reward"] for _ in range(steps)]
    return np.stack(paid)


def test_the_best_episodes_are_kept_and_of_equal_ones_the_earlier():
    best = alone(episodes=3)
    kept = [best.offer(own(r, mark=i)) for i, r in enumerate([1, 5, 2, 0, 1, 9, 5])]
    assert kept == [True, True, True, False, False, True, True]
    assert best.returns == [9, 5, 5]
    demos = best.demonstrations()
    assert len(demos) == len(best) == 3
    assert demos.padded_observations[::3, 0, 0].tolist() == [5, 1, 6]  # which episodes, the best first
    assert demos.mean_return == pytest.approx(19 / 3)
    assert demos.style == "concurrent"
    assert demos.win_rate is None  # a return says nothing about wins


def test_by_default_an_episode_has_to_be_better_than_the_mean_of_those_before_it():
    best = SelfImitation(env=TinyEnv())
    # The means before each: none, 0, 0, 4, 4, 4.5
    assert [best.offer(own(r)) for r in (0, 0, 12, 4, 6.5, 4.6)] == [False, False, True, False, True, True]
    other = SelfImitation(env=TinyEnv())
    other.load_state_dict(best.state_dict())
    assert not other.offer(own(4.5))
    assert not best.offer(own(4.5))


def test_long_episodes_and_agents_that_never_lived_are_left_out():
    best = alone(max_steps=3)
    assert not best.offer(own(9, length=4))
    dead = own(9)
    dead.alive[:, 1] = False
    assert not best.offer(dead)
    assert best.demonstrations() is None
    assert best.returns == []


def test_the_collector_offers_whole_episodes_with_the_teams_return():
    class Matcher:
        self_imitation = alone(max_steps=3)

    collector = EpisodeCollector(Matcher())

    def step(t, time, rewards, ended, broken=(False, False)):
        observations = np.full((2, 2, 3), t, np.float32)
        alive = np.array([[True, True], [True, t != 1]])
        flags = np.array(ended), np.array(broken)
        collector.step(observations, alive, np.full((2, 2), t), np.array(rewards, float), *flags, np.array(time))

    step(0, [0, 2], [1, 9], [False, False])  # the second sub-environment's first steps were not seen
    step(1, [1, 3], [2, 9], [True, True])
    step(2, [0, 0], [3, 4], [False, False])
    step(3, [1, 1], [5, 0], [True, True], [False, True])  # and its next episode broke
    assert Matcher.self_imitation.returns == [8, 3]
    assert len(collector._steps) == 0
    best = Matcher.self_imitation.demonstrations()
    assert best.padded_observations[:, 0, 0].tolist() == [2, 3, 0, 1]
    assert best.actions[:, 1].tolist() == [2, 3, 0, 1]
    for t in range(5):
        step(t, [t, t], [0, 0], [False, False])
    assert len(collector._steps) == 3  # no more than max_steps are kept
    step(5, [5, 5], [99, 99], [True, True])
    assert Matcher.self_imitation.returns == [8, 3]


def test_episodes_too_long_to_keep_count_for_the_mean():
    class Matcher:
        self_imitation = SelfImitation(env=TinyEnv(), max_steps=2)

    collector, imitation = EpisodeCollector(Matcher()), Matcher.self_imitation

    def step(time, reward, ended):
        arrays = np.zeros((1, 2, 3), np.float32), np.ones((1, 2), bool), np.zeros((1, 2), int), np.array([reward])
        collector.step(*arrays, np.array([ended]), None, np.array([time]))

    step(0, 1.0, True)
    for time in range(4):
        step(time, 10.0, time == 3)
    assert (imitation._offered, imitation._sum) == (2, 41.0)
    step(0, 20.0, True)  # not above the mean of 20.5
    assert imitation.returns == []
    step(0, 5.0, False)
    collector.skip()
    step(1, 5.0, True)  # the step before was of another episode
    step(0, 5.0, False)
    step(2, 5.0, True)
    assert imitation._offered == 3


def test_steps_that_are_not_recorded_tear_episodes_apart():
    matcher = DistributionMatcher(alone(), updates=1, batch_size=4, seed=0)
    env = dm2.DM2ParallelEnv(TinyEnv(limit=2), matcher, coefficient=1.0)
    for trained in ((True, False), (False, True)):
        env.reset(seed=0)
        for env.training in trained:
            env.step(dict.fromkeys(env.agents, 1))
    assert (matcher.self_imitation.returns, matcher.self_imitation._offered) == ([], 0)


def test_another_number_of_sub_environments_begins_anew():
    class Matcher:
        self_imitation = alone()

    collector = EpisodeCollector(Matcher())
    for n, time in ((2, 0), (3, 1), (3, 0)):
        arrays = np.zeros((n, 2, 3), np.float32), np.ones((n, 2), bool), np.zeros((n, 2), int), np.ones(n)
        collector.step(*arrays, np.full(n, n == 3), None, np.full(n, time))
    assert Matcher.self_imitation._offered == 3


def test_an_episode_whose_arrays_do_not_fit_together_is_refused():
    best = alone()
    for name, change in (
        ("alive", np.ones((2, 2), bool)),
        ("actions", np.zeros((3, 1), int)),
        ("rewards", np.zeros((3, 2))),
    ):
        episode = own(1)
        setattr(episode, name, change)
        with pytest.raises(ValueError, match=f"expected {name} of"):
            best.offer(episode)
    best.offer(own(1))
    continuous = own(2)
    continuous.actions = np.zeros((3, 2, 4))
    with pytest.raises(ValueError, match=r"actions of the shape \[\] of each agent, as in the other episodes, got \[4\]"):
        best.offer(continuous)
    assert (best._offered, best.returns) == (1, [1])


def test_rewards_and_actions_are_needed():
    rollout = JointRollout(DistributionMatcher(alone()))
    step = np.zeros((1, 2, 3), np.float32), np.ones((1, 2), bool), np.zeros(1, bool)
    with pytest.raises(ValueError, match="SelfImitation needs each step's actions and team_rewards"):
        rollout.append(*step, actions=np.zeros((1, 2), int))


def test_alone_nothing_is_paid_before_the_first_episode_has_ended():
    matcher = DistributionMatcher(alone(), updates=2, batch_size=8, seed=0)
    observations, alive = np.ones((4, 1, 2, 3), np.float32), np.ones((4, 1, 2), bool)
    observations[..., 1, 2:] = 0
    assert not matcher.rewards(observations).any()
    matcher.record(observations, alive)
    assert matcher.update()["trained"] == 0
    matcher.self_imitation.offer(own(1.0))
    assert matcher.update()["trained"] == 1
    assert matcher._experts.counts == [3, 3]
    assert matcher.rewards(2 * observations).all()


def test_own_episodes_are_added_to_the_experts():
    demos = small_demonstrations.make()  # 9 steps; agent 1 is dead in 3 of them
    matcher = DistributionMatcher(SelfImitation(demos, episodes=1, above_mean=False), seed=0)
    assert matcher.demonstrations is demos
    assert matcher._experts.counts == [9, 6]
    matcher.self_imitation.offer(own(1.0, mark=50))
    matcher.update()
    assert matcher._experts.counts == [12, 9]
    assert matcher._experts.rows[9:12, 0].tolist() == [50, 50, 50]
    matcher.self_imitation.offer(own(2.0, length=2, mark=60))  # replaces the other one
    matcher.update()
    assert matcher._experts.rows[9:11, 0].tolist() == [60, 60]
    assert matcher._experts.counts == [11, 8]


@pytest.mark.parametrize("inputs", ["state", "state-action", "transition"])
def test_wrappers_collect_the_episodes_that_the_environment_plays(inputs):
    """Alone or added: the best returns are those of the bare environment."""
    options = {"limit": 4, "random_limit": True, "lifetimes": (None, 2), "absorb": True, "broken": (1,)}
    source = (
        SelfImitation(small_demonstrations.make(), episodes=4, above_mean=False) if inputs == "state" else alone(episodes=4)
    )
    spaces = {"action_spaces": {"agent_0": 3, "agent_1": 3}} if inputs == "state-action" else {}
    matcher = DistributionMatcher(source, inputs=inputs, updates=2, batch_size=8, seed=0, **spaces)
    paid = play(dm2.vectorize(lambda: TinyEnv(**options), 2), matcher, 40)
    assert np.isfinite(paid).all()
    bare, rng, sums, found = (
        dm2.vectorize(lambda: TinyEnv(**options), 2),
        np.random.default_rng(0),
        [0, 0],
        [],
    )
    bare.reset(seed=0)
    for _ in range(40):
        _, rewards, terminations, truncations, infos = bare.step(rng.integers(0, 3, (2, 2)))
        for i in range(2):
            sums[i] += rewards[i, 0]
            if (terminations | truncations)[i].all():
                found += [] if infos["broken"][i] else [sums[i]]
                sums[i] = 0
    assert matcher.self_imitation.returns == sorted(found, reverse=True)[:4]


def test_the_state_holds_the_episodes_and_goes_on_bit_for_bit():
    make = lambda: DistributionMatcher(alone(episodes=4), updates=2, batch_size=8, buffer_size=60, seed=0)  # noqa: E731
    one, other = make(), make()
    play(dm2.vectorize(TinyEnv, 2), one, 30)
    other.load_state_dict(one.state_dict())
    assert other.self_imitation.returns == one.self_imitation.returns
    first, second = (play(dm2.vectorize(TinyEnv, 2), matcher, 30, seed=1) for matcher in (one, other))
    np.testing.assert_array_equal(first, second)
    assert same(one.state_dict(), other.state_dict())
    few = DistributionMatcher(alone(episodes=3), updates=2, batch_size=8, buffer_size=60, seed=0)
    before = few.state_dict()
    with pytest.raises(ValueError, match="4 episodes of SelfImitation were saved, but episodes is 3"):
        few.load_state_dict(one.state_dict())
    assert same(few.state_dict(), before)
    state = one.state_dict()
    state["self_imitation"]["episodes"][0]["alive"] = torch.ones(1, 9, dtype=torch.bool)
    with pytest.raises(ValueError, match="of other agents, sizes or max_steps, or damaged"):
        other.load_state_dict(state)


def test_a_finished_episode_waits_for_the_next_update_in_a_loaded_matcher_too():
    make = lambda: DistributionMatcher(alone(episodes=2, above_mean=False), updates=2, batch_size=8, seed=0)  # noqa: E731
    one, observations = make(), np.ones((4, 1, 2, 3), np.float32)
    observations[..., 1, 2:] = 0
    one.record(observations, np.ones((4, 1, 2), bool))
    one.self_imitation.offer(own(1.0, mark=50))
    untrained = make()
    untrained.load_state_dict(one.state_dict())
    assert untrained._experts.counts == one._experts.counts == [0, 0]
    one.self_imitation.offer(own(2.0, mark=60))
    one.update()
    one.self_imitation.offer(own(3.0, mark=70))  # replaces that of return 1, which the discriminators have learned from
    other = make()
    other.self_imitation.offer(own(9.0, mark=90))
    other.update()  # what a used matcher has taken in is forgotten
    other.load_state_dict(one.state_dict())
    assert other._experts.rows.tolist() == one._experts.rows.tolist()
    assert sorted(set(one._experts.rows[:, 0].tolist())) == [50, 60]
    assert other.self_imitation.returns == one.self_imitation.returns == [3.0, 2.0]
    for matcher in (one, other):
        matcher.record(observations, np.ones((4, 1, 2), bool))
        matcher.update()
    assert same(one.state_dict(), other.state_dict())
    assert sorted(set(other._experts.rows[:, 0].tolist())) == [60, 70]
    other.load_state_dict(untrained.state_dict())
    assert other._experts.counts == [0, 0]


def test_a_buffer_that_others_have_learned_from_teaches_a_new_matcher_too():
    used, loaded = alone(), alone()
    used.offer(own(1.0))
    used.take()
    loaded.load_state_dict(used.state_dict())
    observations = np.ones((4, 1, 2, 3), np.float32)
    observations[..., 1, 2:] = 0
    for buffer in (used, loaded):
        matcher = DistributionMatcher(buffer, updates=2, batch_size=8, seed=0)
        matcher.record(observations, np.ones((4, 1, 2), bool))
        assert matcher.update()["trained"] == 1


def test_a_state_with_more_episodes_to_learn_from_than_fit_is_refused():
    best = alone(episodes=2, above_mean=False)
    for each in (1.0, 2.0):
        best.offer(own(each))
    best.take()
    state, small = best.state_dict(), alone(episodes=1)
    with pytest.raises(ValueError, match="2 episodes of SelfImitation were saved, but episodes is 1"):
        small.load_state_dict({**state, "kept": state["kept"][:1]})
    assert len(small) == 0


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match="needs experts=demonstrations, or env=environment, one of the two"):
        SelfImitation()
    with pytest.raises(TypeError, match="experts must be Demonstrations, got TinyEnv; pass an environment as env="):
        SelfImitation(TinyEnv())
    with pytest.raises(TypeError, match=r"SelfImitation\(env=\) takes a PettingZoo ParallelEnv"):
        SelfImitation(env=3)
    with pytest.raises(ValueError, match="episodes must be an integer of at least 1"):
        alone(episodes=0)
    with pytest.raises(ValueError, match=r"expected observations \[L, 2, 3\]"):
        alone().offer(OwnEpisode(np.zeros((2, 1, 3), np.float32), np.ones((2, 1), bool), np.zeros((2, 1)), np.zeros(2)))
    with pytest.raises(ValueError, match="SelfImitation was made for"):
        dm2.DM2ParallelEnv(TinyEnv(sizes=(4, 4)), alone(), coefficient=1.0)
    with pytest.raises(ValueError, match="chunks do not say what episodes return"):
        DistributionMatcher(alone()).algorithm1([("agent_0", np.zeros((2, 3)))])


def test_a_single_step_is_paid_nothing_either_before_the_first_episode_has_ended():
    """As the wrappers of one environment pay it, by a shorter way."""
    matcher = DistributionMatcher(alone(), seed=0)
    observations, alive = np.ones((1, 2, 3), np.float32), np.ones((1, 2), bool)
    observations[:, 1, 2:] = 0
    assert not matcher.rewards(observations, alive).any()
    env = dm2.DM2ParallelEnv(TinyEnv(), matcher, coefficient=1.0)
    env.reset(seed=0)
    infos = env.step(dict.fromkeys(env.agents, 1))[4]
    assert [infos[agent]["gail_reward"] for agent in env.agents] == [0.0, 0.0]


def test_an_episode_of_the_largest_length_is_kept():
    best = alone(max_steps=3)
    assert best.offer(own(9, length=3))


def test_defaults_of_self_imitation():
    best = SelfImitation(env=TinyEnv())
    assert (best.episodes, best.above_mean, best.max_steps) == (100, True, 1_000)
    best.offer(own(1.0))
    best.offer(own(2.0))
    assert best.demonstrations().has_actions


def test_own_episodes_of_another_scenario_are_refused():
    best = alone()
    best.check_compatible(best.agents, best.sizes, None)
    with pytest.raises(ValueError, match="the environment is 'other', but SelfImitation was made for"):
        best.check_compatible(best.agents, best.sizes, "other")


@pytest.mark.parametrize(
    "damage",
    [
        lambda episode: episode["rewards"].fill_(torch.nan),
        lambda episode: episode.update({name: value[:0] for name, value in episode.items() if name != "number"}),
    ],
    ids=["not finite", "no step"],
)
def test_a_damaged_saved_episode_is_refused(damage):
    best = alone()
    best.offer(own(1.0))
    state = best.state_dict()
    damage(state["episodes"][0])
    with pytest.raises(ValueError, match="of other agents, sizes or max_steps, or damaged"):
        alone().load_state_dict(state)


def test_as_long_as_one_agent_has_no_row_nothing_is_imitated():
    """An agent whose only live step is the last one has no transition."""
    matcher = DistributionMatcher(alone(), inputs="transition", updates=2, batch_size=8, seed=0)
    episode = own(1.0)
    episode.alive[:2, 1] = False
    assert matcher.self_imitation.offer(episode)
    matcher.update()
    assert matcher._experts.counts == [0, 0]
    matcher.self_imitation.offer(own(2.0))
    matcher.update()
    assert matcher._experts.counts == [4, 2]


def test_large_features_of_own_episodes_warn_only_where_they_are_not_standardized():
    for standardize in (True, False):
        matcher = DistributionMatcher(
            SelfImitation(small_demonstrations.make(), above_mean=False), standardize=standardize, seed=0
        )
        matcher.self_imitation.offer(own(1.0, mark=1e6))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            matcher.update()
        assert len(caught) == (not standardize)


def test_the_newest_of_equal_episodes_are_kept_if_wanted():
    best = alone(episodes=3, prefer_newest=True)
    kept = [best.offer(own(r, mark=i)) for i, r in enumerate([20.0, 20.001, 5, 19.999, 20.0, 4, 21, 20.0])]
    assert kept == [True, True, True, True, True, False, True, True]  # 20.001 and 19.999 are 20.00, too
    assert best.returns == [21, 20, 20]
    close = alone(prefer_newest=True)
    assert [close.offer(own(team_return)) for team_return in (20.04, 20.0, 19.999)] == [True] * 3
    assert close.returns == [20.04, 19.999, 20.0]  # 19.999 is 20.00, too, and the newest; 20.04 is more
    assert best.demonstrations().padded_observations[::3, 0, 0].tolist() == [6, 7, 4]
    best.take()
    assert best.taken_numbers == [6, 7, 4]
    other = SelfImitation.from_options(best.options, None)
    other.load_state_dict(best.state_dict())
    assert other.taken_numbers == [6, 7, 4]
    for buffer in (best, other):
        buffer.offer(own(20.0, mark=8))
        assert buffer.demonstrations().padded_observations[::3, 0, 0].tolist() == [6, 8, 7]


def test_options_without_it_make_a_buffer_that_keeps_the_earliest():
    older = alone(episodes=3).options
    assert "prefer_newest" not in older  # checkpoints from before this option lack it
    assert not SelfImitation.from_options(older, None).prefer_newest


@pytest.mark.parametrize("inputs", ["state", "state-action", "transition"])
def test_own_episodes_that_stay_are_shown_like_new_ones(inputs):
    """The rows after several updates are those of a matcher that takes in all episodes at once."""
    rng = np.random.default_rng(0)
    play = [own(r, length=int(rng.integers(2, 5)), mark=i) for i, r in enumerate([1, 5, 2, 7, 3, 9, 8])]
    play[3].alive[1:, 1] = False  # dies after its first step
    spaces = {"action_spaces": {agent: Discrete(3) for agent in ("agent_0", "agent_1")}} if inputs == "state-action" else {}
    step_by_step, at_once = (DistributionMatcher(alone(episodes=3), inputs=inputs, seed=0, **spaces) for _ in range(2))
    for episode in play:
        step_by_step.self_imitation.offer(episode)
        at_once.self_imitation.offer(episode)
        step_by_step._experts.renew()
    at_once._experts.renew()
    assert step_by_step.self_imitation.returns == [9, 8, 7]
    assert step_by_step._experts.counts == at_once._experts.counts
    lengths = [len(play[i].rewards) - (inputs == "transition") for i in (5, 6, 3)]
    assert at_once._experts.counts == [sum(lengths), sum(lengths[:2]) + (inputs != "transition")]
    assert torch.equal(step_by_step._experts.rows, at_once._experts.rows)
    assert at_once._experts.rows[:, 0].tolist() == [
        *np.repeat([5.0, 6.0, 3.0], lengths),
        *np.repeat([5.0, 6.0, 3.0], [*lengths[:2], inputs != "transition"]),
    ]


def test_episodes_of_a_state_that_was_loaded_replace_those_of_the_same_number():
    matcher, other = (DistributionMatcher(alone(episodes=3), seed=0) for _ in range(2))
    for i, team_return in enumerate([1, 2, 3]):
        matcher.self_imitation.offer(own(team_return, mark=i))
        other.self_imitation.offer(own(team_return, mark=100 + i))
    assert matcher._experts.renew()
    assert not matcher._experts.renew()  # nothing has changed
    matcher.self_imitation.load_state_dict(other.self_imitation.state_dict())
    assert matcher._experts.renew()
    assert matcher._experts.rows[:9, 0].tolist() == [102.0] * 3 + [101.0] * 3 + [100.0] * 3


def test_only_new_episodes_are_read_and_others_are_forgotten(monkeypatch):
    experts = (matcher := DistributionMatcher(alone(episodes=2), seed=0))._experts
    read, original = [], experts._rows_of_episodes
    monkeypatch.setattr(experts, "_rows_of_episodes", lambda demos: read.append(len(demos)) or original(demos))
    for team_return in (1, 2, 3, 5):
        matcher.self_imitation.offer(own(team_return, mark=team_return))
        experts.renew()
    assert read == [1, 1, 1, 1]
    assert list(experts._shown) == matcher.self_imitation.taken_numbers == [3, 2]
    rows = experts._shown[3][1][0]
    assert rows.untyped_storage().nbytes() == rows.nbytes  # not a view of a larger batch


def test_a_state_whose_episodes_cannot_be_shown_changes_nothing():
    make = lambda: DistributionMatcher(  # noqa: E731
        alone(episodes=5), inputs="state-action", seed=0, action_spaces={"agent_0": Discrete(3), "agent_1": Discrete(3)}
    )
    matcher = make()
    matcher.self_imitation.offer(own(1.0))
    matcher._experts.renew()
    before, rows, state = matcher.state_dict(), matcher._experts.rows.clone(), matcher.state_dict()
    state["self_imitation"]["episodes"][0]["actions"][:] = 7
    state["offsets"] = state["offsets"] + 5
    for _ in range(2):
        with pytest.raises(ValueError, match="7"):
            matcher.load_state_dict(state)
        assert same(matcher.state_dict(), before)
        assert torch.equal(matcher._experts.rows, rows)
    other = make()
    other.load_state_dict(before)
    assert torch.equal(other._experts.rows, rows)


def test_a_state_whose_discriminators_cannot_be_loaded_leaves_the_episodes(monkeypatch):
    one, other = (DistributionMatcher(alone(), seed=0) for _ in range(2))
    for matcher, mark in ((one, 1), (other, 2)):
        matcher.self_imitation.offer(own(1.0, mark=mark))
        matcher._experts.renew()

    def no_memory(state):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(one.discriminators, "load_state_dict", no_memory)
    with pytest.raises(ValueError, match="out of memory"):
        one.load_state_dict(other.state_dict())
    assert one._experts.rows[:3, 0].tolist() == [1.0] * 3


def test_an_episode_that_cannot_be_shown_is_refused_at_every_update():
    spaces = {"agent_0": Discrete(3), "agent_1": Discrete(3)}
    matcher = DistributionMatcher(alone(), inputs="state-action", seed=0, action_spaces=spaces)
    wrong = own(1.0)
    wrong.actions[:] = 7
    matcher.self_imitation.offer(wrong)
    for _ in range(2):
        with pytest.raises(ValueError, match="7"):
            matcher._experts.renew()


def test_absorbing_steps_are_those_of_the_experts_and_of_own_episodes():
    demos = small_demonstrations.make()
    matcher = DistributionMatcher(SelfImitation(demos, above_mean=False), ends="absorbing", max_steps=9, seed=0)
    absorbing = matcher._absorbing
    of_experts = absorbing.of_experts(demos)
    assert matcher._experts.absorbing_steps(absorbing).tolist() == list(of_experts)
    matcher.self_imitation.offer(own(1.0, length=3))
    matcher._experts.renew()
    assert matcher._experts.absorbing_steps(absorbing).tolist() == [steps + 9 - 3 for steps in of_experts]


def test_prefer_newest_is_a_flag():
    with pytest.raises((TypeError, ValueError), match="prefer_newest must be True or False"):
        alone(prefer_newest="yes")
