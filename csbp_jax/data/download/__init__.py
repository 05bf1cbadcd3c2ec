"""Raw files of published data sets: located or downloaded, verified, unpacked."""
