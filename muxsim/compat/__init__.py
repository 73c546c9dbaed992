"""What scripts of others call, in their names and with their results, over muxsim. A package each."""
