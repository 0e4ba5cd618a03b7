"""Training: the chains that a sweep measures, trained with optax, thousands at once."""
