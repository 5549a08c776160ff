"""Ranking policies in a world's dreams, and next to a real environment; see docs/ranking.md.

`rank` runs a ranking and writes its files. `policies` opens what acts (`player_policies`, `lerobot_policies`),
`rank_units` plays episodes in dreams or in a `real_environment`, `scoring` says what they were worth,
`rank_statistics` compares the two rankings, `ranking_report` and `ranking_plot` show them.
"""
