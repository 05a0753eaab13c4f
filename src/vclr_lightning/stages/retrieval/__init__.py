"""``stage=retrieval``: nearest training videos of each test video."""
