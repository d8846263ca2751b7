"""The epoch machine: two phases, one cut at a time, nothing acknowledged before it is durable."""

import pytest

from kvstore.epochs import Acknowledge, Cut, Epochs, Finish, OutOfTurnError, Phase, Release, Store


def epochs(*, verified: bool = True, workers: int = 2) -> Epochs:
    return Epochs(open_epoch=5, workers=workers, verified=verified, certificate=b"certificate 4")


def test_a_verified_epoch_passes_through_both_phases() -> None:
    machine = epochs()
    assert machine.cut() == [Cut(5, all_to_merkle=False)]
    assert machine.handed_over(0, 5) == []
    assert machine.handed_over(1, 5) == []
    assert machine.sealed(5, b"sealed 5") == [Store(5, b"sealed 5", b"certificate 4")]
    assert machine.stored(5) == [Acknowledge(5)]
    assert machine.certified(5, b"certificate 5") == [Finish(5, b"certificate 5")]
    assert (machine.open_epoch, machine.certified_epoch, machine.certificate) == (6, 5, b"certificate 5")


def test_the_seal_may_come_before_the_handovers() -> None:
    machine = epochs()
    machine.cut()
    assert machine.sealed(5, b"sealed 5") == []
    assert machine.handed_over(1, 5) == []
    assert machine.handed_over(0, 5) == [Store(5, b"sealed 5", b"certificate 4")]


def test_an_unverified_epoch_is_over_when_it_is_durable() -> None:
    machine = epochs(verified=False, workers=1)
    machine.cut(all_to_merkle=True)
    assert machine.handed_over(0, 5) == [Store(5, b"", b"certificate 4")]
    assert machine.stored(5) == [Finish(5, b"")]
    assert machine.open_epoch == 6


def test_an_idle_service_cuts_nothing() -> None:
    machine = epochs()
    assert not machine.cut_is_due
    assert not machine.changed_since_start
    machine.active(5)
    assert machine.cut_is_due
    assert machine.changed_since_start


def test_only_one_cut_is_on_its_way_and_what_came_meanwhile_is_cut_next() -> None:
    machine = epochs(verified=False, workers=1)
    machine.active(5)
    machine.cut()
    machine.active(5)  # a report that crossed the cut: this cut covers it
    assert not machine.cut_is_due
    with pytest.raises(OutOfTurnError, match="a cut while epoch 5 is cutting"):
        machine.cut()
    machine.handed_over(0, 5)
    machine.active(6)
    assert not machine.cut_is_due
    machine.stored(5)
    assert machine.cut_is_due


def test_a_crossed_report_alone_causes_no_cut() -> None:
    machine = epochs(verified=False, workers=1)
    machine.cut()
    machine.active(5)
    machine.handed_over(0, 5)
    machine.stored(5)
    assert not machine.cut_is_due


def test_rows_are_applied_whenever_the_store_gets_to_it() -> None:
    machine = epochs(verified=False, workers=1)
    for epoch in (5, 6, 7):
        machine.cut()
        machine.handed_over(0, epoch)
        assert machine.stored(epoch) == [Finish(epoch, b"")]
    assert (machine.durable_epoch, machine.applied_epoch) == (7, 4)
    assert machine.applied(5) == [Release(5)]
    assert machine.applied(7) == [Release(7)]
    assert machine.applied_epoch == 7
    with pytest.raises(OutOfTurnError, match="epoch 7 is applied"):
        machine.applied(7)
    with pytest.raises(OutOfTurnError, match="epoch 8 is applied, after epoch 7, while 7 is durable"):
        machine.applied(8)


def test_a_durable_epoch_may_be_applied_before_its_certificate() -> None:
    machine = epochs(workers=1)
    machine.cut()
    machine.sealed(5, b"sealed 5")
    machine.handed_over(0, 5)
    machine.stored(5)
    assert machine.applied(5) == [Release(5)]
    assert machine.certified(5, b"certificate 5") == [Finish(5, b"certificate 5")]


def test_reports_out_of_turn_are_refused() -> None:
    machine = epochs()
    with pytest.raises(OutOfTurnError, match="sealed state of epoch 5, while epoch 5 is open"):
        machine.sealed(5, b"sealed 5")
    machine.cut()
    with pytest.raises(OutOfTurnError, match="handover by worker 1 of epoch 4"):
        machine.handed_over(1, 4)
    with pytest.raises(OutOfTurnError, match="checkpoint"):
        machine.stored(5)
    machine.sealed(5, b"sealed 5")
    machine.handed_over(0, 5)
    machine.handed_over(1, 5)
    with pytest.raises(OutOfTurnError, match="certificate"):
        machine.certified(5, b"a certificate before the checkpoint is durable")
    assert machine.phase is Phase.STORING
