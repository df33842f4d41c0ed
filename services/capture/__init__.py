"""The agent: sees packets on a node's pod interfaces and publishes flow deltas."""
