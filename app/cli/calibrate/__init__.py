"""``chainrule calibrate``: labelled questions in, a calibration out."""
