"""FINE-TUNING SET: what people choose from, and what becomes of what they chose (Movie Gen 3.3).

subject.py      how much of the picture the main subject takes
balance.py      seeds that people picked -> the same number of clips for each concept
trim.py         in and out points in frames -> spans of the source, rows of the set
suitability.py  decisions -> a score that asks first about what it is least sure of
"""
