"""The client's cryptography: thin calls into `blake3` and `cryptography`, under the protocol's domains (sections 1, 4).

No algorithm is implemented here. Nothing here draws random numbers: secrets come in as arguments.
"""

from __future__ import annotations

import hmac

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from kvstore_client._codec import U16

MAC_BYTES = 16
SIGNATURE_BYTES = 64
ZERO_HASH = bytes(32)

_SESSION_INFO = b"zetakv/1 session"


def hash_bytes(data: bytes) -> bytes:
    """BLAKE3-256."""
    return blake3(data).digest()


def domain_hash(domain: str, data: bytes) -> bytes:
    """BLAKE3-256 in keyed mode under the domain's name, padded with zeros to 32 bytes."""
    return blake3(data, key=domain.encode().ljust(32, b"\0")).digest()


def mac(key: bytes, domain: bytes, data: bytes) -> bytes:
    """The first 16 bytes of keyed BLAKE3 over `data` and the domain byte."""
    return blake3(data + domain, key=key).digest(MAC_BYTES)


def mac_equal(left: bytes, right: bytes) -> bool:
    """Comparison in constant time."""
    return hmac.compare_digest(left, right)


def signed_by(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is the Ed25519 signature of `message` by `public_key`. Callers raise if not."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def sign(seed: bytes, message: bytes) -> bytes:
    """Ed25519 signature under the private key with this 32-byte seed."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def public_key_of(seed: bytes) -> bytes:
    """The Ed25519 public key of a 32-byte seed."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def ephemeral_public(secret: bytes) -> bytes:
    """The X25519 public key of a 32-byte secret."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


class SessionKeys:
    """The keys of one session, from the X25519 exchange and both hellos.

    Raises ValueError if the peer's ephemeral key makes the exchange's result all zeros.
    """

    def __init__(self, secret: bytes, peer_public: bytes, client_hello: bytes, server_hello: bytes) -> None:
        exchanged = X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(peer_public))
        salt = hash_bytes(client_hello + server_hello)
        self._secret = HKDF(SHA256(), 32, salt, _SESSION_INFO).derive(exchanged)
        self.admin = self._expand(b"zetakv/1 admin")
        self.former = self._expand(b"zetakv/1 former")

    def request(self, thread: int) -> bytes:
        return self._expand(b"zetakv/1 request" + U16.pack(thread))

    def receipt(self, thread: int) -> bytes:
        return self._expand(b"zetakv/1 receipt" + U16.pack(thread))

    def _expand(self, info: bytes) -> bytes:
        return HKDFExpand(SHA256(), 32, info).derive(self._secret)
