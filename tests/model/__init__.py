"""An executable model of the verifier: the same state machine, with multisets for sums and values for their hashes.

To be read beside docs/protocol.md and docs/verification.md:

- what there is: `keys`, `values`, `macs`, `entries`, `wire` (their bytes), `book` (which bytes stand for what);
- the state machine: `thread` with its `cache`, `epochs`, `sessions`, `queue`, `chain`, and `operations`, `requests`;
  `aggregator`; `monitor` (all threads); `check` (how a check fails);
- the comparison with `monitor/verifier`: `steps` (what happens), `observe` (what can be seen), `driver` (the verifier),
  `compare`;
- scripts to compare on: `host`, `client`, `work` (honest), `mutate`, `lies` (not), `corpus` (families of both).

`make model` plays many; the tests here play some, and show that each check that is left out is noticed.
"""
