"""From a row of logits to a token: a chain of logits processors, temperature and filters, and the draw.

What may be asked for stands in ``parameters.py``, once; the order in which it is done in ``chain.py`` (processors) and
``distribution.py`` (temperature and filters). Order and meaning are those of transformers' ``generate``.
"""
