"""Measures the same small application on Coatcheck and on its peers, over HTTP. See bench/README.md."""
