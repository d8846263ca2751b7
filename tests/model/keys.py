"""Base keys: paths in the binary tree of all records, as strings of "0" and "1". The root is the empty path."""

Key = str

ROOT: Key = ""


def is_ancestor(above: Key, below: Key) -> bool:
    """Whether `above` lies on the path to `below`, strictly above it."""
    return above != below and below.startswith(above)


def direction(above: Key, below: Key) -> int:
    """On which side of `above` its descendant `below` lies: 0 left, 1 right."""
    return int(below[len(above)])


def path_of(key_hash: bytes, depth: int) -> Key:
    """The first bits of a key hash."""
    return bin(int.from_bytes(b"\1" + key_hash, "big"))[3 : 3 + depth]


def encode(key: Key) -> bytes:
    bits = int(key.ljust(256, "0"), 2).to_bytes(32, "big")
    return len(key).to_bytes(2, "little") + bits


def text(key: Key) -> str:
    return key or "root"
