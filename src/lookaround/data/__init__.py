"""Files to batches: what lies in folders and archives becomes normalised tensors with labels.

`preprocessing.Preprocessing` says how one image becomes a tensor, and is stored beside trained weights.
`classification.ClassificationData` serves labelled images to a trainer, `detection.DetectionData` images with
boxes. Import these modules directly: the data modules need Lightning, `preprocessing` does not.
"""
