"""Sessions without a connection are kept for a while, and given up in the order in which they became idle."""

from kvstore.sessions import Sessions


def test_an_idle_session_is_given_up_after_its_time() -> None:
    sessions = Sessions(sessions_max=1_000, idle_seconds=10)
    sessions.found(1)
    assert sessions.give_up(now=100) == []
    sessions.lost(1, now=100)
    assert sessions.give_up(now=109) == []
    assert sessions.give_up(now=110) == [1]
    assert sessions.give_up(now=111) == []
    assert len(sessions) == 0


def test_a_resumed_session_is_kept() -> None:
    sessions = Sessions(sessions_max=1_000, idle_seconds=10)
    sessions.found(1)
    sessions.lost(1, now=0)
    sessions.found(1)
    assert sessions.give_up(now=1_000) == []


def test_the_old_connection_of_a_resumed_session_may_end_later() -> None:
    sessions = Sessions(sessions_max=1_000, idle_seconds=10)
    sessions.found(1)
    sessions.found(1)  # resumed on another connection, before the loss of the first was noticed
    sessions.lost(1, now=0)
    assert sessions.give_up(now=1_000) == []


def test_the_longest_idle_make_room_before_their_time() -> None:
    sessions = Sessions(sessions_max=64 + 3, idle_seconds=1_000)
    for session in (1, 2, 3, 4, 5):
        sessions.found(session)
    for session in (4, 1, 2):
        sessions.lost(session, now=session)
    assert sessions.give_up(now=10) == [4, 1]
    assert len(sessions) == 3
