"""What runs on a machine: photos in, one trained fold (or label, bundle, prediction) out."""
