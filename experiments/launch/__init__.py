"""Many runs from one command: sweeps and their queue, and scripts for clusters. Above the command line, which it calls."""
