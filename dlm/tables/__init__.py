"""Tables over runs: their declaration, what runs is missing, statistics, and how they are shown."""
