"""The paper's methods: prompts with zero-initialised attention, and random-init."""
