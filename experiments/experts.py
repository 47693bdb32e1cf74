"""The experts: the trainings that record demonstrations, the win rates they record at, and how experiments use them."""

# The scenarios of `python -m experiments demos` without arguments.
DEFAULT_SCENARIOS = ("5m_vs_6m", "3s_vs_4z", "3s_vs_5z", "2s3z")
# By scenario: the win rates at which each training records, the steps after which it gives up, the steps between two
# evaluations.
RECORDING_LEVELS = {
    "5m_vs_6m": ((0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6), 7_000_000, 65_536),
    "3s_vs_4z": ((0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), 1_000_000, 8_192),
    "3s_vs_5z": ((0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), 5_000_000, 16_384),
    "3m": ((0.3, 0.5), 1_000_000, 4_096),
    "2s3z": ((0.3, 0.5), 2_000_000, 4_096),
    "3s5z": ((0.3, 0.5), 3_000_000, 16_384),
}
# The same for one training by QMIX. Its win rate jumps from one level to the next; other seeds may stay near 0.
QMIX_RECORDING_LEVELS = {
    "5m_vs_6m": ((0.3, 0.9), 1_000_000, 16_384),
    "3s_vs_5z": ((0.4, 0.9), 1_000_000, 16_384),
}
# Trainings that start with after_death="mean" for this many steps, by environment and seed. Most seeds stay on a plateau
# without it.
MEAN_FIRST_STEPS = {("smax:5m_vs_6m", 20): 400_000, ("smax:5m_vs_6m", 21): 400_000}

# The weaker experts (they win about 30 %) and the stronger ones (about 50 %). Names without a folder are files in the
# repository.
WEAKER_STRONGER = {
    "5m_vs_6m": ("win30", "win50"),
    "3s_vs_4z": ("win30", "win50"),
    "3s_vs_5z": ("seed0/win30", "seed0/win40"),
    "3m": ("win30", "win50"),
    "2s3z": ("seed0/win30", "seed0/win50"),
}

# The scenarios on which styles of demonstrations are compared (section 6.2 of the paper).
STYLE_SCENARIOS = ("5m_vs_6m",)
# The trainings whose agents those styles combine, by seed, with the teams closest to the weaker and the stronger experts.
# The files in the repository come from the first training. Environments that are not listed use seeds 0, 1, 2 ...
STYLE_TEAMS = {
    "smax:5m_vs_6m": {
        1: ("win35", "win55"),
        3: ("win35", "win50"),
        12: ("win35", "win50"),
        20: ("win35", "win50"),
        21: ("win35", "win55"),
    },
}
