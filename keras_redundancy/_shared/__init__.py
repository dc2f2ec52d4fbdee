"""What every room uses: checked arguments, tables, files, progress."""
