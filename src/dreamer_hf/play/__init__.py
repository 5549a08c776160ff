"""Playing a world: sessions, action sources, devices, a window, recorders. Nothing is imported before it is needed."""
