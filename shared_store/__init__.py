"""What is kept: blobs, commits, results, snapshots and tables, on whatever disk people have."""
