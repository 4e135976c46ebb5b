"""The networks that backbones are made of, and how their published weights are found and checked."""
