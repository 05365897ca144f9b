"""Judging one machine over time: session, operating states, sensor checks, prognosis."""
