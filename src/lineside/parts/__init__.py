"""`parts`: is this part faulty, and where? Industrial quality control from images.

Example:
    >>> from lineside.core.run.progress import Progress
    >>> from lineside.core.workflow import train
    >>> from lineside.parts.application import APPLICATION
    >>> data = APPLICATION.demo(Path("demo"), 0)                                # doctest: +SKIP
    >>> train(APPLICATION, data, Path("run"), APPLICATION.config(), Progress())  # doctest: +SKIP
"""
