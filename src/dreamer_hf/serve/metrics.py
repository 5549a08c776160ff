"""What a server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest


class Metrics:
    """The counters of one server, in a registry of their own, with memory and processor time of the process."""

    def __init__(self):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.sessions = Gauge("dreamer_sessions", "Sessions now.", ["kind"], registry=self.registry)
        self.opened = Counter("dreamer_sessions_opened", "Sessions so far.", ["kind"], registry=self.registry)
        self.refused = Counter("dreamer_refused", "Requests and messages refused.", ["why"], registry=self.registry)
        self.frames = Counter("dreamer_frames", "Frames dreamt, over all sessions.", registry=self.registry)
        self.skipped = Counter("dreamer_frames_skipped", "Frames that slow readers missed.", registry=self.registry)
        self.failures = Counter("dreamer_failures", "Steps that failed: bugs of ours.", registry=self.registry)
        buckets = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
        self.step_seconds = Histogram(
            "dreamer_step_seconds", "Time to dream one frame of every row.", buckets=buckets, registry=self.registry
        )

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
