"""`zetakv head`: the end of the chain of certificates, to be mailed to other clients and compared with theirs.

Clients that compare their heads find out if they are shown different stores.
"""

from pathlib import Path
from typing import Final

from kvstore_client import Relation, compare_heads

from kvstore.cli_connect import Target, say

_TEXT_BYTES_MAX: Final = 64 * 1024
"""Of a file with a head: a mail at most, not something that was named by mistake."""

_VERDICTS: Final = {
    Relation.SAME: "the same head",
    Relation.OLDER: "the other head is older, and in this chain",
    Relation.NEWER: "the other head is newer, and in this chain by now",
    Relation.UNDECIDED: "nothing contradicts, but without a server the epochs between cannot be followed",
    Relation.OTHER_INSTANCE: "the other head is of another store, or of this one before or after an override",
}


def text_of(argument: str) -> str:
    """A head, from itself or from the file of that name. Raises OSError, ValueError."""
    path = Path(argument)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):
        is_file = False  # a head is longer than a file's name may be
    if not is_file:
        return argument
    with path.open(encoding="utf-8") as file:
        return file.read(_TEXT_BYTES_MAX)


async def head(target: Target, compare: str | None, timeout_seconds: float) -> None:
    """Print the head, or compare it with another one. Raises KVStoreError, ValueError."""
    async with target.connected() as kv:
        for override in kv.overrides:
            say(f"note: {override.describe()}")
        if compare is not None:
            say(_VERDICTS[await kv.compare(text_of(compare), timeout_seconds)])
            return
        found = kv.head()
        if found is None:
            raise ValueError("no epoch is certified yet: there is no head")
        say(f"epoch {found.epoch} of instance {found.instance.hex()}, certified by {found.incarnation.hex()}")
        print(found)


def compare_offline(fingerprint: str, ours: str, theirs: str) -> None:
    """Compare two heads without a server. Raises IntegrityError, ValueError."""
    say(_VERDICTS[compare_heads(fingerprint, text_of(ours), text_of(theirs))])
