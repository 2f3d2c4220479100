"""regimes measures whether diffusion models memorize, generalize and diversify.

The library is pure torch, numpy and pyarrow. ``regimes.storage`` keeps artifacts,
``regimes.actors`` runs the work on Ray, and ``regimes.jobs`` holds one script per question.
"""

__version__ = "0.1.0"
