"""The teams that demonstrate, as data: which trainings there are, what they record, and who plays which part."""

# What `python -m experiments demos` makes unless told otherwise.
NEEDED = ("5m_vs_6m", "3s_vs_4z", "3s_vs_5z", "2s3z")
# Of each scenario: win rates at which its trainings record, steps after which they give up, steps between two looks.
LEVELS = {
    "5m_vs_6m": ((0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6), 7_000_000, 65_536),
    "3s_vs_4z": ((0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), 1_000_000, 8_192),
    "3s_vs_5z": ((0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), 5_000_000, 16_384),
    "3m": ((0.3, 0.5), 1_000_000, 4_096),
    "2s3z": ((0.3, 0.5), 2_000_000, 4_096),
}
# Trainings that begin with after_death="mean" for so many steps, which leads out of the plateau where most seeds stay.
MEAN_FIRST = {("smax:5m_vs_6m", 20): 400_000, ("smax:5m_vs_6m", 21): 400_000}
# One training by QMIX. Its win rate leaps between these; those of other seeds may stay near 0.
QMIX_LEVELS = {
    "5m_vs_6m": ((0.3, 0.9), 1_000_000, 16_384),
    "3s_vs_5z": ((0.4, 0.9), 1_000_000, 16_384),
}

# Demonstrators of about 30 % and about 50 %; those without a folder are in the repository.
LOW_HIGH = {
    "5m_vs_6m": ("win30", "win50"),
    "3s_vs_4z": ("win30", "win50"),
    "3s_vs_5z": ("seed0/win30", "seed0/win40"),
    "3m": ("win30", "win50"),
    "2s3z": ("seed0/win30", "seed0/win50"),
}

# Where demonstrations of different styles are compared.
STYLED = ("5m_vs_6m",)
# Its trainings by seed, and which of their teams are nearest to the weaker and the stronger demonstrators. Those that the
# repository holds are the first one's. Of a backend that is not here the trainings are seeds 0, 1, 2 ...
TEAMS = {
    "smax:5m_vs_6m": {
        1: ("win35", "win55"),
        3: ("win35", "win50"),
        12: ("win35", "win50"),
        20: ("win35", "win50"),
        21: ("win35", "win55"),
    },
}
