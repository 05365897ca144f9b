"""`machines`: is this machine still healthy? Condition monitoring from vibration and slow values.

Example:
    >>> from lineside.core.run.progress import Progress
    >>> from lineside.core.workflow import train
    >>> from lineside.machines.application import APPLICATION
    >>> data = APPLICATION.demo(Path("fleet"), 0)                               # doctest: +SKIP
    >>> train(APPLICATION, data, Path("run"), APPLICATION.config(), Progress())  # doctest: +SKIP
"""
