"""How the built-in models were trained, from random weights, on pictures of training scenes alone."""
