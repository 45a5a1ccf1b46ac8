"""The atomic steps of a read: each takes the state's lock once and waits for nothing.

A caller makes a `request`, and `approach` tells it what to do. `looks` has the look-ups in the shared tier on its way there.
A flight ends in `landing`, which stores what the `appraisal` of its value gave; `leaving` is for who parts from it before.
"""
