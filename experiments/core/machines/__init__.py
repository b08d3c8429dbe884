"""How work is spread over devices, processes and lanes, and under which switches of JAX."""
