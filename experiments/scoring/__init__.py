"""How models are asked to forget, and scored."""
