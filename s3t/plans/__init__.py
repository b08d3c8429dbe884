"""What is trained for a shard, what of it survives a deletion, and how plans are chosen and counted. No jax."""
