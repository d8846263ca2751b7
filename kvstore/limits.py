"""Every limit of the host, with its reason. Those of the protocol itself are in protocol section 9."""

from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20

# --- protocol (section 9) ---
FRAME_BYTES_MAX: Final = 16 * MIB + 64 * KIB
"""The largest value fits with its request."""
RESPONSE_BYTES_MAX: Final = FRAME_BYTES_MAX - 1
"""Body of a receipt's frame: the frame's length counts its type."""
KEY_BYTES_MAX: Final = 65_535
"""A key's length is a u16."""
VALUE_BYTES_MAX: Final = 16 * MIB
"""A value must fit into one frame."""
THREADS_MAX: Final = 64
"""The number of partitions of the tree."""
KEY_AND_VALUE_BYTES_MAX: Final = FRAME_BYTES_MAX - KIB
"""A put of both must fit into one frame, with the rest of its request."""
MONITOR_MESSAGE_BYTES_MAX: Final = 16 * MIB + 64 * KIB
"""A message of the monitor: outputs hold at most the receipts of one log message, a sealed state is far smaller."""
SESSIONS_MAX: Final = 4_096
"""Sessions that a monitor keeps alive."""
TICKETS_MAX: Final = 4_096
"""Tickets of sessions that a monitor takes at a start; further ones it would leave out."""
TICKETS_PER_EPOCH: Final = 1_024
"""From then on an epoch is cut at once: those of two epochs, and of hellos meanwhile, are then within TICKETS_MAX."""

# --- client connections of one worker ---
UNGREETED_FRAME_BYTES_MAX: Final = 64 * KIB
"""Of a connection that no session is on: it may say hello, ask and resume, and costs no more memory than that."""
CONNECTIONS_MAX: Final = 10_000
"""Keeps file descriptors for peers and the store; a service that needs more connections has more workers."""
BACKLOG_MAX: Final = 4_096
"""Connections that wait to be accepted: during a restart all clients come back, and none is to be refused."""
PENDING_FRAMES_MAX: Final = 1_024
"""Unanswered frames of one connection before it is no longer read: deep enough for any pipeline."""
PENDING_BYTES_MAX: Final = 32 * MIB
"""Unanswered bytes of one connection before it is no longer read: two of the largest frames."""
WRITE_BUFFER_BYTES_MAX: Final = 64 * MIB
"""A client that lets this much pile up does not read: it is dropped, so that it costs no one else memory."""
CERTIFICATES_AT_ONCE_MAX: Final = 4_096
"""Certificates in one answer: 700 KB of frames, so that a catch-up does not stop the others."""
UNGREETED_CERTIFICATES_MAX: Final = 64
"""The same for a stranger, whose requests cost as little then as they do to send."""
KEYS_AT_ONCE_MAX: Final = 4_096
"""Keys in one listing: with keys of the default length they fit into one frame; of longer ones, fewer are allowed."""
KEYS_SCANNED_AT_ONCE: Final = 256
"""Rows looked at for a listing before other clients have their turn."""

# --- restarts ---
RESTARTS_MAX: Final = 5
"""Restarts within RESTARTS_SECONDS, and none of the runs certified an epoch: whatever kills them will not go away."""
RESTARTS_SECONDS: Final = 60.0

# --- times, in seconds ---
SESSION_IDLE_SECONDS: Final = 900.0
"""How long a session without a connection may come back: longer than any reconnect of the SDK."""
START_SECONDS: Final = 120.0
"""A process that is not ready by then never will be; loading the hot set of a large store takes some seconds."""
QUIET_SECONDS: Final = 5.0
"""At a clean stop, how long answers to requests in flight are waited for."""
LAST_CUT_SECONDS: Final = 60.0
"""At a clean stop, how long the last checkpoint may take."""
RETRY_DISK_SECONDS: Final = 1.0
"""Between two attempts to write to a disk that took nothing: soon enough for who has made room."""
LOG_PATIENCE_SECONDS: Final = 2.0
"""How long a write-ahead log whose disk takes nothing holds answers before it gives them up: the next attempts, or the
certificate of an epoch of the default length, may let them out."""
LAST_TRIES_SECONDS: Final = 3.0
"""At a clean stop, how long a store that takes nothing is tried: every second, and nobody frees a disk in a stop."""
EXIT_SECONDS: Final = 5.0
"""After being told to end, how long a process may take before it is killed."""
MONITOR_START_SECONDS: Final = 10.0
"""How long a monitor that runs apart may take to be reached and to start, before it is tried again."""
RETRY_SECONDS_MIN: Final = 0.1
RETRY_SECONDS_MAX: Final = 5.0
"""Pauses between attempts to reach a monitor that runs apart, or to start the gateway; each is twice the last one."""
SILENCE_SECONDS: Final = 2.0
"""After that long without workers the supervisor answers clients itself; a restart is over sooner, and they wait."""
KEEPALIVE_IDLE_SECONDS: Final = 10
KEEPALIVE_INTERVAL_SECONDS: Final = 5
KEEPALIVE_PROBES: Final = 4
"""A monitor's machine that is silent that long, and then answers none of these, is gone: the connection ends after 30 s
(protocol section 9)."""
LOST_SECONDS: Final = 0.5
"""How long the end of another process, as the reason, is waited for after the monitor's connection has ended."""
VIOLATION_SECONDS: Final = 1.0
"""How long the monitor's signed violation is waited for after a worker's engine has stopped."""
