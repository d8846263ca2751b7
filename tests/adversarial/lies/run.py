"""One run of a script, and the judgement: every lie is detected or harmless, and nobody is accused who told none.

What is certified, together with what is gone and what is open, must be explained by one order of the operations
(`support/linearizability.py`), whatever was told. At the end the lies stop: if the store still serves, a client that
knows nothing, and all others, read every key and wait for certificates; these reads belong to the history.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from crash.history import History
from lies.catalogue import CATALOGUE
from lies.client import Client
from lies.host import Host, HostStoppedError, Origin
from lies.liar import Layer, Liar, Lie
from lies.monitor import MonitorProcess
from lies.script import CLIENTS, KEYS, Cut, Do, Reconnect, Release, Restart, Script, Step, Tell, value_of
from support.frames import Frame
from support.linearizability import Fate, Kind, NotExplainedError, explain_all

from kvstore.messages import Server

_PUMPS_MAX = 50
"""Turns until nothing more is to be said; a client whose connection is useless connects again at most as often."""
_RECONNECTIONS_MAX = 4


class Verdict(Enum):
    HONEST = "no lie was told"
    HARMLESS = "harmless"
    MONITOR = "found by the monitor"
    CLIENT = "found by a client"
    HOST = "found by the host"
    HANGS = "the host hangs"
    NO_SERVICE = "no service"


class WrongAnswerError(AssertionError):
    """Something wrong was certified."""


class FalseAccusationError(AssertionError):
    """Nobody lied, and somebody was accused, or not served."""


@dataclass
class Outcome:
    verdict: Verdict
    names: set[str] = field(default_factory=set)
    """Violations of the monitor, and errors of the clients."""
    told: list[Lie] = field(default_factory=list)
    fates: dict[Fate, int] = field(default_factory=dict)
    hangs: str = ""
    """A host that hangs certifies nothing wrong; but it is a bug: for what it waits, and the script."""


MakeClient = Callable[[int, bytes, History, random.Random], Client]


class Run:
    """`directory`: for the monitor's state."""

    def __init__(self, directory: Path, script: Script, make_client: MakeClient = Client) -> None:
        self.liar = Liar(CATALOGUE)
        self.monitor = MonitorProcess(directory)
        self.host = Host(self.monitor, self.liar, script.hot_records, has_log=script.has_log)
        self.history = History(dict.fromkeys(KEYS), order=itertools.count(1))
        self.clients: list[Client] = []
        self._make_client = make_client
        self._script = script
        self._chance = random.Random(script.seed)
        self._names: set[str] = set()
        self._crashed = False
        self._host_stopped = False

    def execute(self) -> Outcome:
        """Raises WrongAnswerError or FalseAccusationError."""
        try:
            self.begin()
            for step in self._script.steps:
                self.step(step)
            return self.end()
        finally:
            self.host.crash()

    def begin(self) -> None:
        self.restart(self._script.workers)
        for _ in range(CLIENTS):
            self.add_client()
        self._crashed = False

    def end(self) -> Outcome:
        """The lies stop, and all is judged. Raises as `execute`."""
        return self._judge(self._finish())

    # --- steps ---

    def step(self, step: Step) -> None:
        self.liar.between(self.host.stored, self.host.snapshots)
        match step:
            case Do(number, asked):
                for ask in asked:
                    self._call(self.clients[number], ask.kind, ask.key, value_of(ask.value), value_of(ask.expected))
                self.pump()
            case Cut():
                self.cut(step)
            case Restart(workers):
                self.restart(workers)
            case Reconnect(number):
                self._connect(self.clients[number])
                self.pump()
            case Release():
                self._release()
                self.pump()
            case Tell(lie):
                self.liar.arm(lie)

    def _call(self, client: Client, kind: Kind, key: bytes, value: bytes | None, expected: bytes | None) -> None:
        match kind:
            case Kind.GET | Kind.DELETE:
                client.call(key, kind)
            case Kind.PUT | Kind.INSERT:
                client.call(key, kind, value=value or b"")
            case Kind.COMPARE_AND_SET:
                client.call(key, kind, value=value, expected=expected)
            case Kind.INCREMENT:
                client.call(key, kind, delta=len(value or b"") + 1)

    def cut(self, step: Cut) -> None:
        if self.host.stopped:
            return
        try:
            certificate = self.host.cut(all_to_merkle=step.all_to_merkle, crash=step.crash)
        except HostStoppedError:
            self._noticed()
        else:
            if certificate is None:
                self._all_disconnected()
            else:
                for client in self.clients:
                    self._deliver(client.origin, certificate)
        self.pump()

    def restart(self, workers: int) -> None:
        self._all_disconnected()
        try:
            self.host.start(workers)
        except HostStoppedError:
            self._noticed()
        for client in self.clients:
            self._connect(client)
        self.pump()

    def add_client(self) -> Client:
        client = self._make_client(len(self.clients), self.monitor.identity, self.history, self._chance)
        self.clients.append(client)
        self._connect(client)
        self.pump()
        return client

    def _all_disconnected(self) -> None:
        self._crashed = True
        for client in self.clients:
            client.disconnected()

    def _connect(self, client: Client) -> None:
        if not self.host.stopped and client.failure is None:
            client.connected()
            self._deliver(client.origin, self.host.greeting())

    # --- messages ---

    def pump(self) -> None:
        """Let everybody speak until nobody has anything more to say."""
        reconnections = 0
        for _ in range(_PUMPS_MAX):
            try:
                moved = self._pump_once()
            except HostStoppedError:
                self._noticed()
                return
            for client in self.clients:
                if client.useless and reconnections < _RECONNECTIONS_MAX:
                    reconnections += 1
                    self._connect(client)
                    moved = True
            if not moved:
                return

    def _pump_once(self) -> bool:
        moved = False
        for client in self.clients:
            for frame in list(client.frames()):
                moved = True
                for who, sent in self.liar.to_server(client.origin, frame):
                    if not self.host.stopped:
                        self.host.receive(who, sent)
        if not self.host.stopped:
            for origin, frame in self.host.answers():
                moved = True
                if origin == self.clients[origin.client].origin:
                    self._deliver(origin, frame)
        return moved

    def _deliver(self, origin: Origin, frame: Frame) -> None:
        for who, sent in self.liar.to_client(origin, frame):
            self.clients[who.client].receive(sent)

    def _release(self) -> None:
        try:
            for who, frame in self.liar.released(Layer.TO_SERVER):
                if not self.host.stopped:
                    self.host.receive(who, frame)
        except HostStoppedError:
            self._noticed()
        for layer in (Layer.TO_CLIENT, Layer.CERTIFICATES):
            for who, frame in self.liar.released(layer):
                self.clients[who.client].receive(frame)

    def _noticed(self) -> None:
        """The host has stopped: because of its monitor, or by itself. An honest one tells its clients why."""
        if self.host.violation is not None:
            self._names.add(self.host.violation.name)
            for client in self.clients:
                self._deliver(client.origin, Frame(Server.VIOLATION, bytes.fromhex(self.host.violation.signed)))
        elif self.host.refused:
            self._names.add(self.host.refused)
        else:
            self._host_stopped = True

    # --- the end ---

    def _finish(self) -> bool:
        """Whether the store serves a client that knows nothing, when the lies have stopped."""
        self.liar.disarm()
        self._release()
        for attempt in range(2):
            if self.host.stopped or attempt:
                self.restart(2)
            for client in self.clients:
                if client.waits:
                    self._connect(client)
            self.pump()
            self.cut(Cut())
            reader = self.add_client()
            if self._read_all(reader):
                break
        for client in self.clients:
            client.give_up()
        return all(call.operation.fate is Fate.CERTIFIED for call in reader.calls) and bool(reader.calls)

    def _read_all(self, reader: Client) -> bool:
        """Everybody who still can reads all keys; whether the reader's answers are certified."""
        for client in self.clients:
            for key in KEYS:
                client.call(key, Kind.GET)
        self.pump()
        self.cut(Cut())
        for call in reader.calls:
            call.note_fate()
        return bool(reader.calls) and all(call.operation.fate is Fate.CERTIFIED for call in reader.calls)

    def _judge(self, served: bool) -> Outcome:
        try:
            explain_all(self.history.operations)
        except NotExplainedError as error:
            raise WrongAnswerError(f"{self._script}\ntold: {', '.join(map(str, self.liar.told))}\n{error}") from error
        accusers = [client for client in self.clients if client.accuses]
        monitors = set(self._names)
        self._names |= {type(client.failure).__name__ for client in self.clients if client.failure is not None}
        fates = {fate: sum(one.fate is fate for one in self.history.operations) for fate in Fate}
        outcome = Outcome(Verdict.HARMLESS, self._names, self.liar.told, fates)
        outcome.hangs = f"{self.host.hangs}\n{self._script}" if self.host.hangs else ""
        if not self.liar.told:
            self._must_be_served(served, fates)
            outcome.verdict = Verdict.HONEST
        elif monitors:
            outcome.verdict = Verdict.MONITOR
        elif accusers:
            outcome.verdict = Verdict.CLIENT
        elif self.host.hangs:
            outcome.verdict = Verdict.HANGS
        elif self._host_stopped:
            outcome.verdict = Verdict.HOST
        elif not served:
            outcome.verdict = Verdict.NO_SERVICE
        return outcome

    def _must_be_served(self, served: bool, fates: dict[Fate, int]) -> None:
        if self._names or self._host_stopped or not served:
            raise FalseAccusationError(f"{self._script}\n{self._names or self.host.stopped or 'not served'}")
        if not self._crashed and (fates[Fate.GONE] or fates[Fate.OPEN]):
            raise FalseAccusationError(f"{self._script}\nnothing crashed, and not all is certified: {fates}")
        lost = [one for one in self.history.operations if one.answered is not None and one.fate is not Fate.CERTIFIED]
        if self._script.has_log and lost:
            raise FalseAccusationError(f"{self._script}\nanswered, logged, and lost: {lost[0]}")
