"""One client process: several connections, several lines of calls on each, until its standard input ends.

What it called and was told is then written to a file, with the moments by the clock that all processes share.
"""

import argparse
import asyncio
import contextlib
import itertools
import random
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from crash.history import History
from crash.load import KEYS, Client
from histories.recorded import write
from kvstore_client import connect
from support.linearizability import Operation

LINES = 2
"""Of calls at the same time, on each connection."""


async def serve(arguments: argparse.Namespace) -> Iterable[Operation]:
    """Run the clients, and return what they did."""
    chance = random.Random(arguments.seed)
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, over.set)
    histories = [History(dict.fromkeys(KEYS), order=iter(time.monotonic_ns, None)) for _ in range(arguments.clients)]
    async with contextlib.AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(connect(arguments.server, monitor=arguments.monitor, key=arguments.key))
            for _ in histories
        ]
        print("ready", flush=True)
        async with asyncio.TaskGroup() as clients:
            for kv, history in zip(connections, histories, strict=True):
                for _ in range(LINES):
                    clients.create_task(Client(kv, history, random.Random(chance.randbytes(8))).run(over))
    for number, history in enumerate(histories):
        for operation in history.operations:
            operation.client = arguments.first + number
    return itertools.chain.from_iterable(history.operations for history in histories)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("server", "monitor", "key"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--first", type=int, required=True, help="number of its first client")
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    write(arguments.out, asyncio.run(serve(arguments)))


if __name__ == "__main__":
    main()
