"""The GNSS digital twin: files, satellites, atmosphere, city, rays, fixes, corrections."""
