"""Whatever comes from outside, made by somebody who means harm: bytes, producers, a broker, and what memory keeps."""
