"""Failpoints: named moments at which a test lets a process die, or its disk fail. Without tests they do nothing.

A test names a directory in $ZETAKV_FAILPOINTS (read once, at import) before it starts a server:

DIR/plan        the one failure that is planned: `ID POINT HIT ACTION`. May be written and removed at any time
DIR/hits/POINT  exists once any process has come to that point
DIR/fired-ID    the plan was carried out. So it happens once, although processes start again

HIT counts, from 1, the times that one process comes to the point while it has the plan. ACTION is `kill` (SIGKILL of
this process), `kill-all` (of the supervisor, then of all its children), or the name of an error (`ENOSPC`, `EIO`,
`EROFS`), which is raised from that hit on for as long as the plan is there. The monitor has the same points in a build
for tests (`tests/failpoints`); in its release build there is none.
"""

import errno
import os
import signal
from pathlib import Path
from typing import Final

ENVIRONMENT_VARIABLE: Final = "ZETAKV_FAILPOINTS"
_SUPERVISOR_VARIABLE: Final = "ZETAKV_FAILPOINTS_SUPERVISOR"
_ERRORS: Final = ("ENOSPC", "EIO", "EROFS")


class Failpoints:
    """The failpoints of this process, in a directory of the test."""

    def __init__(self, directory: Path, supervisor: int) -> None:
        """`supervisor`: its process id."""
        self._directory = directory
        self._supervisor = supervisor
        self._seen: set[str] = set()
        self._plan = ""
        self._hits = 0

    def hit(self, point: str) -> None:
        """Here is this point. Raises OSError if that is planned, or does not return."""
        if point not in self._seen:
            self._seen.add(point)
            (self._directory / "hits" / point).touch()
        try:
            plan = (self._directory / "plan").read_text()
        except FileNotFoundError:
            return
        if plan != self._plan:
            self._plan, self._hits = plan, 0
        identity, planned, hit, action = plan.split()
        if planned != point:
            return
        self._hits += 1
        if action in _ERRORS and self._hits >= int(hit):
            number = getattr(errno, action)
            raise OSError(number, f"{os.strerror(number)} (failpoint {point})")
        if action not in _ERRORS and self._hits == int(hit) and self._is_first(identity):
            self._kill(all_processes=action == "kill-all")

    def _is_first(self, identity: str) -> bool:
        try:
            (self._directory / f"fired-{identity}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _kill(self, *, all_processes: bool) -> None:
        processes = [os.getpid()]
        if all_processes:
            children = Path(f"/proc/{self._supervisor}/task/{self._supervisor}/children").read_text().split()
            processes = [self._supervisor, *map(int, children), *processes]
        for process in processes:
            os.kill(process, signal.SIGKILL)


_directory = os.environ.get(ENVIRONMENT_VARIABLE)

if _directory:
    # The supervisor comes here first, and its children inherit what it sets.
    _supervisor = int(os.environ.setdefault(_SUPERVISOR_VARIABLE, str(os.getpid())))
    hit = Failpoints(Path(_directory), _supervisor).hit
else:

    def hit(point: str) -> None:
        """Nothing: no test has named a directory."""
