"""How a fleet of models is trained."""
