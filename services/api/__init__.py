"""Serves the totals: REST, WebSocket, metrics and a page."""
