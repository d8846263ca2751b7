"""Logging of the service: short lines on stderr, `time level process: text`. No secrets, no keys, no values."""

import logging
import sys


def configure_logging(process: str) -> None:
    """Send this process's log to stderr. `process` names it in every line."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s {process}: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
