"""Jobs: one readable script per question. ``regimes`` on the command line lists and runs them."""
