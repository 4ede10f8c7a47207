"""What is made and looked at before a grid starts: first files, downloads, the machine."""
