"""Files to batches: what lies in folders and archives becomes normalised tensors with labels.

`preprocessing.Preprocessing` says how one image becomes a tensor, and is stored beside trained weights.
`classification.ClassificationData` serves whole data sets to a trainer. Import these modules directly: the
second needs Lightning, the first does not.
"""
