"""The shop in real time: paced by the wall clock, exported as OTLP, with flags of a real flagd.

``pacing`` advances a model step by step, ``encode`` converts its records to OTLP, ``export`` queues them and
sends them through ``transport``, ``flagd`` and ``flag_file`` evaluate flags from outside. Nothing here
depends on how the model works: it needs ``now_ns``, ``advance`` and ``take``. Only ``packages`` imports the
packages of the ``otlp`` extra, on first use.
"""
