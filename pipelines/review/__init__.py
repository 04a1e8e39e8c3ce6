"""REVIEW: people look, choose, trim, correct and compare; what they said is kept in a database, and nothing twice.

forms.py       what goes over the wire: items, decisions, captions, votes, results
tables.py      the database's tables; migrations/ makes them; database.py opens it: SQLite, or PostgreSQL by URL
queue.py       leases, decisions, undo, captions; queue_views.py what of them is shown; filling.py what is asked
outcome.py     what several people's decisions come to, and how far they agree
compare.py     two models' samples judged blind; winrate.py net win rate and its interval
said.py        all that was said of a queue, for whoever publishes it or learns from it
words.py       captions in fields, and who wrote which word
"""
