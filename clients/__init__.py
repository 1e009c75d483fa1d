"""Everything before the wire: gaze and video to fixation patches to the worker. Knows no torch."""
