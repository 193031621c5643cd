"""The ladder of one cell: the only place where images, drivers, machines and compute tests meet."""
