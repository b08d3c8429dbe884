"""A store at work: made, healed, verified, replayed and served."""
