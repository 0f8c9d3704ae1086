"""A message broker with topics, partitions, offsets, and consumer groups with their lag."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from simpy import AnyOf, Environment, Event, Timeout

from pytest_otel_diag.shop.kernel.resources.counters import Counters
from pytest_otel_diag.shop.kernel.resources.hosts import Network
from pytest_otel_diag.shop.kernel.resources.noise import Noise
from pytest_otel_diag.shop.kernel.resources.propagation import SpanContext


class Message(NamedTuple):
    """A record of a topic; ``producer`` is the span that published it."""

    topic: str
    partition: int
    offset: int
    value: Any
    size: int
    produced_s: float
    producer: SpanContext


@dataclass(eq=False)
class Topic:
    """A topic: per partition the messages that a group has yet to consume, and the offset of the first."""

    name: str
    logs: list[list[Message]]
    begins: list[int]
    arrived: Event
    groups: dict[str, ConsumerGroup] = field(default_factory=dict)

    def end(self, partition: int) -> int:
        """Return the offset that the next message will get."""
        return self.begins[partition] + len(self.logs[partition])

    def trim(self, partition: int) -> None:
        """Drop the messages that every group has committed; offsets keep counting."""
        if not self.groups:
            return
        committed = min(group.committed[partition] for group in self.groups.values())
        obsolete = committed - self.begins[partition]
        if obsolete > 0:
            del self.logs[partition][:obsolete]
            self.begins[partition] = committed


@dataclass(eq=False)
class ConsumerGroup:
    """A consumer group: committed offsets by partition and the members that share them."""

    name: str
    topic: Topic
    committed: list[int]
    position: list[int]
    members: list[object] = field(default_factory=list)
    consumed: int = 0

    def lag(self, partition: int) -> int:
        """Return the number of messages of the partition that are not committed."""
        return self.topic.end(partition) - self.committed[partition]

    @property
    def total_lag(self) -> int:
        """Lag over all partitions."""
        return sum(self.lag(partition) for partition in range(len(self.committed)))

    def join(self, member: object) -> None:
        """Add a member: partitions are reassigned and read from the committed offsets."""
        self.members.append(member)
        self.position = list(self.committed)

    def leave(self, member: object) -> None:
        """Remove a member: its partitions go to the others."""
        if member in self.members:
            self.members.remove(member)
            self.position = list(self.committed)

    def assigned(self, member: object) -> Iterator[int]:
        """Yield the partitions that the member reads."""
        if member not in self.members:
            return
        turn = self.members.index(member)
        yield from range(turn, len(self.committed), len(self.members))

    def fetch(self, member: object, max_records: int) -> list[Message]:
        """Return the next messages for the member and move its position."""
        batch: list[Message] = []
        for partition in self.assigned(member):
            start = self.position[partition] - self.topic.begins[partition]
            found = self.topic.logs[partition][start : start + max_records - len(batch)]
            self.position[partition] += len(found)
            batch.extend(found)
            if len(batch) >= max_records:
                break
        return batch

    def commit(self, batch: list[Message]) -> None:
        """Commit a processed batch."""
        for message in batch:
            before = self.committed[message.partition]
            self.committed[message.partition] = max(before, message.offset + 1)
            self.consumed += self.committed[message.partition] - before
        for partition in {message.partition for message in batch}:
            self.topic.trim(partition)


class Broker:
    """All topics of a simulation; the first use of a topic creates it."""

    def __init__(self, env: Environment, network: Network, counters: Counters) -> None:
        self._env = env
        self._network = network
        self._counters = counters
        self.topics: dict[str, Topic] = {}
        self.append_s = 0.0008
        self.noise: Noise | None = None

    def topic(self, name: str, partitions: int = 1) -> Topic:
        """Return the topic; a new one gets *partitions* partitions."""
        found = self.topics.get(name)
        if found is None:
            logs: list[list[Message]] = [[] for _ in range(partitions)]
            found = self.topics[name] = Topic(name, logs, [0] * partitions, Event(self._env))
        return found

    def group(self, topic: str, name: str) -> ConsumerGroup:
        """Return the consumer group of the topic; a new one starts with the next message."""
        held = self.topic(topic)
        group = held.groups.get(name)
        if group is None:
            ends = [held.end(partition) for partition in range(len(held.logs))]
            group = held.groups[name] = ConsumerGroup(name, held, list(ends), list(ends))
        return group

    def publish(
        self, topic: str, value: Any, *, size: int, key: int, producer: SpanContext
    ) -> Generator[Event, Any, Message]:
        """Append a message after the network delay; returns it when the acknowledgement arrives."""
        env, network = self._env, self._network
        append_s = self.append_s if self.noise is None else self.append_s * self.noise.draw()
        yield Timeout(env, network.delay_s() + append_s)
        held = self.topic(topic)
        partition = key % len(held.logs)
        message = Message(
            topic=topic,
            partition=partition,
            offset=held.end(partition),
            value=value,
            size=size,
            produced_s=float(env.now),
            producer=producer,
        )
        if held.groups:
            held.logs[partition].append(message)
        else:
            held.begins[partition] += 1  # no group will read it: new groups start with the next message
        self._counters.messages_produced += 1
        arrived, held.arrived = held.arrived, Event(env)
        arrived.succeed()
        yield Timeout(env, network.delay_s())
        return message

    def await_messages(self, group: ConsumerGroup, wait_s: float) -> Event:
        """Return an event for the next message of the group's topic or the end of *wait_s*."""
        return AnyOf(self._env, (group.topic.arrived, Timeout(self._env, wait_s)))
