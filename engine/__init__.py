"""The exchange as a deterministic state machine: `apply(state, command)` and what it needs."""
