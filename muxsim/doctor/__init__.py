"""What this machine has of all that muxsim can use, what will not work without the rest, and what to do about it."""
