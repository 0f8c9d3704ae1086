"""The shop on the wall clock: paced, exported as OTLP to any collector, obeying a real flagd.

``pacing`` advances a model step by step, ``encode`` turns its records into OTLP, ``export`` queues and
sends them through ``transport``, ``flagd`` and ``flag_file`` answer its flags from outside. Nothing
here knows how the model works: it is anything with ``now_ns``, ``advance`` and ``take``. The packages
this needs (the ``otlp`` extra) come in through ``packages`` alone, on first use.
"""
