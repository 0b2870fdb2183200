"""What belongs together: a function a class, which gives a stage with its things."""
