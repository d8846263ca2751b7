"""Why nothing can become durable now, by who cannot write: checkpointer, monitor, the write-ahead log of a worker.

Sans-IO. As long as there is any trouble the service is *degraded*: changes are refused, with this text as the reason.
Everybody who is in trouble tries again by itself, and says when it is over.
"""

import logging

logger = logging.getLogger(__name__)


class Troubles:
    """`text` is empty if there are none."""

    def __init__(self) -> None:
        self._by_source: dict[str, str] = {}

    @property
    def text(self) -> str:
        return "; ".join(dict.fromkeys(self._by_source.values()))

    def set(self, source: str, text: str) -> bool:
        """Begin or (with no text) end the trouble of a source. Returns whether `text` has changed."""
        before = self.text
        if text:
            self._by_source[source] = text
        else:
            self._by_source.pop(source, None)
        if self.text == before:
            return False
        if self.text:
            logger.error("DEGRADED: %s. Changes are refused, and nothing is certified, until it works", self.text)
        else:
            logger.warning("everything can be written again")
        return True
