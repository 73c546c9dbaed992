"""muxsim in the words of trainers and evaluators: a module each, which needs what it adapts to, imported when used."""
