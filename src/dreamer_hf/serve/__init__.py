"""A server for worlds: players in browsers (WebSocket) and policies (REST)."""
