"""The picture in ``docs/theory.md``: three kinds of demonstrations on the paper's four tiles.

Run it with ``python -m experiments.draw_four_tiles``.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle

from experiments.figures import COLORS, GREY

PATH = Path(__file__).parent.parent / "docs" / "img" / "four_tiles.png"
CENTRES = {0: (0.5, 1.5), 1: (1.5, 1.5), 2: (0.5, 0.5), 3: (1.5, 0.5)}  # tiles 0 1 over 2 3


def main() -> None:
    """Write the picture."""
    figure, panels = plt.subplots(1, 3, figsize=(10, 4.2), layout="constrained")
    _grid(panels[0], "together: compatible", "Recorded as one team.\nGap 0: a joint policy has both marginals.")
    _goal(panels[0], 0, "agent 0", COLORS[0])
    _goal(panels[0], 3, "agent 1", COLORS[1])

    text = "Each was recorded with a random partner.\nSome agent stays at least 0.394 away."
    _grid(panels[1], "both want tile 0: not compatible", text)
    _goal(panels[1], 0, "agent 0", COLORS[0], shift=-0.22)
    _goal(panels[1], 0, "agent 1", COLORS[1], shift=0.22)

    text = "Each was recorded with a random partner (dashed).\nSome agent stays at least 0.316 away."
    _grid(panels[2], "wandering partners: not compatible", text)
    _goal(panels[2], 0, "agent 0", COLORS[0])
    _goal(panels[2], 3, "agent 1", COLORS[1])
    for one, other in ((1, 2), (2, 1)):
        panels[2].add_patch(
            FancyArrowPatch(
                CENTRES[one],
                CENTRES[other],
                connectionstyle="arc3,rad=0.25",
                arrowstyle="-|>",
                mutation_scale=12,
                color=GREY,
                linestyle="--",
            )
        )
    PATH.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PATH, dpi=110)
    plt.close(figure)


def _grid(axes: Axes, title: str, text: str) -> None:
    for tile, (x, y) in CENTRES.items():
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="#f7f7f7", edgecolor="#444444"))
        axes.text(x - 0.44, y + 0.36, f"tile {tile}", fontsize=8, color="#444444")
    axes.set(xlim=(-0.05, 2.05), ylim=(-0.05, 2.05), aspect="equal")
    axes.set_title(title, fontsize=11)
    axes.text(1, -0.12, text, ha="center", va="top", fontsize=9)
    axes.axis("off")


def _goal(axes: Axes, tile: int, name: str, color: str, shift: float = 0.0) -> None:
    x, y = CENTRES[tile]
    axes.add_patch(Circle((x + shift, y), 0.2, facecolor=color, edgecolor="none"))
    axes.text(x + shift, y, name.replace(" ", "\n"), ha="center", va="center", fontsize=8, color="white")


if __name__ == "__main__":
    main()
