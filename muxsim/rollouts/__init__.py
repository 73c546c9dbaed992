"""Episodes: a policy plays environments, and what happened is written down."""
