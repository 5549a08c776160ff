"""When a recording begins its next episode, which LeRobot does not tell its robots."""

import logging

ANNOUNCEMENT = "Recording episode"
"""How `lerobot-record` and `lerobot-rollout` begin the line that announces an episode."""


class EpisodeWatch(logging.Handler):
    """Notices in the log of this process that an episode begins.

    LeRobot has no call for it, because an arm cannot reset its surroundings. Its commands announce each episode in the
    log, and that is all there is.
    """

    def __init__(self):
        super().__init__(logging.INFO)
        self._has_started = False

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a line of the log."""
        if record.name == "root" and record.getMessage().startswith(ANNOUNCEMENT):
            self._has_started = True

    def has_started(self) -> bool:
        """Return whether an episode has started since the last call."""
        started, self._has_started = self._has_started, False
        return started

    def start(self) -> None:
        """Begin to watch."""
        logging.getLogger().addHandler(self)

    def stop(self) -> None:
        """Stop watching."""
        logging.getLogger().removeHandler(self)


__all__ = ["EpisodeWatch"]
