"""Every lie that the library knows, by layer and name.

An action gets a message, a source of chance, and what the liar has seen and kept of that layer. It returns what goes on
in the message's place, or None if this message cannot be lied about so.
"""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from _harness.client_frames import Receipt
from _harness.verifier_log import (
    AddBlum,
    AddMerkle,
    BaseKey,
    CarryOver,
    Entry,
    NextEpoch,
    Output,
    Request,
    Resume,
    Run,
    RunAbsent,
    Tick,
    VerifyEpoch,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kvstore_client._operations import commitment
from lies.liar import Action, Layer, Memory
from support.frames import Frame

from kvstore._prover import decode_record, encode_record
from kvstore.messages import Client, Monitor, Server

if TYPE_CHECKING:
    from lies.host import Stored

RECORD, NODE, HOT = b"r", b"n", b"h"
"""First bytes of store keys."""
OTHER_VALUES: Final = (b"", b"other", b"a longer value that somebody else made up " * 3, bytes(8))
_SOMEBODY: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
_CERTIFICATE_EPOCH_AT: Final = 36
_CERTIFICATE_INCARNATION_AT: Final = 20
_SIGNATURE_BYTES: Final = 64


def flipped(data: bytes, chance: random.Random) -> bytes:
    """With one bit changed."""
    if not data:
        return b"\1"
    at = chance.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :]


# --- frames, of any stream: a message is a pair of who it goes to or comes from, and the frame ---

Addressed = tuple[Any, Frame]


def drop(message: Any, chance: random.Random, memory: Memory) -> list[Any]:
    return []


def twice(message: Any, chance: random.Random, memory: Memory) -> list[Any]:
    return [message, message]


def behind(message: Any, chance: random.Random, memory: Memory) -> list[Any]:
    """It changes places with the next one."""
    memory.held.append(message)
    return []


def later(message: Any, chance: random.Random, memory: Memory) -> list[Any]:
    """It is held back, over reconnections and restarts."""
    memory.kept.append(message)
    return []


def flip(message: Addressed, chance: random.Random, memory: Memory) -> list[Addressed]:
    who, frame = message
    return [(who, Frame(frame.kind, flipped(frame.body, chance)))]


def cut_short(message: Addressed, chance: random.Random, memory: Memory) -> list[Addressed]:
    who, frame = message
    return [(who, Frame(frame.kind, frame.body[: chance.randrange(len(frame.body) + 1)]))]


def replay(message: Addressed, chance: random.Random, memory: Memory) -> list[Addressed] | None:
    """A former one comes before it."""
    if not memory.seen:
        return None
    return [(message[0], chance.choice(memory.seen)[1]), message]


def instead(message: Addressed, chance: random.Random, memory: Memory) -> list[Addressed] | None:
    """A former one of the same type comes in its place."""
    who, frame = message
    former = [seen for _, seen in memory.seen if seen.kind == frame.kind and seen.body != frame.body]
    return [(who, chance.choice(former))] if former else None


def misdirect(message: Addressed, chance: random.Random, memory: Memory) -> list[Addressed] | None:
    """It goes to, or comes from, another client."""
    who, frame = message
    others = [other for other, _ in memory.seen if other.client != who.client]
    return [(others[-1], frame)] if others else None


def _receipt(change: Callable[[Receipt, random.Random, Memory], Receipt | None]) -> Action:
    def action(message: Addressed, chance: random.Random, memory: Memory) -> list[Addressed] | None:
        who, frame = message
        if frame.kind != Server.RECEIPT:
            return None
        changed = change(Receipt.of(frame), chance, memory)
        return None if changed is None else [(who, changed.frame())]

    return action


def _other_result(receipt: Receipt, chance: random.Random, memory: Memory) -> Receipt | None:
    """A get's inline value is another one."""
    if receipt.results[:2] != b"\1\1":
        return None
    value = chance.choice([value for value in OTHER_VALUES if len(value) <= 32])
    return replace(receipt, results=b"\1" + commitment(value) + receipt.results[3 + receipt.results[2] :])


def _other_value(receipt: Receipt, chance: random.Random, memory: Memory) -> Receipt | None:
    """The bytes of a long value are others."""
    return replace(receipt, values=flipped(receipt.values, chance)) if receipt.values else None


def _other_moment(receipt: Receipt, chance: random.Random, memory: Memory) -> Receipt:
    return replace(receipt, ts=max(0, receipt.ts + chance.choice((-1 << 32, -1, 1, 1 << 32))))


def _other_receipts_results(receipt: Receipt, chance: random.Random, memory: Memory) -> Receipt | None:
    former = [Receipt.of(frame) for _, frame in memory.seen if frame.kind == Server.RECEIPT]
    others = [other for other in former if other.count == receipt.count and other.results != receipt.results]
    if not others:
        return None
    other = chance.choice(others)
    return replace(receipt, results=other.results, values=other.values)


def _request_of_another_key(message: Addressed, chance: random.Random, memory: Memory) -> list[Addressed] | None:
    """The first operation names the key of another request."""
    who, frame = message
    others = [seen for _, seen in memory.seen if seen.kind == Client.REQUEST]
    if frame.kind != Client.REQUEST or not others:
        return None
    at = 4 + 32 + 1
    other = chance.choice(others).body[at : at + 32]
    body = frame.body[:at] + other + frame.body[at + 32 :]
    return [(who, Frame(frame.kind, body))]


# --- certificates ---


def _certificate(change: Callable[[bytes, random.Random], bytes]) -> Action:
    """Signed anew, by somebody."""

    def action(message: Addressed, chance: random.Random, memory: Memory) -> list[Addressed]:
        who, frame = message
        body = change(frame.body[:-_SIGNATURE_BYTES], chance)
        return [(who, Frame(frame.kind, body + _SOMEBODY.sign(body)))]

    return action


def _other_epoch(body: bytes, chance: random.Random) -> bytes:
    at = _CERTIFICATE_EPOCH_AT
    epoch = int.from_bytes(body[at : at + 4], "little") + chance.choice((-1, 1))
    return body[:at] + max(0, epoch).to_bytes(4, "little") + body[at + 4 :]


def _other_incarnation(body: bytes, chance: random.Random) -> bytes:
    at = _CERTIFICATE_INCARNATION_AT
    return body[:at] + chance.randbytes(16) + body[at + 16 :]


# --- the verifier log: a message is the entries of one log message ---

_WITH_VALUE: Final = AddMerkle | AddBlum | CarryOver


def _entry(change: Callable[[list[Entry], int, random.Random, Memory], list[Entry] | None]) -> Action:
    """What comes in the place of one entry."""

    def action(entries: list[Entry], chance: random.Random, memory: Memory) -> list[Entry] | None:
        if not entries:
            return None
        at = chance.randrange(len(entries))
        changed = change(entries, at, chance, memory)
        return None if changed is None else entries[:at] + changed + entries[at + 1 :]

    return action


def _other_field(entries: list[Entry], at: int, chance: random.Random, memory: Memory) -> list[Entry] | None:
    entry = entries[at]
    names = [each.name for each in fields(entry)]
    if not names:
        return None
    name = chance.choice(names)
    changed = _changed(getattr(entry, name), name, entries, chance)
    return [replace(entry, **{name: changed})]


def _changed(value: Any, name: str, entries: list[Entry], chance: random.Random) -> Any:
    if name == "ts":
        # Of the future only rarely: that another thread has not come to it yet is waited for.
        return max(0, value + chance.choice((-1, -2, -(1 << 32), 1)))
    if name == "value":
        others = [entry.value for entry in entries if isinstance(entry, _WITH_VALUE) and entry.value != value]
        return chance.choice([*others, b"\0", commitment(b"other")])
    if isinstance(value, BaseKey):
        keys = [entry.key for entry in entries if isinstance(entry, _WITH_VALUE) and entry.key != value]
        return chance.choice([*keys, BaseKey(value.depth, flipped(value.bits, chance))])
    if isinstance(value, bytes):
        return flipped(value, chance)
    if isinstance(value, tuple):
        return tuple(max(0, slot + chance.choice((-1, 1))) for slot in value)
    return max(0, value + chance.choice((-1, 1)))


def _leaves(entries: list[Entry]) -> list[int]:
    return [at for at, entry in enumerate(entries) if isinstance(entry, _WITH_VALUE) and entry.key.is_leaf]


def _values_swapped(entries: list[Entry], chance: random.Random, memory: Memory) -> list[Entry] | None:
    places = _leaves(entries)
    if len(places) < 2:
        return None
    first, second = chance.sample(places, 2)
    one, two = entries[first], entries[second]
    assert isinstance(one, _WITH_VALUE)
    assert isinstance(two, _WITH_VALUE)
    if one.value == two.value:
        return None
    changed = list(entries)
    changed[first], changed[second] = replace(one, value=two.value), replace(two, value=one.value)
    return changed


def _value_changed(entries: list[Entry], chance: random.Random, memory: Memory) -> list[Entry] | None:
    """Of a record that is added or carried over: the classic lie."""
    places = _leaves(entries)
    if not places:
        return None
    at = chance.choice(places)
    entry = entries[at]
    assert isinstance(entry, _WITH_VALUE)
    former = [
        seen.value
        for log in memory.seen
        for seen in log
        if isinstance(seen, _WITH_VALUE) and seen.key == entry.key and seen.value != entry.value
    ]
    value = chance.choice([*former, commitment(chance.choice(OTHER_VALUES)), b"\0"])
    return None if value == entry.value else [*entries[:at], replace(entry, value=value), *entries[at + 1 :]]


def _run_elsewhere(entries: list[Entry], chance: random.Random, memory: Memory) -> list[Entry] | None:
    """An operation runs on another record, or its key is said to be absent."""
    places = [at for at, entry in enumerate(entries) if isinstance(entry, Run | RunAbsent)]
    slots = [entry.slot for entry in entries if isinstance(entry, AddMerkle | AddBlum)]
    if not places or not slots:
        return None
    at, slot = chance.choice(places), chance.choice(slots)
    return [*entries[:at], chance.choice((Run((slot,)), RunAbsent(slot))), *entries[at + 1 :]]


def _swapped(entries: list[Any], chance: random.Random, memory: Memory) -> list[Any] | None:
    if len(entries) < 2:
        return None
    changed = list(entries)
    first, second = chance.sample(range(len(entries)), 2)
    changed[first], changed[second] = changed[second], changed[first]
    return changed


def _without_requests(entries: list[Entry], chance: random.Random, memory: Memory) -> list[Entry] | None:
    kept: list[Entry] = [entry for entry in entries if not isinstance(entry, Request | Resume)]
    return kept if len(kept) < len(entries) else None


def _former_entry(entries: list[Entry], at: int, chance: random.Random, memory: Memory) -> list[Entry] | None:
    former = [entry for log in memory.seen for entry in log]
    return [entries[at], chance.choice(former)] if former else None


# --- outputs ---


def _output(change: Callable[[list[Output], int, random.Random], list[Output]]) -> Action:
    def action(outputs: list[Output], chance: random.Random, memory: Memory) -> list[Output] | None:
        if not outputs:
            return None
        at = chance.randrange(len(outputs))
        return outputs[:at] + change(outputs, at, chance) + outputs[at + 1 :]

    return action


def _former_output(outputs: list[Output], chance: random.Random, memory: Memory) -> list[Output] | None:
    former = [output for message in memory.seen for output in message]
    if not former or not outputs:
        return None
    at = chance.randrange(len(outputs))
    same = [output for output in former if output.kind == outputs[at].kind]
    return [*outputs[:at], chance.choice(same), *outputs[at + 1 :]] if same else None


# --- control messages: a message is a frame ---


def _frame(change: Callable[[Frame, random.Random], list[Frame] | None]) -> Action:
    return lambda frame, chance, memory: change(frame, chance)


def _former_frame(frame: Frame, chance: random.Random, memory: Memory) -> list[Frame] | None:
    former = [seen for seen in memory.seen if seen.kind == frame.kind and seen != frame]
    return [chance.choice(former)] if former else None


def _durable_for_another_epoch(frame: Frame, chance: random.Random) -> list[Frame] | None:
    if frame.kind != Monitor.DURABLE:
        return None
    epoch = int.from_bytes(frame.body, "little") + chance.choice((-1, 1))
    return [Frame(frame.kind, max(0, epoch).to_bytes(4, "little"))]


def _durable_beforehand(frame: Frame, chance: random.Random) -> list[Frame]:
    """For an epoch that nobody has sealed yet."""
    return [Frame(Monitor.DURABLE, chance.randrange(1, 4).to_bytes(4, "little")), frame]


def _session_closed(frame: Frame, chance: random.Random) -> list[Frame]:
    return [frame, Frame(Monitor.CLOSE_SESSION, chance.randrange(1, 4).to_bytes(8, "little"))]


def _flipped_frame(frame: Frame, chance: random.Random) -> list[Frame]:
    return [Frame(frame.kind, flipped(frame.body, chance))]


# --- rows as they are read: a message is (store key, row) ---

Row = tuple[bytes, bytes | None]


def _row_missing(message: Row, chance: random.Random, memory: Memory) -> Row | None:
    key, row = message
    return None if row is None else (key, None)


def _row_flipped(message: Row, chance: random.Random, memory: Memory) -> Row | None:
    key, row = message
    return None if row is None else (key, flipped(row, chance))


def _row_with_another_value(message: Row, chance: random.Random, memory: Memory) -> Row | None:
    key, row = message
    changed = _with_another_value(key, row, chance)
    return None if changed is None else (key, changed)


def _former_row(message: Row, chance: random.Random, memory: Memory) -> Row | None:
    key, row = message
    former = [seen for of, seen in memory.seen if of == key and seen != row]
    return (key, chance.choice(former)) if former else None


def _row_of_another(message: Row, chance: random.Random, memory: Memory) -> Row | None:
    key, _ = message
    others = [seen for of, seen in memory.seen if of != key and of[:1] == key[:1] and seen is not None]
    return (key, chance.choice(others)) if others else None


def _with_another_value(key: bytes, row: bytes | None, chance: random.Random) -> bytes | None:
    if row is None or key[:1] != RECORD:
        return None
    name, value = decode_record(row)
    other = chance.choice([other for other in (*OTHER_VALUES, None) if other != value])
    return encode_record(name, other)


# --- checkpoints: a message is (changed rows, sealed state) ---

Checkpoint = tuple[list[Row], bytes]


def _one_row_unstored(message: Checkpoint, chance: random.Random, memory: Memory) -> Checkpoint | None:
    rows, sealed = message
    if not rows:
        return None
    at = chance.randrange(len(rows))
    return rows[:at] + rows[at + 1 :], sealed


def _one_row_changed(message: Checkpoint, chance: random.Random, memory: Memory) -> Checkpoint | None:
    rows, sealed = message
    at = chance.randrange(len(rows)) if rows else 0
    changed = _with_another_value(*rows[at], chance) if rows else None
    return None if changed is None else ([*rows[:at], (rows[at][0], changed), *rows[at + 1 :]], sealed)


def _former_sealed(memory: Memory) -> bytes:
    sealed: bytes = memory.seen[-1][1] if memory.seen else b""
    return sealed


# --- the write-ahead log, and the tickets, of a start: a message is a list of records ---


def _record(change: Callable[[list[bytes], int, random.Random], list[bytes]]) -> Action:
    """What comes in the place of one of them."""

    def action(records: list[bytes], chance: random.Random, memory: Memory) -> list[bytes] | None:
        if not records:
            return None
        at = chance.randrange(len(records))
        return records[:at] + change(records, at, chance) + records[at + 1 :]

    return action


def _end_torn_off(records: list[bytes], chance: random.Random, memory: Memory) -> list[bytes] | None:
    return records[: chance.randrange(len(records))] if records else None


def _former_records(records: list[bytes], chance: random.Random, memory: Memory) -> list[bytes] | None:
    """Those of another thread, or of an earlier start."""
    former = [seen for seen in memory.seen if seen != records]
    return chance.choice(former) if former else None


_RECORDS: dict[str, Action] = {
    "drop one": _record(lambda records, at, chance: []),
    "one twice": _record(lambda records, at, chance: [records[at], records[at]]),
    "flip a bit": _record(lambda records, at, chance: [flipped(records[at], chance)]),
    "two swapped": _swapped,
    "the end torn off": _end_torn_off,
    "former ones instead": _former_records,
}


# --- the store between two steps: a message is (what is stored, former states of it) ---

Store = tuple["Stored", "list[Stored]"]
Edit = Callable[["Stored", "list[Stored]", random.Random], bool]


def _store(edit: Edit) -> Action:
    """`edit`: whether it changed anything."""

    def action(message: Store, chance: random.Random, memory: Memory) -> Store | None:
        return message if edit(*message, chance) else None

    return action


def _keys(stored: "Stored", kinds: bytes) -> list[bytes]:
    return [key for key in sorted(stored.rows) if key[0] in kinds]


def _edit_value(stored: "Stored", snapshots: "Sequence[Stored]", chance: random.Random) -> bool:
    keys = _keys(stored, RECORD)
    if not keys:
        return False
    key = chance.choice(keys)
    changed = _with_another_value(key, stored.rows[key], chance)
    assert changed is not None
    stored.rows[key] = changed
    return True


def _edit_bit(stored: "Stored", snapshots: "Sequence[Stored]", chance: random.Random) -> bool:
    keys = _keys(stored, RECORD + NODE + HOT)
    if not keys:
        return False
    key = chance.choice(keys)
    stored.rows[key] = flipped(stored.rows[key], chance)
    return True


def _delete_row(stored: "Stored", snapshots: "Sequence[Stored]", chance: random.Random) -> bool:
    keys = _keys(stored, RECORD + NODE + HOT)
    if not keys:
        return False
    del stored.rows[chance.choice(keys)]
    return True


def _swap_values(stored: "Stored", snapshots: "Sequence[Stored]", chance: random.Random) -> bool:
    keys = _keys(stored, RECORD)
    if len(keys) < 2:
        return False
    first, second = chance.sample(keys, 2)
    (one, first_value), (two, second_value) = decode_record(stored.rows[first]), decode_record(stored.rows[second])
    stored.rows[first], stored.rows[second] = encode_record(one, second_value), encode_record(two, first_value)
    return first_value != second_value


def _copy_row(stored: "Stored", snapshots: "Sequence[Stored]", chance: random.Random) -> bool:
    """A row is there twice, the second time in another one's place."""
    keys = _keys(stored, chance.choice((RECORD, NODE)))
    if len(keys) < 2:
        return False
    first, second = chance.sample(keys, 2)
    stored.rows[first] = stored.rows[second]
    return True


def _old_row(stored: "Stored", snapshots: "Sequence[Stored]", chance: random.Random) -> bool:
    old = [
        (key, row)
        for snapshot in snapshots
        for key, row in sorted(snapshot.rows.items())
        if stored.rows.get(key) != row
    ]
    if not old:
        return False
    key, row = chance.choice(old)
    stored.rows[key] = row
    return True


def _old_rows(stored: "Stored", snapshots: "Sequence[Stored]", chance: random.Random) -> bool:
    """The whole tree, but not the sealed state."""
    older = [snapshot for snapshot in snapshots if snapshot.rows != stored.rows]
    if not older:
        return False
    stored.rows = dict(chance.choice(older).rows)
    return True


def _old_sealed(stored: "Stored", snapshots: "Sequence[Stored]", chance: random.Random) -> bool:
    older = [snapshot for snapshot in snapshots if snapshot.sealed != stored.sealed]
    if not older:
        return False
    stored.sealed = chance.choice(older).sealed
    return True


def _old_store(stored: "Stored", snapshots: "Sequence[Stored]", chance: random.Random) -> bool:
    if not snapshots:
        return False
    vars(stored).update(vars(copy.deepcopy(chance.choice(snapshots))))
    return True


def _flip_sealed(stored: "Stored", snapshots: "Sequence[Stored]", chance: random.Random) -> bool:
    stored.sealed = flipped(stored.sealed, chance) if stored.sealed else b""
    return bool(stored.sealed)


def _other_threads(stored: "Stored", snapshots: "Sequence[Stored]", chance: random.Random) -> bool:
    """The host says that another number of threads made the last checkpoint."""
    others = [threads for threads in (1, 2, 4) if threads != stored.threads]
    changed = stored.threads > 0
    stored.threads = chance.choice(others) if changed else 0
    return changed


_STREAM: dict[str, Action] = {
    "drop": drop,
    "twice": twice,
    "behind the next": behind,
    "later": later,
    "flip a bit": flip,
    "cut short": cut_short,
    "replay": replay,
    "a former one instead": instead,
    "to or from another": misdirect,
}

CATALOGUE: dict[Layer, dict[str, Action]] = {
    Layer.TO_SERVER: _STREAM | {"another key": _request_of_another_key},
    Layer.TO_CLIENT: _STREAM
    | {
        "another result": _receipt(_other_result),
        "another value": _receipt(_other_value),
        "another moment": _receipt(_other_moment),
        "another receipt's results": _receipt(_other_receipts_results),
    },
    Layer.CERTIFICATES: _STREAM
    | {
        "of another epoch, signed by somebody": _certificate(_other_epoch),
        "of another incarnation, signed by somebody": _certificate(_other_incarnation),
    },
    Layer.LOG: {
        "drop an entry": _entry(lambda entries, at, chance, memory: []),
        "an entry twice": _entry(lambda entries, at, chance, memory: [entries[at], entries[at]]),
        "a former entry again": _entry(_former_entry),
        "an entry of no use": _entry(
            lambda entries, at, chance, memory: [entries[at], chance.choice((Tick(), NextEpoch(), VerifyEpoch()))]
        ),
        "another field": _entry(_other_field),
        "another value": _value_changed,
        "two values swapped": _values_swapped,
        "two entries swapped": _swapped,
        "run on another record": _run_elsewhere,
        "no requests": _without_requests,
    },
    Layer.OUTPUTS: {
        "drop an output": _output(lambda outputs, at, chance: []),
        "an output twice": _output(lambda outputs, at, chance: [outputs[at], outputs[at]]),
        "flip a bit": _output(
            lambda outputs, at, chance: (
                [replace(outputs[at], content=flipped(outputs[at].content, chance))] if outputs[at].content else []
            )
        ),
        "two outputs swapped": _swapped,
        "a former one instead": _former_output,
    },
    Layer.TO_MONITOR: {
        "drop": drop,
        "twice": twice,
        "flip a bit": _frame(_flipped_frame),
        "a former one instead": _former_frame,
        "durable for another epoch": _frame(_durable_for_another_epoch),
        "durable before it is sealed": _frame(_durable_beforehand),
        "close a session": _frame(_session_closed),
    },
    Layer.TO_HOST: {
        "drop": drop,
        "twice": twice,
        "flip a bit": _frame(_flipped_frame),
        "a former one instead": _former_frame,
    },
    Layer.ROW_READ: {
        "missing": _row_missing,
        "flip a bit": _row_flipped,
        "another value": _row_with_another_value,
        "a former row": _former_row,
        "another one's row": _row_of_another,
    },
    Layer.CHECKPOINT: {
        "nothing is stored": lambda message, chance, memory: ([], _former_sealed(memory)),
        "only the sealed state is stored": lambda message, chance, memory: ([], message[1]),
        "only the rows are stored": lambda message, chance, memory: (message[0], _former_sealed(memory)),
        "one row is not stored": _one_row_unstored,
        "one value is stored changed": _one_row_changed,
        "the sealed state is stored changed": lambda message, chance, memory: (
            message[0],
            flipped(message[1], chance),
        ),
    },
    Layer.STORE: {
        "another value": _store(_edit_value),
        "flip a bit": _store(_edit_bit),
        "delete a row": _store(_delete_row),
        "two values swapped": _store(_swap_values),
        "a row twice": _store(_copy_row),
        "an old row": _store(_old_row),
        "all old rows": _store(_old_rows),
        "an old sealed state": _store(_old_sealed),
        "an old store": _store(_old_store),
        "flip a bit of the sealed state": _store(_flip_sealed),
        "another number of threads": _store(_other_threads),
    },
    Layer.REPLAY: _RECORDS,
    Layer.TICKETS: _RECORDS,
}
