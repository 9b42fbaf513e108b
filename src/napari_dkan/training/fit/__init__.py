"""Fitting one network or ensemble: losses, Lightning module, callback and run folder."""
