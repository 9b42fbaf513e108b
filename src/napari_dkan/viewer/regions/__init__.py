"""Regions that come from elsewhere: files of QuPath's, masks, Labels layers."""
