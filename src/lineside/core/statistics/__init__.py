"""Statistics with the group (part, person, song, machine) as the independent unit.

Measures: rankings, rates, agreement, intervals over groups. Risk: operating points that guarantee a
recall, decisions, costs. Positive is what is to be detected; the application gives the words.
"""
