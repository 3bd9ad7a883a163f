"""What runs one open connection. Private: nothing here is for users of the package."""
