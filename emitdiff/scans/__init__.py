"""Medical files to slices, and masks back in the geometry of the file they belong to."""
