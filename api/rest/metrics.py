"""Prometheus metrics: how requests fare, and where the exchange stands.   [W-7]"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from api.node import Node
from engine import insurance
from engine.state import State

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """Counts requests by route and status; the rest is read off the node when somebody asks."""

    def __init__(self, node: Node) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "satchel_http_requests", "Requests answered", ["method", "path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "satchel_http_seconds",
            "Time to answer, durability included",
            ["method", "path"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._children: dict[tuple[str, str, int], tuple[Any, Any]] = {}
        self._registry.register(_Standing(node))

    def observe(self, method: str, path: str, status: int, seconds: float) -> None:
        """One request of the route `path` was answered."""
        key = (method, path, status)
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = (
                self._requests.labels(method, path, str(status)),
                self._seconds.labels(method, path),
            )
        children[0].inc()
        children[1].observe(seconds)

    def text(self) -> str:
        return generate_latest(self._registry).decode()


class _Standing:
    """Gauges of the node, read at the moment of the scrape."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[GaugeMetricFamily]:
        node = self._node
        state = node.state
        for name, text, value in (
            ("satchel_ready", "1 while the exchange takes commands", int(node.is_ready())),
            ("satchel_command_sequence", "Commands applied", state.sequence),
            ("satchel_durable_height", "Height of the newest durable block", node.sequencer.durable_height),
            ("satchel_exchange_time_seconds", "Time of the newest applied command", state.at_us / 1e6),
            ("satchel_open_orders", "Orders resting in the books", len(state.orders)),
            ("satchel_users", "Users", len(state.users)),
            ("satchel_subaccounts", "Subaccounts", len(state.subaccounts)),
            ("satchel_remembered_requests", "Signatures remembered against replay", len(state.requests)),
            ("satchel_epochs", "Rows of the epoch log", len(node.epochs.log)),
            ("satchel_stopped_assets", "Assets whose withdrawals are stopped", len(state.stopped_withdrawals)),
            ("satchel_liquidations", "Accounts in liquidation", len(state.liquidations)),
            ("satchel_insurance_fund_atoms", "USDC of the insurance fund, in atoms", insurance.balance(state)),
            ("satchel_backstop_usd", "Notional that backstop providers still take, in 1e-8 USD", _backstop_usd(state)),
            ("satchel_holes_atoms", "What lenders of all pools still lack, in USDC atoms", sum(state.holes.values())),
        ):
            yield GaugeMetricFamily(name, text, value=value)


def _backstop_usd(state: State) -> int:
    return sum(state.subaccounts[number].backstop_usd for number in state.backstops)
