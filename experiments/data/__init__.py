"""Examples with stable ids: where they come from, how they are split, who is to be forgotten."""
