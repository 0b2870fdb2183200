"""Trains classifiers with the recipes of the study.

    images -> canvas -> [crop, flip, jitter, lighting, mixing] -> step -> checkpoints
     host                whole batch, on the devices              each device its shard

`train_classifier.train` takes a config and makes a run directory. In a multi-process
run, each process reads its shard of every batch, and the first writes; `job` defines
the order of their exchanges.
"""
