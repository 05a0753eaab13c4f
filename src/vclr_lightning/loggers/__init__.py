"""Where metrics go: loggers that can be cut back to a step when a run continues."""
