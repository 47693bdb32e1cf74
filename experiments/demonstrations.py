"""The demonstrations that experiments need and how they are made: teams of several independent trainings.

Everything lies in ``demos_data/full/<scenario>/``, which git ignores; `sums` lists what was used.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import dm2_wrappers as dm2
from experiments.plan import demos_path
from experiments.run import ROOT, describe, one_thread, words, write_json
from experiments.settings import QMIX_STEPS
from experiments.teams import LEVELS, LOW_HIGH, MEAN_FIRST, QMIX_LEVELS, TEAMS

STYLES = ("disjoint", "mixed", "together")


def make(scenario: str, *, backend: str = "smax", seeds: int = 5, jobs: int = 2, episodes: int = 1000) -> list[str]:
    """Train up to ``seeds`` teams and record each at all levels; done ones are not repeated, interrupted ones go on.

    Of the scenarios in ``QMIX_LEVELS`` one team is trained by QMIX, too.

    Returns:
        A sentence for each training that failed.

    Raises:
        ValueError: The scenario has no levels here.
    """
    if scenario not in LEVELS:
        raise ValueError(f"no demonstrations are planned for {scenario!r}, only for {sorted(LEVELS)}; see LEVELS")
    which = _seeds(f"{backend}:{scenario}", seeds)
    trainings = [*(f"seed{seed}" for seed in which), *(["qmix0"] if scenario in QMIX_LEVELS else [])]
    failed = []
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = [pool.submit(_train, f"{backend}:{scenario}", training, episodes) for training in trainings]
        try:
            for future in futures:
                try:
                    print(future.result(), flush=True)
                except RuntimeError as error:  # the others go on
                    failed.append(str(error))
        except BaseException:  # Ctrl-C, say: nothing more is begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def _seeds(env: str, most: int = 5) -> list[int]:
    """The seeds of an environment's trainings."""
    return list(TEAMS.get(env, range(most)))[:most]


def _train(env: str, training: str, episodes: int) -> str:
    folder = ROOT / demos_path(env, f"{training}/any").parent
    folder.mkdir(parents=True, exist_ok=True)
    kind, seed, scenario = training[:4], int(training[4:]), env.partition(":")[2]
    levels, most, look = (QMIX_LEVELS if kind == "qmix" else LEVELS)[scenario]
    finished = folder / "finished.json"  # holds what was wanted: with more levels a training goes on
    if finished.is_file() and json.loads(finished.read_text()) == [list(levels), most]:
        return f"{folder}: done before{_left_out(folder, levels)}"
    options: dict[str, object] = {"env": env, "seed": seed, "run": folder}
    if kind == "qmix":
        file = demos_path(env, f"{training}/any").name.replace("_any", "")
        options |= {"steps": most, "n-steps": QMIX_STEPS[scenario], "eval-every": look, "eval-episodes": 128}
        options |= {"only-levels": True, "record": episodes, "record-path": folder / file}
    else:
        options |= {"max-steps": most, "look-every": look, "episodes": episodes, "out": folder}
        options |= {"mean-first": MEAN_FIRST[env, seed]} if (env, seed) in MEAN_FIRST else {}
    program = "qmix_torchrl.py" if kind == "qmix" else "record_demos.py"
    command = [sys.executable, "-u", str(ROOT / "examples" / program), *words(options), "--levels", *map(str, levels)]
    with (folder / ".lock").open("w") as lock, (folder / "log.txt").open("a") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as in experiments/run.py
        done = subprocess.run(command, stdout=log, stderr=log, env=one_thread(), pass_fds=(lock.fileno(),), check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{folder}: failed with exit code {done.returncode}, see log.txt")
    write_json(finished, [levels, most])
    return f"{folder}: done{_left_out(folder, levels)}"


def _left_out(folder: Path, levels: Sequence[float]) -> str:
    """The levels without a file of their name: leapt over, or never reached."""
    missing = [f"{level:.0%}" for level in levels if not list(folder.glob(f"*_win{round(100 * level):02d}.npz"))]
    return f", without files at {', '.join(missing)}" if missing else ""


def make_styles(scenario: str, *, backend: str = "smax", episodes: int = 1000) -> None:
    """The other three styles of the ablation (section 6.2), at both qualities; those that are there stay as they are.

    ``disjoint``: one team's, each agent's from episodes of its own. ``mixed``: agents of different trainings, each from
    episodes of its own, too, in which it played with its own team. ``together``: agents of different trainings play with
    one another, so that the episodes are joint ones of a team that was not trained together. Of each training the team
    is taken that ``TEAMS`` names, or else the one whose win rate is nearest to that of the main demonstrations.

    Raises:
        FileNotFoundError: A training whose agents are needed has recorded nothing.
    """
    env = f"{backend}:{scenario}"
    with ExitStack() as stack:
        venv = None
        for quality, main in zip(("weaker", "stronger"), LOW_HIGH[scenario], strict=True):
            paths = {style: ROOT / demos_path(env, f"styles/{style}_{quality}") for style in STYLES}
            missing = {style: path for style, path in paths.items() if not path.is_file()}
            if not missing:
                continue
            each = [_team_file(env, seed, quality, main) for seed in _seeds(env)]
            venv = venv or stack.enter_context(dm2.envs.vector_env(env, dm2.envs.default_num_envs(env)))
            agents = range(len(venv.possible_agents))
            team, files = [each[0] for _ in agents], [each[k % len(each)] for k in agents]
            for style, path in missing.items():
                if style == "together":
                    demos = _record(venv, files, episodes, seed=2000)
                elif style == "mixed":
                    demos = _each_its_own(venv, files, episodes, seed=3000)
                else:
                    demos = _each_its_own(venv, team, episodes, seed=2000)
                demos.save(path)


def _team_file(env: str, seed: int, quality: str, main: str) -> Path:
    """What a training's team of this quality recorded."""
    if env in TEAMS:
        named = ROOT / demos_path(env, f"seed{seed}/{TEAMS[env][seed][quality == 'stronger']}")
        if not named.is_file():
            raise FileNotFoundError(f"styles of demonstrations need {named}, which is not there: train seed {seed}")
        return named
    folder = ROOT / demos_path(env, f"seed{seed}/any").parent
    files = sorted(folder.glob("*_win*.npz"))
    if not files:
        raise FileNotFoundError(f"styles of demonstrations need those of {folder}, where there are none: train more seeds")
    win_rate = dm2.Demonstrations.load(ROOT / demos_path(env, main)).win_rate or 0.0
    return min(files, key=lambda file: abs((dm2.Demonstrations.load(file).win_rate or 0.0) - win_rate))


def _each_its_own(venv: dm2.MultiAgentVectorEnv, files: list[Path], episodes: int, *, seed: int) -> dm2.Demonstrations:
    """Agent k from episodes of its own, of the team that recorded the k-th file."""
    agents = venv.possible_agents
    own = (_record(venv, [file] * len(agents), episodes, seed=seed + k) for k, file in enumerate(files))
    return dm2.Demonstrations.mix(dict(zip(agents, own, strict=True)))


def _record(venv: dm2.MultiAgentVectorEnv, files: list[Path], episodes: int, *, seed: int) -> dm2.Demonstrations:
    """Joint episodes of a team whose agent k is the one that helped to record the k-th file."""
    from dm2_wrappers.sb3.policy import TeamPolicy

    models = {}
    for agent, file in zip(venv.possible_agents, files, strict=True):
        team = file.parent / "teams" / file.stem.rpartition("_")[2]
        models[agent] = dm2.sb3.IndependentLearners.load(team, venv, device="cpu").models[agent]
    provenance = {"algorithm": "IPPO", "agents of": [f"{file.parent.name}/{file.name}" for file in files]}
    return dm2.Demonstrations.record(venv, TeamPolicy(models), episodes, seed=seed, provenance=provenance)


def sums(backend: str = "smax", before: str = "") -> str:
    """A table of all files there are, those in the repository and those that git ignores, with SHA-256.

    Args:
        backend: Whose files.
        before: The table so far: lines of files that are not here stay.
    """
    head = ["| file | episodes | battles won | mean return | mean length | SHA-256 |", "|---|---|---|---|---|---|"]
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in before.splitlines()[len(head) :]}
    folder = ROOT / "demos_data"
    for path in [*folder.glob(f"{backend}_*.npz"), *folder.glob(f"full/{backend}_*/*/*.npz")]:
        facts = describe(path)
        rate = "" if facts["win_rate"] is None else f"{facts['win_rate']:.3f}"
        name = str(Path(str(facts["file"])).relative_to("demos_data"))
        lines[name] = (
            f"| {name} | {facts['episodes']} | {rate} | {facts['mean_return']:.2f} | {facts['mean_length']:.1f} "
            f"| `{facts['sha256']}` |"
        )
    return "\n".join([*head, *(lines[name] for name in sorted(lines, key=lambda name: ("/" in name, name)))]) + "\n"
