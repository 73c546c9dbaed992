"""What decides an agent's next message."""
