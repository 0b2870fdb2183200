"""Checks whether a unit responds to the concept that it is labelled with.

A label says where a unit fires. It may be right for another reason than its name: what
stands beside the concept, or a segmenter's mistake. Here the concept itself is changed:

- `counterfactuals`: pictures of the drawn world with and without a concept, and with
  and without another thing of the same size.
- `held_out`: photographs with and without the concept, that did not choose the label.
- `responses`: activations of the network on them.
- `separation`: how well activations tell with from without, with intervals.
- `verified`: what is known of each unit, and its files.
"""
