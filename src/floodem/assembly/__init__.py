"""Volumes of any size: blocks are flooded apart and joined to one segmentation in one id space.

::

    plan blocks -> flood -> compare neighbours -> join and number -> write -> pyramid
                  (tasks)       (tasks)            (one process)    (tasks)   (tasks)

Every stage leaves what it made and its receipts beside the destination, in
``DST.floodem``, so that a run that was stopped anywhere goes on there.
"""
