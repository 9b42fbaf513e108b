"""A page about one section that anybody can read, print and pass on."""
