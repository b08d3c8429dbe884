"""Plans: what is trained for a shard, what survives a deletion, how a plan is chosen and what it costs. No jax."""
