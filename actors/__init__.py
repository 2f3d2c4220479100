"""The Ray side: thin shells that put the work of ``regimes.storage`` on many processes.

Every unit of work writes its own file, whole, under a name fixed by its recipe. So a worker may die
at any moment: the unit is done again elsewhere, and gives the same bytes.

Ray is imported inside functions: its settings are read at import time, and a run that finds
everything complete does not need it at all.
"""
