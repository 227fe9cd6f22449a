"""The channel between the actor of a Tune trial and its resident Ray Train workers."""

from __future__ import annotations

import asyncio
from typing import Any

import ray

from kdsearch.engine.messages import Command, Reply


@ray.remote(num_cpus=0)
class CommandChannel:
    """Commands down to every rank, replies up. One per worker group, and gone with it.

    Commands are numbered; each rank asks for the next one it has not seen, so all ranks run the same sequence.
    Whoever waits here sets the limit: a method answers when there is something to answer.
    """

    def __init__(self) -> None:
        self._commands: list[Command] = []
        self._ranks: dict[int, tuple[Any, str]] = {}
        self._ready: set[int] = set()
        self._changed = asyncio.Condition()
        self._replies: asyncio.Queue[Reply] = asyncio.Queue()

    async def join(self, rank: int, actor: Any, node: str) -> None:
        """A rank has a process on `node`; `actor` is the handle by which it can be killed."""
        async with self._changed:
            self._ranks[rank] = actor, node
            self._changed.notify_all()

    async def joined(self, count: int) -> list[tuple[Any, str]]:
        """The actors of all ranks and their nodes, as soon as `count` are up."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._ranks) >= count)
            return [self._ranks[rank] for rank in sorted(self._ranks)]

    async def ready(self, rank: int) -> None:
        """A rank takes commands now, or has replied why it cannot."""
        async with self._changed:
            self._ready.add(rank)
            self._changed.notify_all()

    async def all_ready(self, count: int) -> None:
        """Returns as soon as `count` ranks take commands."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._ready) >= count)

    async def send(self, command: Command) -> None:
        async with self._changed:
            self._commands.append(command)
            self._changed.notify_all()

    async def receive(self, number: int) -> Command:
        """Command `number`, as soon as there is one."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._commands) > number)
            return self._commands[number]

    async def reply(self, reply: Reply) -> None:
        await self._replies.put(reply)

    async def next_reply(self) -> Reply:
        return await self._replies.get()
