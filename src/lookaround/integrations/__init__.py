"""Lookaround in the tools that people have: one module each, imported by the user and by nothing below.

This module imports nothing, so that each integration needs what it integrates with and no more.
"""
