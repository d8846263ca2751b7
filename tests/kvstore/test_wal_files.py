"""The log's files: what was written is read again, and after a crash at any byte the durable part is."""

import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.wal import files
from kvstore.wal.files import log_path, segments
from kvstore.wal.format import HEADER_BYTES, DamagedLogError, Header, LogReader, TornHeaderError, encode_group

SALT = bytes(range(16))
HEADER = Header(epoch=7, thread=1, threads=2, serial=3, former_bytes=0, salt=SALT)
Groups = list[list[bytes]]
GROUPS: Groups = [[b"first", b""], [b"second" * 9], [b"third", SALT[:4] * 5, b"end"]]


def file_of(groups: Groups, header: Header = HEADER) -> tuple[bytes, list[int]]:
    """The bytes of a file, and where each group ends."""
    data, ends = header.encode(), [HEADER_BYTES]
    for group in groups:
        data += encode_group(header.salt, len(data), group)
        ends.append(len(data))
    return data, ends


def reader_of(data: bytes, counted_bytes: int | None = None) -> LogReader:
    return LogReader(lambda at, length: data[at : at + length], len(data), SALT, counted_bytes)


def flat(groups: Groups) -> list[bytes]:
    return [record for group in groups for record in group]


@given(st.lists(st.lists(st.binary(max_size=100), min_size=1, max_size=4), max_size=6))
def test_groups_are_read_as_written(groups: Groups) -> None:
    data, _ = file_of(groups)
    reader = reader_of(data)
    assert list(reader.records()) == flat(groups)
    assert reader.good_bytes == len(data)


def test_header_is_read_as_written_and_torn_at_every_byte() -> None:
    data = HEADER.encode()
    assert Header.decode(data) == HEADER
    for length in range(len(data)):
        with pytest.raises(TornHeaderError):
            Header.decode(data[:length])
    for at in range(len(data)):
        with pytest.raises(TornHeaderError):
            Header.decode(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])


def test_cut_at_every_byte_leaves_the_whole_groups_before() -> None:
    data, ends = file_of(GROUPS)
    for length in range(HEADER_BYTES, len(data) + 1):
        whole = max(index for index, end in enumerate(ends) if end <= length)
        reader = reader_of(data[:length])
        assert list(reader.records()) == flat(GROUPS[:whole])
        assert reader.good_bytes == ends[whole]


def test_last_group_changed_at_every_byte_is_cut_off() -> None:
    data, ends = file_of(GROUPS)
    for at in range(ends[-2], len(data)):
        reader = reader_of(data[:at] + bytes((data[at] ^ 0x40,)) + data[at + 1 :])
        assert list(reader.records()) == flat(GROUPS[:-1])


def test_group_before_a_good_one_changed_at_every_byte_is_damage() -> None:
    data, ends = file_of(GROUPS)
    for at in range(HEADER_BYTES, ends[-2]):
        changed = data[:at] + bytes((data[at] ^ 0x40,)) + data[at + 1 :]
        place = max(end for end in ends if end <= at)
        with pytest.raises(DamagedLogError, match=f"offset {place} are damaged"):
            list(reader_of(changed).records())


def test_group_of_another_place_is_no_good_group() -> None:
    data, ends = file_of([[b"a"], [b"b"]])
    swapped = data[: ends[0]] + data[ends[1] :] + data[ends[0] : ends[1]]
    assert list(reader_of(swapped).records()) == []


def test_a_client_cannot_make_the_end_of_a_log_slow_to_read() -> None:
    """What is torn is searched for groups. A value once was full of beginnings of groups, each checked to its end."""
    value_bytes = 1 << 20
    beginnings = (b"ZKWg" + (value_bytes - 12 * n).to_bytes(4, "little") + bytes(4) for n in range(value_bytes // 12))
    data, _ = file_of([[b"".join(beginnings)]])
    read_bytes = 0

    def read(at: int, length: int) -> bytes:
        nonlocal read_bytes
        read_bytes += length
        return data[at : at + length]

    assert list(LogReader(read, len(data) - 1, SALT).records()) == []
    assert read_bytes < 4 * len(data)


@pytest.mark.parametrize("body", [b"abc", b"\x05\x00\x00\x00four", b"\x00\x00\x00\x00\x01"])
def test_records_that_no_writer_has_written_are_damage(body: bytes) -> None:
    whole, _ = file_of([[b"first"]])
    group = encode_group(SALT, len(whole), [body])
    head, content = group[:12], group[16:]  # without the length that makes it a record
    mark, length = head[:4], len(content).to_bytes(4, "little")
    checksum = zlib.crc32(content, zlib.crc32(SALT + len(whole).to_bytes(8, "little"))).to_bytes(4, "little")
    with pytest.raises(DamagedLogError, match="not what a log holds"):
        list(reader_of(whole + mark + length + checksum + content).records())


def test_a_header_of_another_version_is_not_taken_for_a_torn_one() -> None:
    fields = b"ZKW1" + HEADER.encode()[4:-4]
    with pytest.raises(DamagedLogError, match="another version"):
        Header.decode(fields + zlib.crc32(fields).to_bytes(4, "little"))


def test_what_was_durable_must_be_whole() -> None:
    data, ends = file_of(GROUPS)
    assert list(reader_of(data + b"torn", counted_bytes=ends[2]).records()) == flat(GROUPS[:2])
    for changed in (data[: ends[2] - 1], data[: ends[1] + 9] + b"\xff" + data[ends[1] + 10 :]):
        with pytest.raises(DamagedLogError, match="though they were durable"):
            list(reader_of(changed, counted_bytes=ends[2]).records())


# --- files ---


def write(directory: Path, serial: int, groups: Groups, *, epoch: int = 7, former_bytes: int = 0) -> Path:
    header = Header(epoch, 1, 2, serial, former_bytes, SALT)
    path = log_path(directory, "worker-01", serial)
    path.write_bytes(file_of(groups, header)[0])
    return path


def read(directory: Path) -> list[tuple[int, list[bytes]]]:
    return [(segment.epoch, list(segment.records())) for segment in segments(directory, "worker-01")]


def test_segments_and_files_that_go_on_with_them(tmp_path: Path) -> None:
    write(tmp_path, 1, [[b"a"]], epoch=6)
    path = write(tmp_path, 2, [[b"b"]])
    durable = path.stat().st_size
    path.write_bytes(path.read_bytes() + encode_group(SALT, durable, [b"never acknowledged"]))
    write(tmp_path, 3, [[b"c"]], former_bytes=durable)
    assert read(tmp_path) == [(6, [b"a"]), (7, [b"b", b"c"])]
    assert files.streams(tmp_path) == ["worker-01"]
    found = segments(tmp_path, "worker-01")
    files.remove(tmp_path, found[1:])
    assert read(tmp_path) == [(6, [b"a"])]


def test_torn_tail_is_cut_off_on_disk(tmp_path: Path) -> None:
    path = write(tmp_path, 1, [[b"a"], [b"b"]])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert read(tmp_path) == [(7, [b"a"])]
    assert path.read_bytes() == file_of([[b"a"]], Header(7, 1, 2, 1, 0, SALT))[0]


def test_file_that_was_not_yet_durable_is_removed(tmp_path: Path) -> None:
    write(tmp_path, 1, [[b"a"]])
    torn = write(tmp_path, 2, [[b"b"]])
    torn.write_bytes(torn.read_bytes()[: HEADER_BYTES - 1])
    assert read(tmp_path) == [(7, [b"a"])]
    assert not torn.exists()


def test_damage_names_file_place_and_way_out(tmp_path: Path) -> None:
    path = write(tmp_path, 1, [[b"a"], [b"b"]])
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedLogError, match=rf"{path.name}: .*offset {HEADER_BYTES}.*move the file away"):
        read(tmp_path)


def test_what_was_replayed_belongs_to_the_epoch_of_the_incarnation_that_replayed_it(tmp_path: Path) -> None:
    for serial, epoch in enumerate((5, 6, 7, 6, 7), start=1):
        write(tmp_path, serial, [[b"%d" % serial]], epoch=epoch)
    assert [epoch for epoch, _ in read(tmp_path)] == [5, 6, 6, 6, 7]


def test_missing_file_and_damaged_header_are_damage(tmp_path: Path) -> None:
    write(tmp_path, 1, [[b"a"]])
    write(tmp_path, 3, [[b"c"]], former_bytes=100)
    with pytest.raises(DamagedLogError, match="the file before it is missing"):
        read(tmp_path)
    log_path(tmp_path, "worker-01", 1).write_bytes(b"no header")
    with pytest.raises(DamagedLogError, match="its header is damaged"):
        read(tmp_path)
