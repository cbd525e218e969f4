"""Answers as notebooks show them: tables, HTML and plots."""
