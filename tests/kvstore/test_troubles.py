"""What is in trouble, by source: one ends without ending another."""

from kvstore.troubles import Troubles


def test_each_source_ends_its_own_trouble() -> None:
    troubles = Troubles()
    assert troubles.text == ""
    assert troubles.set("checkpointer", "store: no space")
    assert troubles.set("register", "register: no space")
    assert troubles.text == "store: no space; register: no space"
    assert troubles.set("checkpointer", "")
    assert troubles.text == "register: no space"
    assert not troubles.set("checkpointer", ""), "nothing has changed"
    assert not troubles.set("register", "register: no space"), "nor by the next attempt in vain"
    assert troubles.set("register", "")
    assert troubles.text == ""


def test_the_same_reason_is_told_once() -> None:
    troubles = Troubles()
    assert troubles.set("worker-0", "log: no space")
    assert not troubles.set("worker-1", "log: no space")
    assert not troubles.set("worker-0", "")
    assert troubles.text == "log: no space"
