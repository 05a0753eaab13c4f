"""What one run does: functions of built objects, which a configuration names by ``_target_``."""
