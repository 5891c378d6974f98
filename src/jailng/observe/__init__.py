"""What the owner of a host sees and keeps of a jail from outside: terminals, packets, logs."""
