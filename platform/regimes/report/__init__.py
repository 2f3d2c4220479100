"""Reports: one HTML file each that needs nothing else.

A report answers first and proves later: a few sentences, the figure that shows it, the verdict, the
other figures, the numbers, what to beware of, and the recipe. Pictures are data URIs and styles are
inline; there is no script, and the page forbids the browser to load anything.

``Page`` is what all reports have in common. A job's report is a subclass that says which template
extends the common one, and what that template shows.
"""

from regimes.report.memorization import MemorizationReport
from regimes.report.page import Page, render
from regimes.report.reproducibility import ReproducibilityReport

__all__ = ["MemorizationReport", "Page", "ReproducibilityReport", "render"]
