"""What runs in an app's Python, or beside it: no import of the kit."""
