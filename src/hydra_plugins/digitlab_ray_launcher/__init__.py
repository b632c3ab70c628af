"""digitlab's launcher of the cells of a sweep on a Ray cluster."""
