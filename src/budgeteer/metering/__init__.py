"""What a call may cost before it is made, and what it was charged afterwards."""
