"""REVIEW: people look, choose, trim, correct and compare; what they said is kept in a database, and nothing twice.

forms.py       what goes over the wire: items, decisions, captions, votes, results
"""
