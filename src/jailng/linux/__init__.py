"""The ground floor: the kernel, one family of system calls a module. It knows no jail."""
