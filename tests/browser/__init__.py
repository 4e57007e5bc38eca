"""Tests in a real browser.

This is a package so that its fixtures end with it: while Playwright runs, no other test can start an event loop.
"""
