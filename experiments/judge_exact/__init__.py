"""The judge of exact unlearning."""
