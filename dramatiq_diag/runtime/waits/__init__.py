"""What a thread or a coroutine waits for: the calls of the kernel, and the functions of Python that lead to them."""
