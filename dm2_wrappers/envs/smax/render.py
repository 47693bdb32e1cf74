"""Pictures of an SMAX battle, drawn with pygame."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers._extras import require

SIZE, LEAST_RADIUS = 640, 9  # pixels of the longer side, and of the smallest disc: units are tiny on SMAX's maps
BACKGROUND, GRID, DEAD, HIT = (24, 26, 30), (40, 43, 50), (150, 150, 150), (255, 255, 255)
TEAMS = ((86, 180, 233), (230, 159, 0))  # allies, enemies: colors that color-blind people tell apart
HEALTHY, HURT, LOST = (0, 200, 120), (220, 50, 50), (70, 70, 70)  # the health bar: above half, below, what is missing


def draw(units: dict[str, NDArray[Any]], width: float, height: float) -> NDArray[np.uint8]:
    """One frame [H, W, 3].

    A living unit is a disc in its team's color with its health in a bar above it. A dead one is a gray cross where it
    died. A line that ends in a white dot is a shot.

    Args:
        units: What `SMAXVectorEnv.units` returns.
        width: Of the map, in SMAX's units of length.
        height: The same.
    """
    pygame = require("pygame", "smax")
    scale = SIZE / max(width, height)
    surface = pygame.Surface((round(width * scale), round(height * scale)))
    surface.fill(BACKGROUND)
    for line in range(0, int(max(width, height)) + 1, 4):
        pygame.draw.line(surface, GRID, (line * scale, 0), (line * scale, SIZE))
        pygame.draw.line(surface, GRID, (0, line * scale), (SIZE, line * scale))
    # SMAX's y axis points up, a picture's down.
    centers = [(float(x) * scale, (height - float(y)) * scale) for x, y in units["positions"]]
    radii = [max(LEAST_RADIUS, float(radius) * scale) for radius in units["radius"]]
    colors = [TEAMS[int(team)] for team in units["team"]]
    for u in np.flatnonzero(~units["alive"]):  # below everything else
        (x, y), reach = centers[u], 0.8 * radii[u]
        pygame.draw.line(surface, DEAD, (x - reach, y - reach), (x + reach, y + reach), width=3)
        pygame.draw.line(surface, DEAD, (x - reach, y + reach), (x + reach, y - reach), width=3)
    for u in np.flatnonzero(units["alive"]):
        pygame.draw.circle(surface, colors[u], centers[u], radii[u])
    for u in np.flatnonzero(units["target"] >= 0):
        start, end = np.array(centers[u]), np.array(centers[int(units["target"][u])])
        direction = (end - start) / max(float(np.linalg.norm(end - start)), 1e-6)
        hit = end - direction * radii[int(units["target"][u])]  # at its edge, not to cover it
        pygame.draw.line(surface, colors[u], start, hit, width=2)
        pygame.draw.circle(surface, HIT, hit, 3)
    for u in np.flatnonzero(units["alive"]):
        _draw_health(pygame, surface, centers[u], radii[u], float(units["health"][u]))
    return np.ascontiguousarray(pygame.surfarray.array3d(surface).swapaxes(0, 1))


def _draw_health(pygame: Any, surface: Any, center: tuple[float, float], radius: float, health: float) -> None:
    width, health = 2 * radius, min(1.0, max(0.0, health))
    left, top = center[0] - radius, center[1] - radius - 7
    pygame.draw.rect(surface, LOST, (left, top, width, 5))
    pygame.draw.rect(surface, HEALTHY if health > 0.5 else HURT, (left, top, width * health, 5))


class BattleWindow:
    """A window that shows eight frames a second, the speed of SMAX's steps in the game's time."""

    def __init__(self, title: str) -> None:
        self._pygame = require("pygame", "smax")
        display = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"))
        if sys.platform == "linux" and not display:
            raise RuntimeError("render_mode='human' needs a display, and there is none: use 'rgb_array'")
        self._pygame.display.init()
        self._title, self._screen, self._clock = title, None, self._pygame.time.Clock()

    def show(self, frame: NDArray[np.uint8]) -> None:
        """Show one frame [H, W, 3]."""
        pygame = self._pygame
        if self._screen is None:
            self._screen = pygame.display.set_mode((frame.shape[1], frame.shape[0]))
            pygame.display.set_caption(self._title)
        pygame.event.pump()
        pygame.surfarray.blit_array(self._screen, frame.swapaxes(0, 1))
        pygame.display.flip()
        self._clock.tick(8)

    def close(self) -> None:
        """Close the window."""
        self._pygame.display.quit()
