"""How fast, and at what price in memory: ratios against yardsticks in the same run on the same machine."""
