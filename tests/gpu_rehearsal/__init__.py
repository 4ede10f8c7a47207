"""zbench on a card that is not there: its CUDA paths at full size, counted on a CPU."""
