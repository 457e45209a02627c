"""Image models set against each other: same prompts, same noise, and who wins by whose word."""
