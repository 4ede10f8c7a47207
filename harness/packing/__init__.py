"""Rows of real tokens: how an optimizer batch goes through a model without padding."""
