"""Feature models that metrics look through: one file per backbone, the file's name is the backbone's name.

Each file has `load(folder: Path) -> Backbone`, which raises BackboneMissing and says where it looked; weights come from
`folder` or from a local cache, never from the network."""
