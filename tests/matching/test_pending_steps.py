import numpy as np

from dm2_wrappers.matching import PendingSteps


def test_steps_are_stacked_and_broken_episodes_forgotten_whole():
    rollout = PendingSteps()
    ended = [[0, 0], [1, 0], [0, 1], [0, 0]]
    broken = [[0, 0], [0, 0], [0, 1], [0, 0]]
    for t in range(4):
        observations = np.full((2, 1, 3), t, np.float32)
        rollout.append(observations, np.ones((2, 1), bool), np.array(ended[t], bool), np.array(broken[t], bool))
    assert len(rollout) == 4
    observations, alive, forget, more = rollout.stacked()
    assert (len(rollout), more) == (4, {})
    rollout.clear()
    assert observations.shape == (4, 2, 1, 3)
    assert alive.shape == (4, 2, 1)
    assert observations[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    # Copy 0's episode ended well; copy 1's steps 0-2 were one episode, which broke; its step 3 is of the next.
    assert forget.astype(int).tolist() == [[0, 1], [0, 1], [0, 1], [0, 0]]
    assert len(rollout) == 0


def test_without_news_of_breaking_nothing_is_forgotten():
    rollout = PendingSteps()
    rollout.append(np.zeros((1, 1, 1), np.float32), np.ones((1, 1), bool), np.array([True]))
    assert not rollout.stacked()[2].any()


def test_an_episode_that_ends_or_breaks_in_a_step_that_is_left_out():
    pending = PendingSteps()
    pending.skip(np.array([True]))  # nothing is here yet
    for value, ended in ((0, False), (1, True), (2, False), (3, False), (4, True)):
        pending.append(
            np.full((1, 1, 1), value, np.float32), np.ones((1, 1), bool), np.array([ended]), np.array([value == 4])
        )
        if value == 1:  # that episode is over: what is left out belongs to another
            pending.skip(np.array([True]), np.array([True]))
        if value == 2:
            pending.skip(np.array([True]), np.array([True]))
    _, _, broken, _ = pending.stacked()
    pending.clear()
    assert broken[:, 0].tolist() == [False, False, True, True, True]
    for skipped in (False, True):
        pending.append(np.zeros((1, 1, 1), np.float32), np.ones((1, 1), bool), np.array([False]))
        if skipped:
            pending.skip(np.array([True]))
        pending.append(np.zeros((1, 1, 1), np.float32), np.ones((1, 1), bool), np.array([True]), np.array([True]))
        assert pending.stacked()[2][:, 0].tolist() == [not skipped, True]
        pending.clear()


def test_after_a_cut_what_follows_is_of_another_episode():
    rollout = PendingSteps()
    for ended, broken in ((False, False), (True, True)):
        rollout.append(np.zeros((1, 1, 1), np.float32), np.ones((1, 1), bool), np.array([ended]), np.array([broken]))
        if not ended:
            rollout.cut()
    assert rollout.stacked()[2][:, 0].tolist() == [False, True]
    rollout.clear()
    rollout.cut()  # of nothing
    assert len(rollout) == 0


def test_an_environment_may_use_its_array_of_broken_episodes_again():
    pending, broken = PendingSteps(), np.array([True])
    pending.append(np.zeros((1, 1, 1), np.float32), np.ones((1, 1), bool), np.array([True]), broken)
    broken[:] = False
    assert pending.stacked()[2].tolist() == [[True]]


def test_arrays_that_were_given_stay_as_they_are():
    pending, ended = PendingSteps(), [np.array([False, False]) for _ in range(2)]
    for each, leave in zip(ended, (lambda: pending.skip(np.array([True, False])), pending.cut), strict=True):
        pending.append(np.zeros((2, 1, 1), np.float32), np.ones((2, 1), bool), each)
        leave()
    assert not np.any(ended)
