"""The write-ahead log of a server, as these tests look at it and change it on purpose."""

import shutil
from pathlib import Path

from kvstore.wal.files import log_path, segments, worker_stream
from kvstore.wal.format import encode_group


class LogFiles:
    """The requests in DATA/wal of a server with one worker, which does not run."""

    def __init__(self, data: Path) -> None:
        self.directory = data / "wal"

    def records(self) -> list[bytes]:
        return [record for segment in segments(self.directory, worker_stream(0)) for record in segment.records()]

    def rewrite(self, records: list[bytes]) -> None:
        """Let the log hold these, all in its first file, with right checksums."""
        first, *others = [file for segment in segments(self.directory, worker_stream(0)) for file in segment.files]
        data = first.header.encode()
        for record in records:
            data += encode_group(first.header.salt, len(data), [record])
        first.path.write_bytes(data)
        for file in others:
            file.path.unlink()
        assert log_path(self.directory, worker_stream(0), first.header.serial) == first.path

    def copy_to(self, path: Path) -> None:
        shutil.copytree(self.directory, path)

    def put_back(self, path: Path) -> None:
        shutil.rmtree(self.directory)
        shutil.copytree(path, self.directory)
