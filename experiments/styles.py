"""The styles of demonstrations that section 6.2 of the paper compares, made from the teams of several trainings."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import dm2_wrappers as dm2
from experiments.demonstrations import training_seeds
from experiments.experts import STYLE_TEAMS, WEAKER_STRONGER
from experiments.plan import ROOT, demos_path

STYLES = ("disjoint", "mixed", "together")


def make_styles(scenario: str, *, backend: str = "smax", episodes: int = 1000) -> None:
    """Record the three styles besides the usual one (co-trained, concurrent) at both qualities; keep existing files.

    - ``disjoint``: agents of one team, each with episodes that no other agent has.
    - ``mixed``: agents of different trainings. Each plays with its own team, in episodes that no other agent has.
    - ``together``: agents of different trainings play together, so the episodes are joint but the team was not trained
      together.

    ``STYLE_TEAMS`` names the team of each training. Where it names none, the team is the one whose win rate is closest to
    that of the main demonstrations.

    Raises:
        FileNotFoundError: A training whose agents are needed has recorded nothing.
    """
    env = f"{backend}:{scenario}"
    with ExitStack() as stack:
        venv = None
        for quality, main in zip(("weaker", "stronger"), WEAKER_STRONGER[scenario], strict=True):
            paths = {style: ROOT / demos_path(env, f"styles/{style}_{quality}") for style in STYLES}
            missing = {style: path for style, path in paths.items() if not path.is_file()}
            if not missing:
                continue
            teams = [_team_file(env, seed, quality, main) for seed in training_seeds(env)]
            venv = venv or stack.enter_context(dm2.envs.vector_env(env, dm2.envs.default_num_envs(env)))
            agents = range(len(venv.possible_agents))
            one_team, several_teams = [teams[0] for _ in agents], [teams[k % len(teams)] for k in agents]
            for style, path in missing.items():
                if style == "together":
                    demos = _record_together(venv, several_teams, episodes, seed=2000)
                elif style == "mixed":
                    demos = _record_separately(venv, several_teams, episodes, seed=3000)
                else:
                    demos = _record_separately(venv, one_team, episodes, seed=2000)
                demos.save(path)


def _team_file(env: str, seed: int, quality: str, main: str) -> Path:
    """The demonstrations of a training's team of this quality."""
    if env in STYLE_TEAMS:
        named = ROOT / demos_path(env, f"seed{seed}/{STYLE_TEAMS[env][seed][quality == 'stronger']}")
        if not named.is_file():
            raise FileNotFoundError(f"styles of demonstrations need {named}, which is missing: train seed {seed}")
        return named
    folder = ROOT / demos_path(env, f"seed{seed}/any").parent
    files = sorted(folder.glob("*_win*.npz"))
    if not files:
        raise FileNotFoundError(f"styles of demonstrations need the files of {folder}, which has none: train more seeds")
    win_rate = dm2.Demonstrations.load(ROOT / demos_path(env, main)).win_rate or 0.0
    return min(files, key=lambda file: abs((dm2.Demonstrations.load(file).win_rate or 0.0) - win_rate))


def _record_separately(venv: dm2.MultiAgentVectorEnv, files: list[Path], episodes: int, *, seed: int) -> dm2.Demonstrations:
    """Agent k from the k-th file's team, in episodes of this team that no other agent has."""
    agents = venv.possible_agents
    own = (_record_together(venv, [file] * len(agents), episodes, seed=seed + k) for k, file in enumerate(files))
    return dm2.Demonstrations.mix(dict(zip(agents, own, strict=True)))


def _record_together(venv: dm2.MultiAgentVectorEnv, files: list[Path], episodes: int, *, seed: int) -> dm2.Demonstrations:
    """Joint episodes of a team whose agent k comes from the k-th file's team."""
    from dm2_wrappers.sb3.policy import TeamPolicy

    models = {}
    for agent, file in zip(venv.possible_agents, files, strict=True):
        team = file.parent / "teams" / file.stem.rpartition("_")[2]
        models[agent] = dm2.sb3.IndependentLearners.load(team, venv, device="cpu").models[agent]
    provenance = {"algorithm": "IPPO", "agents of": [f"{file.parent.name}/{file.name}" for file in files]}
    return dm2.Demonstrations.record(venv, TeamPolicy(models), episodes, seed=seed, provenance=provenance)
