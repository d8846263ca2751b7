"""Messages between the processes of one service, and the frame types of the outside protocols.

Inside, every child holds one control connection to the supervisor; when it ends, so does the child. Bodies are given
beside each type; numbers are little-endian as in the protocol.
"""

import struct
from enum import IntEnum, IntFlag
from typing import Any, Final

EPOCH: Final = struct.Struct("<I")
TOKEN: Final = struct.Struct("<I")
CUT: Final = struct.Struct("<IB")
ROWS: Final = struct.Struct("<IH")
STORE: Final = struct.Struct("<IH")
FORWARD: Final = struct.Struct("<IB")
ERROR: Final = struct.Struct("<H")
SESSION: Final = struct.Struct("<Q")


class FromChild(IntEnum):
    """Child -> supervisor."""

    ATTACH = 1  # JSON: {"pid"}
    READY = 2  # JSON: what the supervisor needs to know of it
    FATAL = 3  # UTF-8: why neither this process nor another in its place can go on; it ends after this
    FAULT = 4  # UTF-8: why this process cannot go on; it ends after this
    TROUBLE = 5  # UTF-8: why its disk takes nothing, which is tried again and again; empty: it works again
    # workers
    CLIENT = 16  # token, frame type: u8, body: a client's frame for the supervisor to answer
    ACTIVE = 17  # epoch: an operation has run in it
    URGENT = 18  # epoch: cut it before its time
    HANDED_OVER = 19  # epoch: its rows are on their way to the checkpointer
    STOPPED = 20  # JSON violation: the engine cannot prove any more
    STATS = 21  # token, JSON
    QUIET = 22  # no request is in flight any more
    SESSION_LOST = 23  # session: its connection is gone
    SESSION_FOUND = 24  # session: resumed on a connection
    FINDINGS = 25  # token, JSON: what its store tells about a violation
    # checkpointer
    STORED = 32  # epoch: it is durable
    APPLIED = 33  # epoch: whoever reads the store sees the rows of all checkpoints up to it


class ToChild(IntEnum):
    """Supervisor -> child."""

    BEGIN = 1  # JSON
    SERVE = 2  # let clients in
    END = 3  # send what is queued, then exit
    # workers
    ANSWER = 16  # token, whole client frame
    CUT = 17  # epoch, all to Merkle: u8
    DURABLE = 18  # epoch: durable and, with a monitor, certified
    CERTIFICATE = 19  # certificate
    VIOLATION = 20  # JSON violation
    STATS = 21  # token
    QUIESCE = 22  # let no one in any more, finish what is in flight
    APPLIED = 23  # epoch: the rows of all checkpoints up to it are in the store
    FINDINGS = 25  # token, JSON violation
    DEGRADED = 24  # UTF-8: why nothing can become durable now; empty: it can again
    # checkpointer
    STORE = 32  # epoch, certificate length: u16, certificate of the epoch before, sealed state


class Rows(IntEnum):
    """Worker -> checkpointer."""

    CHECKPOINT = 1  # epoch: u32, worker: u16, packed rows


class Peer(IntEnum):
    """Worker -> worker, and back."""

    REQUEST = 1  # connection: u32, frame type: u8, body
    ANSWER = 2  # connection: u32, whole client frame


class Client(IntEnum):
    """Frames of a client (protocol section 6)."""

    HELLO = 0x01
    REQUEST = 0x02
    RESUME = 0x03
    CERTIFICATES = 0x04
    ADMIN = 0x05
    STATUS = 0x06
    KEYS = 0x07


class Server(IntEnum):
    """Frames to a client (protocol section 6)."""

    GREETING = 0x80
    HELLO_OK = 0x81
    RECEIPT = 0x82
    REJECTED = 0x83
    RESUMED = 0x84
    CERTIFICATE = 0x85
    VIOLATION = 0x86
    ADMIN_ANSWER = 0x87
    STATUS = 0x88
    KEYS = 0x89
    CHECKPOINT = 0x8A
    ERROR = 0x8F


class ErrorCode(IntEnum):
    """Of an error frame (protocol section 6)."""

    MALFORMED = 1
    UNKNOWN_TYPE = 2
    TOO_LONG = 3
    HELLO_REFUSED = 4
    NOT_ACCEPTABLE = 5
    NOT_NOW = 6
    NOT_UNVERIFIED = 7
    MONITOR_FAILED = 8
    CHANGES_REFUSED = 9
    NO_ANSWER_NOW = 10


CLOSING_ERRORS: Final = frozenset(
    {ErrorCode.MALFORMED, ErrorCode.UNKNOWN_TYPE, ErrorCode.TOO_LONG, ErrorCode.NO_ANSWER_NOW}
)
"""After these the server closes the connection."""


class GreetingFlag(IntFlag):
    UNVERIFIED = 1
    OPEN = 2
    WRITE_AHEAD_LOG = 4


class Monitor(IntEnum):
    """Messages between host and monitor (protocol section 8)."""

    CONTROL = 0x01
    LOG_OPEN = 0x02
    START = 0x10
    HELLO = 0x11
    ADMIN = 0x12
    DURABLE = 0x13
    CLOSE_SESSION = 0x14
    TICKET = 0x15
    LIVE = 0x16
    LOG = 0x20
    STARTED = 0x90
    NOT_STARTED = 0x91
    HELLO_OK = 0x92
    HELLO_REFUSED = 0x93
    ADMIN_ANSWER = 0x94
    ADMIN_REJECTED = 0x95
    SEALED = 0x96
    CERTIFICATE = 0x97
    FAILED = 0x98
    HELLO_OK_WITH_TICKET = 0x99
    IS_LIVE = 0x9A
    NOT_COMMITTED = 0x9B
    OUTPUTS = 0xA0


Json = dict[str, Any]
