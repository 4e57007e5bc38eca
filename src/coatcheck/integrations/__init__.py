"""Adapters to web frameworks, one module each. No logic of sessions lives here."""
