"""What looks at a whole project: its data and its machine, before and between the stages."""
