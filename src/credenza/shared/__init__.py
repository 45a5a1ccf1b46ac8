"""What a cache with a shared tier knows of it: names, leases and fences that it holds, the proof that memory is fresh."""
