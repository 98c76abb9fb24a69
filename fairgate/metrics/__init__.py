"""From the item table to numbers: statistics, bootstrap, estimates, comparisons."""
