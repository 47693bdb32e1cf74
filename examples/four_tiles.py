"""The paper's four tiles, solved exactly: which demonstrations two independent agents can match, and which they cannot.

    python examples/four_tiles.py

Two agents share the tiles 0 1 / 2 3, and only one agent may stand on a tile at a time (section 5.1). The program combines
three kinds of demonstrations with all four discriminators, with agents that learn in turns (Algorithm 2) or all at once (as
in Algorithm 1), from many random starts. It prints a table and writes runs/four_tiles/curves.png. It needs no samples and
no networks, and takes half a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import tyro

from dm2_wrappers import compatibility, tabular

mpl.use("Agg")
import matplotlib.pyplot as plt

ORDERS = ("turn", "simultaneous")
REWARDS = ("js", "logit", "linear", "indicator")


@dataclass
class Args:
    starts: int = 100
    """number of random joint policies to start from"""
    sweeps: int = 60
    """maximum number of steps of each agent"""
    delta: float = 0.01
    """trust region of a step, in nats"""
    seed: int = 0
    """seed of the starts"""
    out: Path = Path("runs/four_tiles")
    """folder for the table and the figure"""


def main(args: Args) -> None:
    """Learn, then print and draw."""
    # 1. Can one joint policy have made these demonstrations? No learning needed for that (Definition 1).
    lines = ["| demonstrations | compatible | disagreement about states | gap of the only candidate | no team gets below |"]
    lines += ["|---|---|---|---|---|"]
    bounds = {}
    for name in tabular.TILE_TARGETS:
        tiles = tabular.four_tiles(name)
        found = compatibility.check(tiles.game, tiles.marginals)
        bounds[name] = found.lower_bound
        verdict = "yes" if found.compatible else "no"
        numbers = (found.disagreement, found.gaps.max(), found.lower_bound)
        lines.append(f"| {name} | {verdict} | {' | '.join(f'{number:.3f}' for number in numbers)} |")

    # 2. What do independent learners make of them? All starts run side by side, as one leading axis of the policies.
    lines += ["", f"| demonstrations | discriminator | order | matched, of {args.starts} | gap left, median | sweeps |"]
    lines += ["|---|---|---|---|---|---|"]
    curves = {}
    for name in tabular.TILE_TARGETS:
        tiles = tabular.four_tiles(name)
        for reward in REWARDS:
            for order in ORDERS:
                rng = np.random.default_rng(args.seed)
                starts = [rng.dirichlet(np.ones(3), size=(args.starts, 12)) for _ in range(2)]
                _, history = tabular.algorithm2(
                    tiles.game, tiles.marginals, starts, reward=reward, order=order, delta=args.delta, sweeps=args.sweeps
                )
                worst = history.gap.max(axis=-1)  # [sweeps + 1, starts], of the agent that is further off
                curves[name, reward, order] = worst
                matched, left = int((worst[-1] < 0.01).sum()), float(np.median(worst[-1]))
                lines.append(f"| {name} | {reward} | {order} | {matched} | {left:.3f} | {len(worst) - 1} |")

    table = "\n".join(lines)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "table.md").write_text(table + "\n")
    draw(curves, bounds, args.out / "curves.png")
    print(f"{table}\n\npicture: {args.out}/curves.png")


def draw(curves: dict[tuple[str, str, str], np.ndarray], bounds: dict[str, float], path: Path) -> None:
    """A panel for each kind of demonstrations: JS discriminators, every start a thin line, the median a thick one."""
    figure, panels = plt.subplots(1, len(bounds), figsize=(11, 3.6), sharey=True, layout="constrained")
    for axes, (name, bound) in zip(panels, bounds.items(), strict=True):
        for order, colour in zip(ORDERS, ("#0072B2", "#D55E00"), strict=True):
            worst = curves[name, "js", order]
            axes.plot(worst, color=colour, alpha=0.06, linewidth=0.7)
            label = "turn by turn" if order == "turn" else "all at once"
            style = "-" if order == "turn" else (0, (2, 2))  # the two often lie on each other
            axes.plot(np.median(worst, axis=1), color=colour, linewidth=2, linestyle=style, label=label)
        if bound > 0:
            axes.axhline(bound, color="#000000", linestyle="--", linewidth=1, label="no team gets below")
        axes.set(title=name, xlabel="sweeps", xlim=(0, 60), ylim=(0, 1))
        axes.legend(frameon=False)
    panels[0].set_ylabel("distance to the demonstrations\n(total variation, worse agent)")
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
