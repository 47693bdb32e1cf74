"""What is recorded, when the discriminators are updated, and the warning if they never are."""

import warnings
from pathlib import Path

import numpy as np
import pytest

import dm2_wrappers as dm2
from tests.helpers.tiny_envs import TinyEnv
from tests.helpers.tiny_matchers import same
from tests.helpers.wrapped import OPTIONS, matcher, paid_for, play, recording, zeros


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


@pytest.mark.parametrize("kind", ["parallel", "vector"])
def test_an_episode_whose_end_was_not_recorded_is_told_no_schedule_and_breaks_no_other(kind):
    class Returns(dm2.schedules.Schedule):
        told = ()

        def coefficient(self):
            return 0.5

        def update(self, progress):
            self.told = progress.returns.tolist()

    options, schedule = {**OPTIONS, "broken": (2,)}, Returns()  # the third of six episodes breaks; each has five steps
    if kind == "parallel":
        env = dm2.DM2ParallelEnv(TinyEnv(**options), matcher(), coefficient=schedule)
    else:
        env = dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(**options), 1), matcher(), coefficient=schedule)
    env.reset(seed=0)
    for step in range(30):
        env.training = not (8 <= step < 12 or step == 21)  # test steps across the second episode's end, and in the fifth
        env.step(dict.fromkeys(env.agents, 0) if kind == "parallel" else np.zeros((1, 2), int))
        if kind == "parallel" and not env.agents:
            env.reset()
    metrics = env.update()
    # Recorded: five steps, three of the second episode, none of the third, which broke, five, four and five, of two agents.
    assert metrics["transitions"] == 2 * (5 + 3 + 5 + 4 + 5)
    assert len(schedule.told) == 3
    assert len(set(schedule.told)) == 1


@pytest.mark.parametrize("kind", ["parallel", "vector"])
def test_saving_and_loading_do_not_change_when_updates_come(kind):
    def make():
        options = {"coefficient": 1.0, "update_every": 8}
        if kind == "parallel":
            return dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), **options)
        return dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(**OPTIONS), 2), matcher(), **options)

    saved_often, used, updates = make(), make(), []
    record, update = saved_often.matcher.record, saved_often.matcher.update
    handed = []
    saved_often.matcher.record = lambda *args, **options: handed.append(len(args[0])) or record(*args, **options)
    saved_often.matcher.update = lambda: updates.append(sum(handed)) or update()
    play(used, 3)
    for _ in range(6):
        play(saved_often, 3)
        saved_often.flush()
        state = saved_often.state_dict()
    per_step = 1 if kind == "parallel" else 2
    assert updates == [steps for steps in range(1, 19) if steps * per_step % 8 == 0]
    assert state["steps_since_update"] == 18 * per_step % 8
    before = used.state_dict()
    for wrong in (-3, None, "x"):
        with pytest.raises(ValueError, match="steps_since_update must be an integer of at least 0"):
            used.load_state_dict({**state, "steps_since_update": wrong})
        assert same(used.state_dict(), before)
    used.load_state_dict(state)
    assert used.steps_since_update == state["steps_since_update"]


def test_batched_update_every_counts_steps_of_all_copies():
    venv = dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(**OPTIONS), 3), matcher(), coefficient=0.3, update_every=6)
    venv.reset(seed=0)
    for _ in range(4):
        venv.step(np.zeros((3, 2), int))
    assert venv.metrics["transitions"] == 12


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
    assert Path(caught[0].filename).name == Path(__file__).name


def test_steps_that_the_matcher_could_not_record_are_kept(monkeypatch):
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=0.3)
    env.reset(seed=0)
    env.step({"agent_0": 1, "agent_1": 1})
    with monkeypatch.context() as patch:
        patch.setattr(env.matcher, "record", lambda *args, **options: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            env.flush()
    env.flush()
    assert env.matcher.update()["transitions"] == 2
