"""A model, a loss and its metrics: one LightningModule each, in a file of its own.

`tasks.classification.ClassificationTask` trains a named network on labelled pictures;
`tasks.optimization` holds the optimizer, the learning-rate schedule and the averaging of weights it uses.
This module imports nothing, so that naming the room does not load Lightning.
"""
