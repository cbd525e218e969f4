"""Speed, as ratios within one run. See RESULTS.md for figures and how to repeat them."""
