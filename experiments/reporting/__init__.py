"""Pages, tables and estimates. Stands on core alone."""
