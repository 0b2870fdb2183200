"""Training classifiers by the recipes of the study.

    images -> canvas -> [crop, flip, jitter, lighting, mixing] -> step -> checkpoints
     host                whole batch, on the devices              every device its share

`train_classifier.train` goes from a config to a run directory. Of many processes each
reads its share of every batch, and the first writes: `job` has the order of what they
exchange.
"""
