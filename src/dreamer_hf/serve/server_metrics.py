"""What a server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

STEP_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class ServerMetrics:
    """The counters of one server in a separate registry, with memory and processor time of the process."""

    def __init__(self):
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.sessions = Gauge("dreamer_sessions", "Current sessions.", ["kind"], registry=registry)
        self.opened = Counter("dreamer_sessions_opened", "Sessions opened.", ["kind"], registry=registry)
        self.refused = Counter("dreamer_refused", "Requests and messages refused.", ["why"], registry=registry)
        self.frames = Counter("dreamer_frames", "Frames dreamed, over all sessions.", registry=registry)
        self.skipped = Counter("dreamer_frames_skipped", "Frames that slow readers missed.", registry=registry)
        self.failures = Counter("dreamer_failures", "Steps that failed: bugs of the server.", registry=registry)
        self.step_seconds = Histogram(
            "dreamer_step_seconds", "Time to dream one frame of every row.", buckets=STEP_BUCKETS, registry=registry
        )

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)
