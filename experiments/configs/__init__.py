"""Configs as documents: each `get_config(arg)` says what it costs and what to expect."""
