"""What is known of jails from root's own files."""
