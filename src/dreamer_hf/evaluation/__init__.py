"""How good the dreams of a world are on held-out episodes, compared with baselines; see docs/evaluation.md.

`evaluate` runs an evaluation and writes its files. `open_loop` makes the dreams, `measurements` compares them with the
real frames, `bootstrap` and `figures` average over episodes, `report` is the JSON file; `tables`, `plots` and `videos`
show it.
"""
