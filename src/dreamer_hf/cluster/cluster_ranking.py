"""Ranking policies on a cluster: every unit of a ranking is played by one worker, which keeps the world."""

from ..ranking.rank import rank
from ..ranking.rank_units import play_unit
from ..ranking.ranking_options import RankOptions
from .connection import connected
from .node_checks import check_nodes, nodes_with_cores
from .spread import spread_in_order

NEEDS = ("torch", "transformers")


def rank_on_cluster(options: RankOptions) -> str:
    """Do what `rank` does on the cluster `options.ray`.

    Raises:
        OSError, ValueError: as `rank`; or there is no such cluster, or one on which the work cannot be done.
    """
    with connected(options.ray):
        check_nodes(nodes_with_cores(), NEEDS)
        uses_gpu = options.device != "cpu"

        def play(units):
            return spread_in_order(
                play_unit, list(units), options.ray, needs=NEEDS, uses_gpu=uses_gpu, description="units"
            )

        return rank(options, play)


__all__ = ["rank_on_cluster"]
