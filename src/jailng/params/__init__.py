"""What a jail is: the table of its parameters, their values, and a set of them. Pure: nothing here asks the kernel."""
