"""Reading and writing the sessions of other systems. Each module here speaks one of them."""
