"""The paper's experiments and more: grids of runs as data, a runner that resumes, statistics, figures and tables.

``python -m experiments run fig2`` trains, ``python -m experiments plot fig2`` draws; docs/results.md has the results.
"""
