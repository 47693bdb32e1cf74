"""Watching a team: what is drawn are the numbers of the episode, and a checkpoint is enough to watch it."""

from __future__ import annotations

import sys
from pathlib import Path

import ippo_sb3
import numpy as np
import pytest
import watch
from PIL import Image

import dm2_wrappers as dm2
from tests.helpers.tiny_envs import ToldEnv

ROOT = Path(__file__).parents[2]
MINE = """
import numpy as np
from tests.helpers.tiny_envs import TinyEnv

class Shown(TinyEnv):
    def __init__(self, render_mode):
        super().__init__(masks=True, limit=4, truncates=True, wins=True, lifetimes=(None, 2))
        self.render_mode, self.max_steps = render_mode, 4
    def render(self):
        return np.full((30, 40, 3), 40 * self.t, np.uint8)

def make(render_mode=None):
    return Shown(render_mode)

def no_mode(render_mode):
    return Shown(None)

def expert(observations):
    return {agent: int(np.flatnonzero(seen["action_mask"])[-1]) for agent, seen in observations.items()}
"""


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path), str(ROOT)])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    import mine

    return mine


@pytest.fixture
def demos(mine, tmp_path):
    demos = dm2.Demonstrations.record(mine.make(), mine.expert, 4, seed=1)
    demos.save(tmp_path / "demos.npz")
    return demos


@pytest.fixture
def run(demos, tmp_path):
    learner = ippo_sb3.LearnerArgs(num_envs=2, n_steps=8)
    few = {"steps": 16, "eval_every": 16, "eval_episodes": 2, "final_episodes": 2}
    args = ippo_sb3.Args(
        env="mine:make", demos=tmp_path / "demos.npz", coefficient=0.3, learner=learner, run=tmp_path / "run", **few
    )
    return ippo_sb3.main(args)


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn: the episode and the title."""
    seen, draw = [], watch.draw
    monkeypatch.setattr(
        watch,
        "draw",
        lambda episode, agents, title, *rest: seen.append((episode, title)) or draw(episode, agents, title, *rest),
    )
    return seen


def test_a_run_is_shown_with_the_rewards_of_its_discriminators(run, drawn, mine):
    gif = watch.main(watch.Args(run=run, fps=2))
    assert gif == run / "watch.gif"
    with Image.open(gif) as film:
        assert film.n_frames >= 5
    ((episode, title),) = drawn
    assert title == "mine:make, team after 16 steps"
    assert len(episode.frames) == 5
    assert [int(frame[0, 0, 0]) for frame in episode.frames] == [0, 40, 80, 120, 160]
    assert episode.present == [[True, True]] * 2 + [[True, False]] * 2
    assert episode.won
    # The discriminators are the checkpoint's, and the episode is that of the seed.
    team = dm2.sb3.IndependentLearners.load(run / "checkpoint.zip", dm2.vectorize(mine.make, 1), device="cpu")
    observations, _ = mine.make().reset(seed=0)
    judged = team.matcher.rewards(observations)
    assert episode.gail[0] == pytest.approx([judged["agent_0"], judged["agent_1"]])
    assert np.isfinite(np.array(episode.gail)).tolist() == episode.present
    assert episode.gail != [[0.0, 0.0]] * 4

    watch.main(watch.Args(run=run / "checkpoint.zip", policy="mine:expert", out=run / "expert.gif", fps=2))
    expert, title = drawn[1]
    assert (run / "expert.gif").is_file()
    assert title == "mine:make, mine:expert"
    assert expert.gail[0] == episode.gail[0]  # the same start and the same discriminators
    assert expert.returns == pytest.approx(list(np.cumsum(list(returns_of(mine)))))


@pytest.mark.parametrize(
    "options",
    [
        {"order": "turn"},
        {"env_coefficient": 0.0},
        {"experts": "own"},
        {"experts": "all+own"},
        {"experts": "best+own"},
        {"matcher": ippo_sb3.MatcherArgs(inputs="state-action")},
        {"matcher": ippo_sb3.MatcherArgs(inputs="transition")},
        {"matcher": ippo_sb3.MatcherArgs(ends="absorbing")},
        {"algorithm": "ippo"},
    ],
    ids=str,
)
def test_any_run_is_shown(options, demos, drawn, tmp_path):
    learner = ippo_sb3.LearnerArgs(num_envs=2, n_steps=8)
    few = {"steps": 16, "eval_every": 16, "eval_episodes": 2, "final_episodes": 2, "pretrain": 0}
    args = {"env": "mine:make", "demos": tmp_path / "demos.npz", "coefficient": 0.3, "learner": learner, **few, **options}
    folder = ippo_sb3.main(ippo_sb3.Args(**args, run=tmp_path / "any"))
    watch.main(watch.Args(run=folder, fps=2))
    ((episode, _),) = drawn
    judged = np.isfinite(np.array(episode.gail))
    assert judged.any() == (options != {"algorithm": "ippo"})
    team = watch.restored(folder / "checkpoint.zip", learner, watch._runs.parallel_env("mine:make"))
    if options.get("matcher") and options["matcher"].inputs == "state-action":  # an independent computation
        env = watch._runs.parallel_env("mine:make", render_mode="rgb_array")
        policy = watch.policy_of(watch.Args(), env, team)
        observations, _ = watch.reset(env, policy, 0)
        coded = dict(policy(observations))
        expected = team.matcher.rewards(observations, actions=coded)
        assert episode.gail[0] == pytest.approx([expected[agent] for agent in env.possible_agents])


def test_each_episode_of_a_recurrent_team_begins_with_empty_memory(demos, tmp_path):
    learner = ippo_sb3.LearnerArgs(num_envs=2, n_steps=8, recurrent=True)
    few = {"steps": 16, "eval_every": 16, "eval_episodes": 2, "final_episodes": 2}
    args = {"env": "mine:make", "algorithm": "ippo", "learner": learner, "run": tmp_path / "any", **few}
    folder = ippo_sb3.main(ippo_sb3.Args(**args))
    env = watch._runs.parallel_env("mine:make", render_mode="rgb_array")
    team = watch.restored(folder / "checkpoint.zip", learner, env)
    one, fresh = (watch.policy_of(watch.Args(greedy=True), env, team) for _ in range(2))
    watch.play(env, one, None, 3)
    for policy in (one, fresh):
        policy(watch.reset(env, policy, 0)[0])
    for agent in env.possible_agents:
        for a, b in zip(one.memory._states[agent], fresh.memory._states[agent], strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_episode_whose_outcome_is_not_reported_is_neither_won_nor_lost():
    episodes = [watch.play(ToldEnv(limit=1), lambda seen: dict.fromkeys(seen, 1), None, seed) for seed in range(4)]
    assert [episode.won for episode in episodes] == [True, None, False, None]


def returns_of(mine):
    env = mine.make()
    observations, _ = env.reset(seed=0)
    while env.agents:
        observations, rewards, *_ = env.step(mine.expert(observations))
        yield np.mean(list(rewards.values()))


def test_random_and_scripted_policies_need_no_run(drawn, demos, tmp_path):
    watch.main(watch.Args(env="mine:make", policy="random", out=tmp_path / "a.gif", fps=2))
    assert not np.isfinite(np.array(drawn[0][0].gail)).any()
    args = {"env": "mine:make", "policy": "random", "demos": tmp_path / "demos.npz", "practice": 3, "fps": 2}
    watch.main(watch.Args(**args, out=tmp_path / "b.gif"))
    watch.main(watch.Args(**args, out=tmp_path / "c.gif"))
    assert drawn[1][0].returns == drawn[2][0].returns
    assert np.isfinite(np.array(drawn[1][0].gail)).any()
    assert sorted(path.name for path in tmp_path.glob("*.gif")) == ["a.gif", "b.gif", "c.gif"]


def test_what_cannot_be_shown_is_one_sentence(run, tmp_path):
    for args, sentence in (
        (watch.Args(), "Which team"),
        (watch.Args(env="mine:no_mode", policy="random"), "must take render_mode and pass it on"),
        (watch.Args(run=tmp_path / "nothing"), r"There is no checkpoint .*nothing.zip"),
        (watch.Args(run=tmp_path), r"There is no checkpoint .*checkpoint.zip"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            watch.main(args)
    (run / "checkpoint.zip").write_bytes(b"PK")
    with pytest.raises(SystemExit, match=r"Cannot show .*checkpoint.zip"):
        watch.main(watch.Args(run=run))
    (run / "config.json").unlink()
    with pytest.raises(SystemExit, match=r"no config.json"):
        watch.main(watch.Args(run=run))
