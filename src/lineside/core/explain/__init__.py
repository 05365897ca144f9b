"""Explanations of a network: attribution, feature visualisation, information plane, attacks.

Inputs have shape (batch, channel, time), (batch, channel, height, width) or, for recurrent
networks, (batch, time, feature). Functions take a network, such inputs and the index of the
output that is explained, and return maps on the input's own device. The network is explained in
evaluation mode, so items of a batch do not influence each other; its hooks, modes and gradients
and the global random state are left unchanged.

Outputs may have shape (batch,) - then `target` is not used - or (batch, score).
"""
