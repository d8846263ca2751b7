"""The client's side of the protocol, sans I/O: bytes and events in, bytes and settled calls out.

A `Session` lives as long as the client, over any number of connections. Each connection goes through

    GREETING ─► RESUMING ─► READY              the monitor still has the session
        │           │
        └───────────┴─► HELLO ─► CATCHING_UP ─► READY      a new session; certificates up to its head are followed first

Invariants: nothing is sent before the greeting is checked; no operation is sent, and none is settled by a hello, before
the chain of certificates has reached the head that the hello names; an integrity or protocol error is final
(`failure`). What the host alone says (rejected, errors) can only make the client reconnect or give up.

It draws its random numbers from the function that it is given, and has no clock, no socket and no file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum, auto

from kvstore_client import _recovery
from kvstore_client._certificates import CERTIFICATES_MAX, Certificate, Chain, Claim, UnverifiedCertificate
from kvstore_client._crypto import SessionKeys, ephemeral_public
from kvstore_client._current import Current
from kvstore_client._errors import (
    ConnectionLostError,
    ForbiddenError,
    ForkError,
    IdentityError,
    IntegrityError,
    KVStoreError,
    OutcomeUnknownError,
    ProtocolError,
    RefusedError,
    RollbackError,
    TransportError,
    UnavailableError,
    ViolationError,
)
from kvstore_client._frames import (
    FrameType,
    Greeting,
    Rejected,
    decode_checkpoint,
    encode_certificates,
    encode_frame,
)
from kvstore_client._heads import Comparison, Settle
from kvstore_client._lane import Lane, Sent
from kvstore_client._messages import (
    AdminOp,
    FormerSession,
    Role,
    ServerHello,
    UnverifiedResumed,
    UnverifiedServerHello,
    encode_client_hello,
    encode_resume,
)
from kvstore_client._operations import GET, Operation
from kvstore_client._outcomes import Outcomes
from kvstore_client._overrides import Override, read_overrides
from kvstore_client._questions import AdminCall, AdminLine, Callback, HostQuestions
from kvstore_client._receipts import NOT_REPLAYED, EpochOutcome, Receipt
from kvstore_client._refusals import UNKNOWN_SESSION, NoAnswersError, error_from_host, rejection_from_host
from kvstore_client._violations import UnverifiedViolation

logger = logging.getLogger("kvstore_client")

_NEVER = 1 << 32
"""An epoch that does not come."""


class Phase(Enum):
    OFFLINE = auto()
    GREETING = auto()
    RESUMING = auto()
    HELLO = auto()
    CATCHING_UP = auto()
    READY = auto()


class Session:
    """`identity`: the monitor's public key, or None to talk to an unverified server. `chain`: what was remembered."""

    def __init__(
        self,
        identity: bytes | None,
        client_seed: bytes | None,
        chain: Chain | None,
        random_bytes: Callable[[int], bytes],
        certificate_timeout_seconds: float,
        accept_override: bytes | None = None,
    ) -> None:
        self.identity = identity
        self._client_seed = client_seed
        self._accept_override = accept_override
        self.chain = chain
        self._random_bytes = random_bytes
        self.outcomes = Outcomes(certificate_timeout_seconds)
        self.phase = Phase.OFFLINE
        self.failure: KVStoreError | None = None
        self.dropped: TransportError | None = None
        """Why this connection is of no more use; the shell closes it and makes another."""
        self.greeting: Greeting | None = None
        self.caught_up_count = 0
        """Grows whenever certificates of the monitor bring a new session nearer."""
        self.ready_count = 0
        """How often operations could be sent again."""
        self._output: list[bytes] = []
        self._current: Current | None = None
        self._questions = HostQuestions()
        self._comparison: Comparison | None = None
        self._checkpointed = 0
        self._asked_to = 0
        self._target = 0
        self._page: list[UnverifiedCertificate] = []
        self._known_epoch = 0
        self._hello_secret = b""
        self._client_hello = b""
        self._hello: ServerHello | None = None
        self._asked_about: FormerSession | None = None
        self._resumes: dict[int, bytes] = {}
        self._resume_rejected = False
        self._session_is_gone = False
        """The host says that the monitor does not know it, or has taken its role away. What is in flight a resume will
        settle, the rest a hello."""
        self._refusal: UnavailableError | None = None
        """Why this connection is resumed: the host refused changes."""
        self._handlers: dict[int, Callable[[bytes], None]] = {
            FrameType.RECEIPT: self._on_receipt,
            FrameType.CERTIFICATE: self._on_certificate,
            FrameType.GREETING: self._on_greeting,
            FrameType.HELLO_OK: self._on_hello_ok,
            FrameType.RESUMED: self._on_resumed,
            FrameType.REJECTED: self._on_rejected,
            FrameType.VIOLATION: self._on_violation,
            FrameType.ADMIN_ANSWER: self._on_admin_answer,
            FrameType.STATUS_ANSWER: lambda body: self._questions.answer(FrameType.STATUS_ANSWER, body),
            FrameType.KEYS_ANSWER: lambda body: self._questions.answer(FrameType.KEYS_ANSWER, body),
            FrameType.CHECKPOINT: self._on_checkpoint,
            FrameType.ERROR: self._on_error,
        }

    # What the shell does with a connection.

    def connection_made(self) -> None:
        self.phase, self.dropped = Phase.GREETING, None
        self._asked_to = self._target = 0
        self._hello = self._refusal = None
        self._page.clear()
        self._resumes.clear()
        self._output.clear()

    def connection_lost(self) -> None:
        self.phase = Phase.OFFLINE
        self._questions.fail_all(ConnectionLostError("the connection was lost before the server answered"))

    def receive(self, kind: int, body: bytes) -> None:
        """One frame from the server. Never raises: a final error is in `failure`, a useless connection in `dropped`."""
        if self.failure is not None or self.dropped is not None:
            return
        try:
            handler = self._handlers.get(kind)
            if handler is None:
                raise ProtocolError(f"the server sent a frame of unknown type {kind:#x}")
            if self.phase is Phase.GREETING and kind not in (FrameType.GREETING, FrameType.ERROR, FrameType.VIOLATION):
                raise ProtocolError("the server did not begin with a greeting")
            handler(body)
        except TransportError as error:
            self.dropped = error
        except (IntegrityError, ProtocolError, RefusedError) as error:
            self.fail(error)

    def take_output(self) -> list[bytes]:
        """Frames to send, in order."""
        output, self._output = self._output, []
        return output

    # What the shell asks for.

    def submit(self, operation: Operation) -> None:
        """Queue an operation. Sent by the next `flush`, or when there is a connection again."""
        current = self._current
        assert current is not None, "operations come after the first connection"
        if self.failure is not None:
            operation.call.fail(operation.index, self.failure)
        elif operation.code != GET and current.role < Role.WRITE:
            error = ForbiddenError("this client's key may only read")
            operation.call.fail(operation.index, error)
        else:
            current.lane_of(operation).queue.append(operation)

    def flush(self) -> None:
        """Make requests of what is queued, as far as the limits of requests in flight allow."""
        if self.phase is Phase.READY and self._current is not None and self.greeting is not None:
            for lane in self._current.lanes:
                while (frame := lane.next_frame(self.greeting.frame_bytes_max)) is not None:
                    self._output.append(frame)
            admin = self._current.admin
            if admin is not None and (frame := admin.next_frame()) is not None:
                self._output.append(frame)

    def ask_host(self, kind: FrameType, frame: bytes, callback: Callback) -> None:
        self._questions.ask(kind, callback)
        self._output.append(frame)

    def ask_admin(self, call: AdminCall) -> None:
        """Queue an admin request. Sent as operations are."""
        admin = self._current.admin if self._current else None
        if self.failure is not None:
            call.fail(self.failure)
        elif admin is None:
            call.fail(RefusedError("an unverified server has no authorized clients"))
        else:
            admin.queue.append(call)

    def compare(self, theirs: Certificate, settle: Settle) -> None:
        """Compare a head with the chain, in place of one that is still being compared. `settle` may be called at once.

        A contradiction is a failure of this session.
        """
        if self.failure is not None:
            settle(None, self.failure)
            return
        assert self.chain is not None, "there is a chain since the first hello"
        try:
            self._comparison = Comparison(theirs, self.chain, settle)
            self._ask(self._comparison.ask())
        except IntegrityError as error:
            self.fail(error)
            settle(None, error)

    def end_comparison(self) -> None:
        self._comparison = None

    @property
    def awaited_epoch(self) -> int | None:
        """While catching up: the next epoch whose certificate is missing."""
        return self.chain.epoch + len(self._page) + 1 if self.phase is Phase.CATCHING_UP and self.chain else None

    @property
    def role(self) -> Role | None:
        return self._current.role if self._current else None

    @property
    def threads(self) -> int:
        return len(self._current.lanes) if self._current else 0

    @property
    def busy(self) -> bool:
        """Whether an operation or an admin request waits for an answer."""
        return self._current is not None and self._current.busy

    def busy_lines(self) -> dict[int, Lane | AdminLine]:
        """What calls wait for, by number, over all sessions. Abandon what settles nothing for too long.

        On a connection that is ready also where an answer is due that nobody waits for any more: it may be dead.
        """
        lines = self._current.lines() if self._current is not None else {}
        ready = self.phase is Phase.READY
        return {number: line for number, line in lines.items() if line.busy or (ready and line.answer_is_due)}

    def outcome(self, epoch: int, epoch_first: int | None = None) -> EpochOutcome:
        """The outcome of what ran, in the current incarnation, in `epoch`, or in `epoch_first` to `epoch`."""
        assert self._current is not None
        if self.chain is None:
            return self.outcomes.of_unverified(epoch, self._checkpointed)
        current = self._current
        return self.outcomes.of(current.incarnation, epoch, epoch_first or epoch, self.chain, current.as_former())

    def fail(self, error: KVStoreError) -> None:
        """Final: every waiting and every later call fails with `error`."""
        if self.failure is None:
            self.failure = error
            self.phase = Phase.OFFLINE
            for line in self.busy_lines().values():
                line.abandon(error)
            self._questions.fail_all(error)
            self.outcomes.fail_all(error)
            if self._comparison is not None:
                self._comparison.fail(error)

    # Connecting.

    def _on_greeting(self, body: bytes) -> None:
        if self.phase is not Phase.GREETING:
            raise ProtocolError("the server greets twice")
        self.greeting = Greeting.decode(body)
        if self.greeting.unverified != (self.identity is None):
            if self.greeting.unverified:
                raise IdentityError(
                    "the server says that it runs without a monitor (unverified): nothing that it answers could be "
                    "checked. If that is meant, connect with unverified=True"
                )
            raise ProtocolError("the server has a monitor: connect without unverified=True, with its fingerprint")
        if self.identity is None:
            self._adopt_unverified(self.greeting)
        elif self._current is not None:
            self._send_resumes(self._current)
        else:
            self._send_hello()

    def _send_resumes(self, current: Current) -> None:
        """Every thread gets the new generation, so that a request held back anywhere can never run."""
        self.phase, self._resume_rejected = Phase.RESUMING, False
        current.turn.generation += 1
        for lane in current.lanes:
            assert lane.request_key is not None
            resume = encode_resume(
                lane.request_key, current.turn.session, current.turn.generation, lane.thread, self._random_bytes(16)
            )
            self._resumes[lane.thread] = resume
            self._output.append(encode_frame(FrameType.RESUME, resume))

    def _on_resumed(self, body: bytes) -> None:
        unverified, current = UnverifiedResumed(body), self._current
        resume = self._resumes.get(unverified.thread)
        if self.phase is not Phase.RESUMING or current is None or resume is None:
            raise ProtocolError("the server answers a resume that nobody sent")
        lane = current.lanes[unverified.thread]
        assert lane.receipt_key is not None
        last, ts = unverified.verify(lane.receipt_key, resume)
        if not lane.acknowledged <= last <= lane.sequence:
            raise ProtocolError(f"thread {lane.thread}: the monitor resumes after {last}, out of range")
        del self._resumes[lane.thread]
        current.turn.after_ts = max(current.turn.after_ts, ts)

        def receipt_of(sent: Sent) -> Receipt:
            outcome = self.outcome(ts >> 32, min(sent.epoch_min, ts >> 32))
            return Receipt(ts, outcome, lane.thread, sent.sequence)

        _recovery.after_resume(lane, last, receipt_of, self._refusal)
        self._resumes_answered()

    def _resumes_answered(self) -> None:
        if self._resumes or self._current is None:
            return
        if self._resume_rejected or self._session_is_gone:
            self._refusal = None
            self._send_hello()
            return
        assert self.chain is not None
        if self._refusal is not None:
            self._refusal = None
            self._get_ready()
            return
        unanswered = self.outcomes.former_to_ask_about(self._current.incarnation)
        if unanswered is not None:
            # The connection was lost before the hello about it was answered. Nothing has been sent in this session yet.
            self._send_hello(unanswered)
            return
        self._get_ready()
        # Certificates may have been released while there was no connection.
        self._output.append(encode_certificates(self.chain.epoch + 1, CERTIFICATES_MAX))
        again = self._current.admin.again() if self._current.admin else None
        self._ask(again)
        self._ask(self._comparison.ask() if self._comparison else None)

    def _get_ready(self) -> None:
        self.phase = Phase.READY
        self.ready_count += 1

    def _send_hello(self, former: FormerSession | None = None) -> None:
        """Ask for a new session, and about `former`: by default the current one."""
        assert self.identity is not None
        self.phase = Phase.HELLO
        if former is None and self._current is not None:
            former = self._current.as_former()
        self._asked_about = former
        self._known_epoch = self.chain.known_epoch if self.chain is not None else 0
        self._hello_secret = self._random_bytes(32)
        public = ephemeral_public(self._hello_secret)
        self._client_hello = encode_client_hello(self.identity, public, self._client_seed, former)
        self._output.append(encode_frame(FrameType.HELLO, self._client_hello))

    def _on_hello_ok(self, body: bytes) -> None:
        if self.phase is not Phase.HELLO:
            raise ProtocolError("the server answers a hello that nobody sent")
        assert self.identity is not None
        hello = UnverifiedServerHello(body).verify(self.identity, self._client_hello)
        overrides = read_overrides(hello.overrides, hello.head.instance)
        if self.chain is None:
            self.chain = Chain.since(self.identity, hello.head, overrides)
        else:
            self.chain = self._continued(self.chain, hello.head, overrides)
        self.phase, self._hello = Phase.CATCHING_UP, hello
        self._catch_up()

    def _continued(self, chain: Chain, head: Claim, overrides: tuple[Override, ...]) -> Chain:
        """The chain, over what overrides there are; or another one, if the user has accepted to lose this one's end."""
        try:
            new = chain.go_over(head, overrides, self._known_epoch)
        except (ForkError, RollbackError):
            given_up = [override.old_instance for override in chain.overrides]
            if not overrides or self._accept_override != head.instance or head.instance in given_up:
                raise
            chain, new = Chain.since(chain.identity, head, overrides), overrides[-1:]
            chain.accepted = True
            if self._comparison is not None:
                self._comparison.fail(ConnectionLostError("the store was put back by its operator: compare again"))
                self._comparison = None
        else:
            chain.claim(head, self._known_epoch)
        for override in new:
            logger.warning("%s", override.describe())
        return chain

    def _catch_up(self, seen_epoch: int = 0) -> None:
        """Ask for certificates that are missing up to the hello's head, or to one that came early."""
        assert self.chain is not None
        hello, epoch = self._hello, self.chain.epoch
        self._target = max(self._target, seen_epoch, hello.head.epoch if hello else 0)
        if self._asked_to <= epoch < self._target:
            gap = self.chain.gap_after(epoch)
            self._asked_to = min(self._target, epoch + CERTIFICATES_MAX, gap - 1 if gap else self._target)
            self._output.append(encode_certificates(epoch + 1, self._asked_to - epoch))
        if hello is not None and epoch >= hello.head.epoch:
            self._hello = None
            self._adopt(hello)

    def _adopt(self, hello: ServerHello) -> None:
        """The new session takes over from the former one, if any."""
        assert self.chain is not None
        try:
            keys = SessionKeys(self._hello_secret, hello.ephemeral, self._client_hello, hello.data)
        except ValueError as error:
            raise IdentityError("the server hello holds a useless ephemeral key", {"hello": hello.data}) from error
        former, self._session_is_gone = self._current, False
        again = self._settle_former(former, hello) if former else []
        admin_calls = former.admin.end() if former and former.admin else ()
        same_incarnation = former is not None and former.incarnation == hello.incarnation
        after_ts = former.turn.after_ts if former and same_incarnation else 0
        self._current = Current.of_hello(hello, keys, after_ts, self.chain.epoch + 1)
        for operation in again:
            self.submit(operation)
        for call in admin_calls:
            self.ask_admin(call)
        unanswered = self.outcomes.former_to_ask_about(hello.incarnation)
        if unanswered is not None:
            # Answers of a session before that one wait for a certificate, too. A hello asks about one session.
            self._send_hello(unanswered)
        else:
            self.outcomes.answers_lost = False
            self._get_ready()
            self._ask(self._comparison.ask() if self._comparison else None)

    def _ask(self, frame: bytes | None) -> None:
        if frame is not None:
            self._output.append(frame)

    def _settle_former(self, former: Current, hello: ServerHello) -> list[Operation]:
        """Settle the current session, and the one that the hello asked about: that, or one before it."""
        assert self.chain is not None
        asked = self._asked_about
        if asked is not None and asked.incarnation != hello.incarnation:
            self.outcomes.session_ended(
                asked, hello.incarnation, self.chain, hello.former, hello.former_may_be_replayed
            )
        if former.incarnation == hello.incarnation:
            again = _recovery.after_session_gone(former.lanes)
        else:
            again = self._settle_ended(former, hello)
        return _recovery.without_writes(again) if self.outcomes.answers_lost else again

    def _settle_ended(self, former: Current, hello: ServerHello) -> list[Operation]:
        """What was in flight in the session of a former incarnation, which the hello asked about."""
        assert self.chain is not None
        chain, answer, origin = self.chain, hello.former, former.as_former()
        if answer is not None and len(answer.last) != len(former.lanes):
            raise ProtocolError("server hello: the former session had another number of threads")
        certified = EpochOutcome(former.incarnation, hello.head.epoch, hello.head.epoch, 0.0)
        certified.settle()

        def receipt_of(thread: int, sequence: int) -> Receipt:
            assert answer is not None, "else nobody knows what took effect"
            if sequence <= answer.last[thread]:
                return Receipt(hello.head.epoch << 32, certified)
            epoch = answer.replay_epoch
            return Receipt(
                epoch << 32, self.outcomes.of(hello.incarnation, epoch, epoch, chain, origin), thread, sequence
            )

        # It may be the one that certified an epoch whose certificate this client never saw.
        certified_last = max([chain.last_epoch_of(former.incarnation), *chain.gaps])
        lost_from = _NEVER if hello.former_may_be_replayed else certified_last + 1
        return _recovery.after_restart(former.lanes, answer, receipt_of, lost_from)

    def _adopt_unverified(self, greeting: Greeting) -> None:
        again: list[Operation] = []
        former, self._current = self._current, Current.of_unverified(greeting.workers)
        if former is not None:
            self.outcomes.fail_all(OutcomeUnknownError("the connection to the unverified server was lost"))
            again = _recovery.after_session_gone(former.lanes)
        self._checkpointed = 0
        self._get_ready()
        for operation in again:
            self.submit(operation)

    # Answers.

    def _on_receipt(self, body: bytes) -> None:
        end = 4 + int.from_bytes(body[:4], "little")
        receipt, current = body[4:end], self._current
        if end > len(body) or len(receipt) < 14:
            raise ProtocolError("a receipt frame that is cut short")
        thread = int.from_bytes(receipt[12:14], "little")
        if current is None or thread >= len(current.lanes):
            raise ProtocolError(f"a receipt of thread {thread}, which does not exist")
        ts = current.lanes[thread].receive(receipt, body[end:], self.outcome)
        if ts > current.turn.after_ts:
            current.turn.after_ts = ts

    def _on_certificate(self, body: bytes) -> None:
        unverified = UnverifiedCertificate(body)
        if self.chain is None:
            raise ProtocolError("the server sent a certificate before a hello")
        if self._comparison is not None and self._comparison.takes(unverified):
            self._ask(self._comparison.take(unverified))
            return
        if unverified.epoch != self.chain.epoch + len(self._page) + 1:
            self.chain.compare(unverified)
            self._catch_up(unverified.epoch)
            return
        self._page.append(unverified)
        if unverified.epoch >= self._asked_to:
            self._extend(self.chain)
            self._catch_up()

    def _extend(self, chain: Chain) -> None:
        """Follow the certificates that came, whose last is the newest or the end of what was asked for."""
        page, self._page = self._page, []
        certificate = chain.extend(page)
        if self.phase is Phase.CATCHING_UP:
            self.caught_up_count += 1
        self.outcomes.follow(chain)
        if self._comparison is not None:
            self._ask(self._comparison.advance())
        current = self._current
        if current is None:
            return
        if current.incarnation == certificate.incarnation:
            current.turn.epoch_min = certificate.epoch + 1
        elif self.phase is Phase.READY:
            raise ConnectionLostError("the server has restarted")

    def _on_checkpoint(self, body: bytes) -> None:
        if self.identity is not None:
            raise ProtocolError("a server with a monitor sent a checkpoint in place of certificates")
        self._checkpointed = decode_checkpoint(body)
        self.outcomes.checkpointed(self._checkpointed)

    def _on_admin_answer(self, body: bytes) -> None:
        if self._current is None or self._current.admin is None:
            raise ProtocolError("the server sent an admin answer that nobody asked for")
        call, answer = self._current.admin.answer(body)
        changed = answer.status == 0 and call.op is not AdminOp.LIST and not call.settled
        receipt = Receipt(answer.epoch << 32, self.outcome(answer.epoch), 0, NOT_REPLAYED) if changed else None
        call.deliver(answer, receipt)

    # What only the host says.

    def _on_rejected(self, body: bytes) -> None:
        rejected, current = Rejected.decode(body), self._current
        if current is None or rejected.session != current.turn.session:
            return
        if self.phase is Phase.RESUMING:
            if rejected.sequence:
                return  # of a request behind one that was refused: the resume settles it
            if self._resumes.pop(rejected.thread, None) is not None:
                self._resume_rejected = True
                self._resumes_answered()
            return
        if not current.explains_rejection(rejected.thread, rejected.sequence):
            self._session_is_gone = rejected.reason == UNKNOWN_SESSION
            raise rejection_from_host(rejected.reason)

    def _on_violation(self, body: bytes) -> None:
        if self.identity is None:
            raise ProtocolError("an unverified server sent a violation")
        unverified = UnverifiedViolation(body)
        violation = unverified.verify(self.identity)
        current = self._current
        other_store = self.chain is not None and self.chain.instance != violation.instance
        past = self.phase is Phase.READY and current is not None and current.incarnation != violation.incarnation
        if other_store or past:
            raise ProtocolError("the server sent a violation of another store, or of the past")
        raise ViolationError(violation, {"violation": unverified.signed})

    def _on_error(self, body: bytes) -> None:
        error = error_from_host(body)
        if isinstance(error, NoAnswersError) and self._current is not None:
            for lane in self._current.lanes:
                _recovery.without_answers(lane, str(error))
        if not isinstance(error, UnavailableError):
            raise error
        self._refused(error)

    def _refused(self, error: UnavailableError) -> None:
        """The host has not passed requests on, it says, since they change something."""
        if self._refusal is not None:
            return  # the resume that is on its way settles all that was sent before
        current = self._current
        if self.phase is not Phase.READY or current is None or current.admin is None:
            raise ConnectionLostError(str(error))
        withdrawn = current.admin.refuse(error)
        self._ask(withdrawn)
        if any(lane.changes_in_flight for lane in current.lanes):
            self._refusal = error
            current.turn.gets_apart = True
            self._send_resumes(current)
        elif withdrawn is None:
            raise ConnectionLostError(str(error))
