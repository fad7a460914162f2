@"%~dp0python.exe" -I -m passrelay_ops %*
