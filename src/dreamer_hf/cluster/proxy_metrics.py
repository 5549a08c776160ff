"""What a proxy counts, for Prometheus."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from .summed_metrics import Sums, read_metrics


class ProxyMetrics:
    """The counters of one proxy."""

    def __init__(self):
        self.registry = registry = CollectorRegistry()
        self.engines = Gauge("dreamer_engines", "Engines by their state.", ["state"], registry=registry)
        self.lost = Gauge("dreamer_engines_lost", "Engines that have died.", registry=registry)
        self.moves = Counter("dreamer_dreams_moved", "Players who had to change the engine.", registry=registry)
        self.skipped = Counter(
            "dreamer_proxy_frames_skipped", "Frames that slow readers missed at the proxy.", registry=registry
        )

    def sums(self, states: Iterable[str], lost: int) -> Sums:
        """Return the samples, given the states of the engines and how many have died."""
        self.engines.clear()
        for state in states:
            self.engines.labels(state).inc()
        self.lost.set(lost)
        return read_metrics(generate_latest(self.registry).decode())


__all__ = ["ProxyMetrics"]
