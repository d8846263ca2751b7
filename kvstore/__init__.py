"""The untrusted host of ZetaKV: supervisor, workers, checkpointer, HTTP gateway and command line.

Nothing in this package is trusted: a mistake or a lie in it can stop the service, but cannot make a client accept a
wrong answer. The public interface is the `zetakv` command and the wire protocol (`docs/protocol.md`); Python programs
use the package `kvstore_client`.
"""

__version__ = "0.1.0"
