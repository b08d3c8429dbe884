"""Sources of the notebooks in docs/notebooks, as jupytext reads them; `make notebooks` makes these from those."""
