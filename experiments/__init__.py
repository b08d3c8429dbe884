"""Models, data, devices, files, flags and reports: the only room that touches the world."""
