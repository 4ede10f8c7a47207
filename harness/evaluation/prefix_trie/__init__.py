"""Log-likelihoods with every shared prefix of the requests computed once."""
