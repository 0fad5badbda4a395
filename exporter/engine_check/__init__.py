"""What each engine will ignore or misread in a GLB."""
