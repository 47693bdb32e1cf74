import numpy as np
import pytest
import torch

from dm2_wrappers import Convergence
from tests.helpers.tiny_matchers import make, rollout, same


def history(*losses):
    """Two agents: the first has these losses, the second's fall by 1 a minibatch."""
    return [{"loss": torch.tensor([loss, 100.0 - i])} for i, loss in enumerate(losses)]


def test_training_goes_on_until_the_mean_loss_of_two_windows_differs_by_less_than_the_tolerance():
    convergence = Convergence(tolerance=0.5, window=2, most=20)
    only_the_first = [True, False]
    assert convergence.more([], only_the_first) == 2
    assert convergence.more(history(5, 5), only_the_first) == 2  # one window has nothing to be compared with
    # Means 5 and 4.4 differ by 0.6, then 4.4 and 4.0 by 0.4, although single losses differ by 1.
    assert convergence.more(history(5, 5, 4.4, 4.4), only_the_first) == 2
    assert convergence.more(history(5, 5, 4.4, 4.4, 3.5, 4.5), only_the_first) == 0
    assert convergence.more(history(5, 5, 4.4, 4.4, 3.5, 4.5), [True, True]) == 2
    # A loss that rises has not converged either.
    assert convergence.more(history(3, 3, 4, 4), only_the_first) == 2


def test_training_ends_at_the_limit_and_the_metrics_say_whether_it_converged():
    convergence = Convergence(tolerance=0.5, window=2, most=5)
    falling = history(9, 8, 7, 6)
    assert convergence.more(falling, [True, True]) == 1
    falling = history(9, 8, 7, 6, 5)
    assert convergence.more(falling, [True, True]) == 0
    assert convergence.metrics(falling, ("a", "b"), [True, False]) == {
        "minibatches": 5.0,
        "converged": 0.0,
        "minibatches/a": 5.0,
        "converged/a": 0.0,
    }
    flat = history(3, 3, 3, 3)
    metrics = convergence.metrics(flat, ("a", "b"), [True, True])
    assert (metrics["converged"], metrics["converged/a"], metrics["converged/b"]) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0}, "tolerance must be a finite number above 0, got 0"),
        ({"window": 0}, "window must be an integer of at least 1, got 0"),
        ({"window": 10, "most": 19}, "most must be an integer of at least 20, got 19"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Convergence(**options)


def test_an_update_of_one_agent_leaves_the_others_as_they_are():
    both, one = make(), make()
    for matcher in (both, one):
        matcher.record(*rollout())
    before = one.state_dict()
    metrics = one.update(["b"])
    both.update()
    trained, untrained, fully = one.state_dict(), before, both.state_dict()

    observations, _ = rollout(seed=1)
    # Agent b's discriminator, its offset and its draws are those of an update of all; agent a's are as before.
    assert torch.equal(torch.tensor(one.rewards(observations)[..., 1]), torch.tensor(both.rewards(observations)[..., 1]))
    assert trained["offsets"][0] == 0
    assert trained["offsets"][1] == fully["offsets"][1] != 0
    assert trained["streams"] == [untrained["streams"][0], fully["streams"][1]]
    assert torch.equal(torch.tensor(one.rewards(observations)[..., 0]), torch.tensor(make().rewards(observations)[..., 0]))
    assert metrics["transitions"] == float(rollout()[1][..., 1].sum())
    assert "loss/b" in metrics
    assert not {"loss/a", "minibatches"} & set(metrics)
    with pytest.raises(ValueError, match="expected agents among"):
        one.update(["c"])


@pytest.mark.parametrize("keep_buffer", [True, False])
def test_agents_updated_one_after_the_other_learn_from_the_same_rollout(keep_buffer):
    together, in_turn = make(keep_buffer=keep_buffer), make(keep_buffer=keep_buffer)
    for seed in (0, 1):
        for matcher in (together, in_turn):
            matcher.record(*rollout(seed=seed))
        together.update()
        assert in_turn.update(["a"])["trained"] == 1
        saved = in_turn.state_dict()
        assert in_turn.update(["a"])["trained"] == 0  # a has learned from this rollout
        in_turn = make(keep_buffer=keep_buffer)
        in_turn.load_state_dict(saved)
        assert in_turn.update(["b"])["trained"] == 1
        observations, _ = rollout(seed=2)
        assert np.array_equal(in_turn.rewards(observations), together.rewards(observations))
        assert in_turn.state_dict()["buffer"]["added"].tolist() == together.state_dict()["buffer"]["added"].tolist()


@pytest.mark.parametrize("keep_buffer", [True, False])
def test_a_loaded_matcher_begins_a_new_rollout_where_the_saved_one_would(keep_buffer):
    one, other = (make(keep_buffer=keep_buffer) for _ in range(2))
    one.record(*rollout(seed=0))
    one.update(["a"])
    other.load_state_dict(one.state_dict())
    for each in (one, other):
        each.record(*rollout(seed=1))
    assert same(one.state_dict(), other.state_dict())
    assert one.update(["b"]) == other.update(["b"])


@pytest.mark.parametrize("keep_buffer", [True, False])
def test_a_new_rollout_is_the_only_new_one_for_agents_that_were_not_updated(keep_buffer):
    matcher = make(keep_buffer=keep_buffer)
    matcher.record(*rollout(seed=0))
    matcher.update(["a"])
    matcher.record(*rollout(seed=1))
    live = rollout(seed=1)[1][..., 1].sum()
    both = live + (rollout(seed=0)[1][..., 1].sum() if keep_buffer else 0)
    assert matcher.state_dict()["buffer"]["added"][1] == both
    assert matcher.update(["b"])["transitions"] == live
    # The offset is the mean over the newest rollout.
    observations, alive = rollout(seed=1)
    assert matcher.rewards(observations, alive)[..., 1][alive[..., 1]].mean() == pytest.approx(0, abs=1e-5)


def test_an_update_until_convergence_trains_more_minibatches_only_while_the_loss_falls():
    matcher = make(learning_rate=1e-2)
    matcher.record(*rollout())
    loose = matcher.update(["a"], convergence=Convergence(tolerance=100.0, window=3, most=300))
    assert (loose["minibatches/a"], loose["converged"]) == (6.0, 1.0)
    matcher.record(*rollout(seed=1))
    strict = matcher.update(["a"], convergence=Convergence(tolerance=1e-9, window=3, most=10))
    assert (strict["minibatches/a"], strict["converged"]) == (10.0, 0.0)
    for seed in range(5):
        matcher.record(*rollout(seed=seed))
        last = matcher.update(["a"], convergence=Convergence(tolerance=0.05, window=20, most=400))
    assert last["converged/a"] == 1.0
    assert 40 <= last["minibatches"] < 400
