"""The gateway: HTTP in, jobs out. It never touches a tensor."""
