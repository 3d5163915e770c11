"""Speed and memory, as ratios to yardsticks that run on the same machine at the same time."""
