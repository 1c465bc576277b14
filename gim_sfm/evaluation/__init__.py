"""How good a matcher is: benchmarks with known truth, their protocols, scores, and what may be concluded."""
