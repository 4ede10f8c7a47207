"""Base models: their shapes and families, loading, devices, precision and adapters."""
