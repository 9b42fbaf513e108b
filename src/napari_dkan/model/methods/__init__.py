"""Methods beside DKAN with the interface of one network; importing the package loads nothing."""
