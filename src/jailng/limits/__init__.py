"""rctl(8): rules that limit what jails use, where they are kept, and who watches what no kernel limits by itself."""
