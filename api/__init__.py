"""The edge: HTTP, WebSocket, authentication, schedule, and the composition root that wires the packages together."""
