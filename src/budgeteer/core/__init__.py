"""What everything stands on, with numpy and the standard library alone."""
