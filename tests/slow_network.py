"""A network that takes its time, so that a test can kill its training."""

from __future__ import annotations

import time

from floodem.network.conv_stack import ConvStack


class SlowStack(ConvStack):
    def __init__(self, *, wait=0.0, **arguments):
        super().__init__(**arguments)
        self.wait = wait

    def forward(self, inputs_bczyx):
        time.sleep(self.wait)
        return super().forward(inputs_bczyx)
