"""MCP messages and byte streams: knows no session, pool, seed or rollout, and imports nothing from muxsim."""
