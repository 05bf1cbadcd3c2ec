"""Raw files of the published data sets: found, downloaded, verified, unpacked."""
