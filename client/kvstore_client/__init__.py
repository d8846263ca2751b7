"""ZetaKV's client: get and put on a server that need not be trusted, with receipts that are checked and certified.

    async with connect("127.0.0.1:7717", monitor=FINGERPRINT) as kv:
        written = await kv.put(b"key", b"value")
        await written.certified()

Only the monitor whose fingerprint is given is trusted. Whatever the server sends is checked against its keys.
"""

from kvstore_client._authorized import AuthorizedClients
from kvstore_client._client import KV, connect
from kvstore_client._errors import (
    CertificateError,
    CertificateTimeoutError,
    ConnectionLostError,
    ForbiddenError,
    ForkError,
    IdentityError,
    IntegrityError,
    KeyRequiredError,
    KVStoreError,
    NotANumberError,
    NotAppliedError,
    NumberOverflowError,
    OperationError,
    OutcomeError,
    OutcomeUnknownError,
    ProtocolError,
    ProvisionalLostError,
    ReceiptError,
    RefusedError,
    ResultLostError,
    RollbackError,
    StateError,
    TooLongError,
    TransportError,
    UnavailableError,
    UnknownKeyError,
    ValueMismatchError,
    ViolationError,
)
from kvstore_client._heads import Head, Relation, compare_heads
from kvstore_client._keys import ClientKey
from kvstore_client._local import LocalServer, find_local
from kvstore_client._messages import AuthorizedClient, Role
from kvstore_client._overrides import Override
from kvstore_client._receipts import Answer, Attempt, Number, Value, Written
from kvstore_client._sync import SyncAuthorizedClients, SyncKV, connect_sync
from kvstore_client._violations import VIOLATION_NAMES, Violation

__all__ = [
    "KV",
    "VIOLATION_NAMES",
    "Answer",
    "Attempt",
    "AuthorizedClient",
    "AuthorizedClients",
    "CertificateError",
    "CertificateTimeoutError",
    "ClientKey",
    "ConnectionLostError",
    "ForbiddenError",
    "ForkError",
    "Head",
    "IdentityError",
    "IntegrityError",
    "KVStoreError",
    "KeyRequiredError",
    "LocalServer",
    "NotANumberError",
    "NotAppliedError",
    "Number",
    "NumberOverflowError",
    "OperationError",
    "OutcomeError",
    "OutcomeUnknownError",
    "Override",
    "ProtocolError",
    "ProvisionalLostError",
    "ReceiptError",
    "RefusedError",
    "Relation",
    "ResultLostError",
    "Role",
    "RollbackError",
    "StateError",
    "SyncAuthorizedClients",
    "SyncKV",
    "TooLongError",
    "TransportError",
    "UnavailableError",
    "UnknownKeyError",
    "Value",
    "ValueMismatchError",
    "Violation",
    "ViolationError",
    "Written",
    "compare_heads",
    "connect",
    "connect_sync",
    "find_local",
]
