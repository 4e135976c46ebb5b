"""What every request passes on its way to a route: one concern per file, in the order that app.application says."""
