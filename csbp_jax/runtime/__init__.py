"""Hardware, processes and files: sharding, multihost runs, preemption, profiling, caches, atomic writes."""
