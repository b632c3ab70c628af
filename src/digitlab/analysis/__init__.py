"""What runs mean together: plain values in, plain values out."""
