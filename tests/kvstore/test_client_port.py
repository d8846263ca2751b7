"""The bounds of a client's connection, against a transport that only records."""

import asyncio
import struct

import pytest

from kvstore import limits
from kvstore.client_port import ClientPort, Connection, error_frame, greeting_frame
from kvstore.framing import pack_frame
from kvstore.messages import ErrorCode

QUEUED_BYTES_MAX = 256 * limits.MIB
GREETING = greeting_frame(flags=0, worker=1, workers=2, key_bytes_max=3, value_bytes_max=4)


class RecordingTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.unsent_bytes = 0
        self.reading = True
        self.ended = ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


class Questions:
    """A handler that counts every frame as one to be answered."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, bytes]] = []
        self.lost: list[int] = []

    def client_frame(self, connection: Connection, kind: int, body: bytes) -> None:
        self.frames.append((kind, body))
        connection.expect_answer(len(body))

    def client_lost(self, connection: Connection) -> None:
        self.lost.append(connection.number)


class Client:
    def __init__(self, port: ClientPort) -> None:
        self.connection = port.protocol()
        self.transport = RecordingTransport()
        self.connection.connection_made(self.transport)

    def sends(self, *bodies: bytes) -> None:
        self.connection.data_received(b"".join(pack_frame(2, body) for body in bodies))


@pytest.fixture
def questions() -> Questions:
    return Questions()


@pytest.fixture
def port(questions: Questions) -> ClientPort:
    return ClientPort(questions, GREETING, QUEUED_BYTES_MAX)


def test_the_server_speaks_first(port: ClientPort) -> None:
    (greeting,) = Client(port).transport.written
    assert greeting == struct.pack("<IBHHHHIII", 21, 0x80, 1, 0, 1, 2, 3, 4, limits.FRAME_BYTES_MAX)


def test_too_many_unanswered_frames_stop_the_reading_until_half_are_answered(port: ClientPort) -> None:
    client, other = Client(port), Client(port)
    client.sends(*[b""] * limits.PENDING_FRAMES_MAX)
    assert client.transport.reading
    client.sends(b"")
    assert not client.transport.reading
    for _ in range(limits.PENDING_FRAMES_MAX // 2):
        client.connection.answer(b"\1\0\0\0\x82")
        assert not client.transport.reading
    client.connection.answer(b"\1\0\0\0\x82")
    assert client.transport.reading
    assert other.transport.reading


def test_too_many_unanswered_bytes_stop_the_reading(port: ClientPort) -> None:
    client = Client(port)
    client.sends(bytes(16 * limits.MIB), bytes(16 * limits.MIB))
    assert client.transport.reading
    client.sends(b"x")
    assert not client.transport.reading


def test_too_many_bytes_of_all_stop_those_who_send_more(port: ClientPort) -> None:
    clients = [Client(port) for _ in range(17)]
    for client in clients:
        client.sends(bytes(16 * limits.MIB))
    assert port.held
    assert not clients[-1].transport.reading
    for client in clients[:10]:
        client.connection.answer(b"\1\0\0\0\x82")
    assert not port.held
    assert clients[-1].transport.reading


def test_a_held_port_reads_from_no_one_until_it_is_released(port: ClientPort) -> None:
    client = Client(port)
    port.hold(True)
    client.sends(b"")
    assert not client.transport.reading
    port.hold(False)
    assert client.transport.reading


def test_a_client_that_lets_answers_pile_up_is_dropped(port: ClientPort) -> None:
    client, other = Client(port), Client(port)
    client.transport.unsent_bytes = limits.WRITE_BUFFER_BYTES_MAX + 1
    port.broadcast(b"\1\0\0\0\x85", greeted_only=False)
    assert client.transport.ended == "aborted"
    assert other.transport.ended == ""


@pytest.mark.parametrize("code", [ErrorCode.MALFORMED, ErrorCode.UNKNOWN_TYPE, ErrorCode.TOO_LONG])
def test_after_an_error_of_framing_nothing_more_is_read_or_sent(
    port: ClientPort, questions: Questions, code: ErrorCode
) -> None:
    client = Client(port)
    client.connection.send(error_frame(code, "why"))
    assert client.transport.ended == "closed"
    client.sends(b"more")
    client.connection.send(b"\1\0\0\0\x85")
    assert questions.frames == []
    assert len(client.transport.written) == 2


def test_answers_that_are_due_together_are_one_write(port: ClientPort) -> None:
    client = Client(port)
    client.sends(b"a", b"b", b"c")
    port.answer(1, b"\1\0\0\0\x82", b"\1\0\0\0\x83")
    assert client.transport.written[1:] == [b"\1\0\0\0\x82\1\0\0\0\x83"]
    last = error_frame(ErrorCode.NO_ANSWER_NOW, "why")
    port.answer(1, last, b"\1\0\0\0\x82")
    assert client.transport.written[2:] == [last]
    assert client.transport.ended == "closed"


def test_a_frame_may_be_answered_by_nothing(port: ClientPort) -> None:
    client = Client(port)
    client.sends(*[b"x"] * (limits.PENDING_FRAMES_MAX + 1))
    assert not client.transport.reading
    for _ in range(limits.PENDING_FRAMES_MAX):
        port.answer(client.connection.number, b"")
    assert client.transport.reading
    assert client.transport.written == [GREETING]


def test_a_client_that_sends_no_more_gets_its_answers_first(port: ClientPort) -> None:
    client, idle = Client(port), Client(port)
    client.sends(b"a", b"b")
    assert client.connection.eof_received()
    client.connection.answer(b"\1\0\0\0\x82")
    assert client.transport.ended == ""
    client.connection.answer(b"\1\0\0\0\x82")
    assert client.transport.ended == "closed"
    assert not idle.connection.eof_received()


def test_long_frames_are_read_only_on_a_connection_with_a_session(questions: Questions) -> None:
    port = ClientPort(questions, GREETING, QUEUED_BYTES_MAX, ungreeted_frame_bytes_max=10)
    greeted, stranger = Client(port), Client(port)
    greeted.sends(b"short")
    greeted.connection.greet()
    greeted.sends(b"ten or more bytes")
    stranger.sends(b"ten or more bytes")
    assert questions.frames == [(2, b"short"), (2, b"ten or more bytes")]
    assert (greeted.transport.ended, stranger.transport.ended) == ("", "closed")


async def test_quiet_is_reached_when_all_are_answered_gone_or_not(port: ClientPort, questions: Questions) -> None:
    first, second = Client(port), Client(port)
    first.sends(b"a")
    second.sends(b"b", b"c")
    waiting = asyncio.create_task(port.quiet())
    await asyncio.sleep(0)
    second.connection.connection_lost(None)
    assert questions.lost == [2]
    assert port.find(2) is None
    for number in (1, 2, 2):
        await asyncio.sleep(0)
        assert not waiting.done()
        port.answer(number, b"\1\0\0\0\x82")
    await asyncio.wait_for(waiting, 1)
    assert port.connections == 1


def test_work_of_clients_that_leave_and_come_back_stops_those_who_send_more(port: ClientPort) -> None:
    body = b"x" * limits.PENDING_BYTES_MAX
    for _ in range(QUEUED_BYTES_MAX // limits.PENDING_BYTES_MAX + 1):
        client = Client(port)
        client.sends(body[: limits.FRAME_BYTES_MAX - 1])
        client.sends(body[limits.FRAME_BYTES_MAX - 1 :])
        client.connection.connection_lost(None)
    client = Client(port)
    client.sends(b"one more")
    assert not client.transport.reading
