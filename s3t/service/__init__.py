"""What is done with a store: make and heal, prove, answer."""
