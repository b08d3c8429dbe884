"""What Flower runs: a Strategy on the server, a ClientApp on each client, a Grid within one process.

All files here import Flower; no other file does.
"""
