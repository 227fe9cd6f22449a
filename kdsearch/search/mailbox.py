"""How a Tune trial's actor talks to its resident Ray Train workers."""

from __future__ import annotations

import asyncio
from typing import Any

import ray


@ray.remote(num_cpus=0)
class Mailbox:
    """Commands down to every rank, replies up from rank 0. One per worker group, and gone with it.

    Commands are numbered; each rank asks for the next one it has not seen, so all ranks run the same sequence.
    """

    def __init__(self) -> None:
        self._commands: list[dict[str, Any]] = []
        self._arrived = asyncio.Condition()
        self._replies: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def send(self, command: dict[str, Any]) -> None:
        async with self._arrived:
            self._commands.append(command)
            self._arrived.notify_all()

    async def receive(self, number: int) -> dict[str, Any]:
        """Command `number`, as soon as there is one."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self._commands) > number)
            return self._commands[number]

    async def reply(self, reply: dict[str, Any]) -> None:
        await self._replies.put(reply)

    async def next_reply(self) -> dict[str, Any]:
        return await self._replies.get()
