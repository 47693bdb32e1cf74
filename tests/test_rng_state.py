import random

import numpy as np
import torch

from dm2_wrappers.rng_state import GlobalRNGState, derive_seed


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_restore_repeats_the_same_draws_of_all_three():
    state = GlobalRNGState.capture()
    first = draw()
    assert draw() != first
    state.restore()
    assert draw() == first


def test_seeded_leaves_the_process_alone_and_is_what_seeding_gives():
    before = GlobalRNGState.capture()
    state = GlobalRNGState.seeded(5)
    untouched = draw()
    before.restore()
    assert draw() == untouched
    state.restore()
    drawn = draw()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    assert draw() == drawn


def test_gradient_mode_belongs_to_the_state():
    state = GlobalRNGState.capture()
    with torch.no_grad():
        inner = GlobalRNGState.capture()
        state.restore()
        assert torch.is_grad_enabled()
        inner.restore()
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_state_dict_round_trip_through_a_file_without_pickled_code(tmp_path):
    state = GlobalRNGState.seeded(3)
    torch.save(state.state_dict(), tmp_path / "s.pt")
    outer = GlobalRNGState.capture()
    GlobalRNGState.from_state_dict(torch.load(tmp_path / "s.pt", weights_only=True)).restore()
    drawn = draw()
    state.restore()
    assert draw() == drawn
    outer.restore()


def test_derived_seeds_differ_by_name_and_do_not_run_together():
    seeds = {derive_seed(0, "agent", "a"), derive_seed(0, "agent", "b"), derive_seed(1, "agent", "a")}
    assert len(seeds) == 3
    assert derive_seed(0, "ab", "c") != derive_seed(0, "a", "bc")
    assert derive_seed(0, "agent", "a") == derive_seed(0, "agent", "a")
    assert derive_seed(None, "a") != derive_seed(None, "a")
