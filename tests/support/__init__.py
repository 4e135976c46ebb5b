"""What tests are made with: one noun per file."""
