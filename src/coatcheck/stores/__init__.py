"""Where records are kept. `protocol` says what a store is; each other module is one kind of store."""
