"""The write-ahead log: requests that were admitted, on disk before their receipts go out (`--durability wal`).

- `format`: the bytes of a log file, sans-IO.
- `files`: which files there are in DATA/wal, and what of them counts.
- `writer`: appends in a thread of its own, many records to one sync.
- `gate`: receipts that wait for their record.
"""
