"""The strict judge: fleets of oracles and shadows for every method and algorithm."""
