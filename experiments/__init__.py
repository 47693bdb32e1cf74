"""The paper's evidence, reproduced: grids of runs as data, a runner that resumes, statistics, figures and tables.

``python -m experiments run fig2`` and then ``python -m experiments plot fig2``; see docs/results.md for what came out.
"""
